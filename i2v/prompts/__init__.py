"""Prompts: reading clicks, boxes and masks from users' input, and sampling them from ground truth."""
