"""Testing: runs a model over whole benchmarks, from a checkout."""
