"""City-to-country questions, and answers of a language model."""
