"""Readers, measures and datasets behind the evaluator."""
