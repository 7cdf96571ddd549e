"""What every run shares: its folder, its result, its plots."""
