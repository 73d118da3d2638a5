"""Reads, scores and draws SA-V and other video segmentation benchmarks. Runs from a checkout; needs no model."""
