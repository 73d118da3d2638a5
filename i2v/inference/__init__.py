"""Inference: the state of a session over a video, and what acts on it."""
