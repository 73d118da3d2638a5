"""i2v: promptable video segmentation. Importing the package imports nothing else and has no side effects.

``build_i2v_video_predictor`` builds an ``I2VVideoPredictor``, which tracks objects in recorded videos;
``i2v.inference.live_session.LiveSession`` tracks them in the frames of a camera. ``I2VImagePredictor`` segments them in
single images, and ``I2VAutomaticMaskGenerator`` finds all of them there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i2v.automatic_mask_generator import I2VAutomaticMaskGenerator
    from i2v.build_i2v import build_i2v_image_predictor, build_i2v_video_predictor
    from i2v.i2v_image_predictor import I2VImagePredictor
    from i2v.i2v_video_predictor import I2VVideoPredictor

__version__ = "0.1.0"

__all__ = [
    "I2VAutomaticMaskGenerator",
    "I2VImagePredictor",
    "I2VVideoPredictor",
    "__version__",
    "build_i2v_image_predictor",
    "build_i2v_video_predictor",
]

# `build_i2v` is missing on purpose: as an attribute of the package, that name is the module.
_HOMES = {
    "build_i2v_image_predictor": "i2v.build_i2v",
    "build_i2v_video_predictor": "i2v.build_i2v",
    "I2VAutomaticMaskGenerator": "i2v.automatic_mask_generator",
    "I2VImagePredictor": "i2v.i2v_image_predictor",
    "I2VVideoPredictor": "i2v.i2v_video_predictor",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: PyTorch takes seconds to import, and `i2v --help` does not need it.
    if name not in _HOMES:
        raise AttributeError(f"module 'i2v' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
