"""Command-line tools of the checkout, which prepare data, make result tables and benchmark the model."""
