"""Testing: runs the model over whole benchmarks. Runs from a checkout."""
