"""From a window of frames to the features of its last frame."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from i2v.modeling.backbones.tfi import TFI
from i2v.modeling.position_encoding import sine_encoding_2d
from i2v.modeling.structures import FrameFeatures


class ImageEncoder(nn.Module):
    """Image trunk on the frame, video trunk on its window."""

    position: Tensor

    def __init__(self, trunk_image: nn.Module, trunk_video: TFI, grid: int, d_model: int = 256) -> None:
        """``grid``: side of the feature map, the frame's side over 16."""
        super().__init__()
        self.trunk_image = trunk_image
        self.trunk_video = trunk_video
        self.register_buffer("position", sine_encoding_2d(grid, grid, d_model), persistent=False)

    @property
    def window_length(self) -> int:
        """Frames in a window."""
        return self.trunk_video.t_window

    def stem_features(self, frames: Tensor) -> Tensor:
        """What frames (B,3,S,S) contribute to the windows that they are part of (B,K,C,h,w): kept for the next ones."""
        return self.trunk_video.temporal_stem.per_frame(frames)

    def forward(self, frames: Tensor, stem_features: Sequence[Tensor]) -> FrameFeatures:
        """Features of frames (B,3,S,S), given :meth:`stem_features` of the T frames of their windows, oldest first."""
        vision = self.trunk_video(self.trunk_image(frames), stem_features)
        return FrameFeatures(vision=vision, position=self.position.to(vision.dtype))
