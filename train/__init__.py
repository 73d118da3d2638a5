"""Training: data, losses and the loop around the model of `i2v`. Runs from a checkout."""
