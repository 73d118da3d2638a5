"""Compiling a model's parts with torch.compile: an option, as the first frames then take minutes."""

from __future__ import annotations

from i2v.modeling.i2v_model import I2VModel

# Called on every frame with the same shapes. Memory attention is compiled by the layer, so that the number of objects
# is no part of it; what a CPU does to attend to memories depends on their values, and is left out by graph breaks.
_PARTS = (
    "image_encoder.trunk_image",
    "image_encoder.trunk_video",
    "memory_prompt_generator",
    "sam_mask_decoder",
    "memory_encoder.mask_downsampler",
    "memory_encoder.fuser",
)


def compile_model(model: I2VModel, backend: str = "inductor") -> None:
    """Compile the parts of a model that a frame costs when they are first called. ``backend``: one of torch.compile's.

    To be used with a policy of ``static_shapes``, under which memories are laid out at full length from the first frame
    on, with what is missing counting zero times: so nothing is compiled again once an object has been tracked for five
    frames, a window's length. As ``nn.Module.compile`` does, a copy of the model, or one that was pickled and loaded,
    is not compiled.
    """
    for part in (*map(model.get_submodule, _PARTS), *model.memory_attention.layers):
        part.compile(backend=backend)
