"""The `i2v` command."""
