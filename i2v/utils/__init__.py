"""Helpers that do not depend on the model: files, images, JSON, masks, signals."""
