"""Export of a model as parts that run without this library: ONNX files, or programs of ``torch.export``."""
