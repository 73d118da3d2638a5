"""Image encoder: a window of frames to the features of its last frame."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from i2v.modeling.backbones.tfi import TFI, TemporalStem
from i2v.modeling.fast_path import has_hooks
from i2v.modeling.position_encoding import sine_encoding_2d
from i2v.modeling.structures import FrameFeatures


class ImageEncoder(nn.Module):
    """Image trunk on the frame, temporal feature integrator (video trunk) on its window.

    Attributes:
        position: Positional encoding ``(1, C, h, w)`` of the features, a non-persistent buffer.
    """

    position: Tensor

    def __init__(
        self, trunk_image: nn.Module, trunk_video: TFI, grid: int, d_model: int = 256, high_res_features: bool = False
    ) -> None:
        """Create the encoder.

        Args:
            trunk_image: Frames to a list of feature maps.
            trunk_video: Integrates these maps with the frames of the window.
            grid: Side ``h = w`` of the feature map, the frame's side over 16.
            d_model: Feature channels ``C``.
            high_res_features: Whether to give out the trunk's maps at strides 4 and 8 as well, for a mask decoder with
                ``high_res_dims``.
        """
        super().__init__()
        self.high_res_features = high_res_features
        self.trunk_image = trunk_image
        self.trunk_video = trunk_video
        self.register_buffer("position", sine_encoding_2d(grid, grid, d_model), persistent=False)

    @property
    def window_length(self) -> int:
        """Frames ``T`` in a window."""
        return self.trunk_video.t_window

    def stem_features(self, frames: Tensor) -> Tensor:
        """Compute the contribution of frames ``(B, 3, S, S)`` to their windows, ``(B, K, C, h, w)``, to be cached."""
        return self._checked_stem().per_frame(frames)

    def _checked_stem(self) -> TemporalStem:
        """The stem, whose contributions are computed frame by frame and cached: it is never called as a module."""
        stem = self.trunk_video.temporal_stem
        if not isinstance(stem, TemporalStem):
            raise TypeError(
                f"temporal_stem: expected a TemporalStem, got {type(stem).__name__}: this part cannot be wrapped or "
                "replaced, as it is applied frame by frame"
            )
        if has_hooks(stem):
            warnings.warn(
                "the forward and backward hooks of temporal_stem do not run, as it is applied frame by frame",
                stacklevel=2,
            )
        return stem

    def forward(self, frames: Tensor, stem_features: Sequence[Tensor]) -> FrameFeatures:
        """Encode frames.

        Args:
            frames: ``(B, 3, S, S)`` normalized RGB.
            stem_features: Results of ``stem_features`` for the ``T`` frames of the windows, oldest first.

        Returns:
            Features ``(B, C, h, w)``, their positional encoding and, if asked for, the maps at strides 4 and 8.
        """
        maps = self.trunk_image(frames)
        vision = self.trunk_video(maps, stem_features)
        high_res = tuple(maps[:2]) if self.high_res_features else ()
        return FrameFeatures(vision=vision, position=self.position.to(vision.dtype), high_res=high_res)
