"""Compiling a model's parts with torch.compile: an option, as the first frames then take minutes."""

from __future__ import annotations

import torch
from torch import nn

from i2v.modeling.i2v_model import I2VModel

# Called on every frame with the same shapes: the name of a part and of what it does. Memory attention is compiled by
# the layer, so that the number of objects is no part of it; what a CPU does to search in memories depends on what it
# finds, and goes on as it is between compiled pieces.
_PARTS = (
    ("image_encoder.trunk_image", "forward"),
    ("image_encoder.trunk_video", "forward"),
    ("memory_prompt_generator", "forward"),
    ("sam_mask_decoder", "forward"),
    ("memory_encoder.mask_downsampler", "forward"),
    ("memory_encoder.fuser", "forward"),
)
_LAYER_PARTS = ("look_around", "read")


def compile_model(model: I2VModel, backend: str = "inductor") -> None:
    """Let what a frame costs be compiled when it is first used. ``backend`` is one of torch.compile's.

    Memories are laid out at full length from the first frame on, with what is missing counting zero times: so shapes
    stand still, and nothing is compiled again once an object has been tracked for five frames, a window's length.
    """
    model.static_shapes = True
    for name, verb in _PARTS:
        _compile(model.get_submodule(name), verb, backend)
    for layer in model.memory_attention.layers:
        for verb in _LAYER_PARTS:
            _compile(layer, verb, backend)


def _compile(module: nn.Module, verb: str, backend: str) -> None:
    setattr(module, verb, torch.compile(getattr(module, verb), backend=backend))
