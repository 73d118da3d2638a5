"""Reads, scores and draws SA-V and other video segmentation benchmarks, from a checkout and without a model."""
