"""What people are told: one reading of everything, as plain data."""
