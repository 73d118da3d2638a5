"""Commands that prepare training data."""
