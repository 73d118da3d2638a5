"""Tracking with ONNX Runtime and NumPy: a model that ``i2v export`` wrote, and no PyTorch.

Only the basic case of ``i2v.I2VVideoPredictor`` is here: prompts with points, boxes and masks, several objects, one
propagation forward. ``i2v track --onnx FOLDER`` uses it.
"""
