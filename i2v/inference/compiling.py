"""Optional compilation of a model with ``torch.compile``, under which the first frames take minutes."""

from __future__ import annotations

from i2v.modeling.i2v_model import I2VModel

# Modules that every frame calls with the same shapes. Memory attention is compiled layer by layer, so that the number
# of objects does not change its graph. The fast attention to memories on a CPU depends on values: graph breaks leave it
# out.
_COMPILED_MODULES = (
    "image_encoder.trunk_image",
    "image_encoder.trunk_video",
    "memory_prompt_generator",
    "sam_mask_decoder",
    "memory_encoder.mask_downsampler",
    "memory_encoder.fuser",
)


def compile_model(model: I2VModel, backend: str = "inductor") -> None:
    """Compile the expensive modules of a model in place, each when it is first called.

    Use it with a policy of ``static_shapes``: memories are then padded to full length from the first frame on, and
    nothing is recompiled once an object has been tracked for five frames, the length of a window. As with
    ``nn.Module.compile``, copies and unpickled models are not compiled.

    Args:
        model: The model.
        backend: A backend of ``torch.compile``.
    """
    for module in (*map(model.get_submodule, _COMPILED_MODULES), *model.memory_attention.layers):
        module.compile(backend=backend)
