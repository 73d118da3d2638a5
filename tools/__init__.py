"""Command-line tools of the checkout: they prepare data and time the model."""
