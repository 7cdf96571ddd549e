"""City-to-country questions, and how answers are marked."""
