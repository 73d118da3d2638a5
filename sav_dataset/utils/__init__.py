"""Readers, measures and data sets used by the evaluator."""
