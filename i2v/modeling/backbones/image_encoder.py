"""From a window of frames to the features of its last frame."""

from __future__ import annotations

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

    def forward(self, windows: Tensor) -> FrameFeatures:
        """Windows (B,3,T,S,S), oldest frame first -> features of their last frames."""
        maps = self.trunk_image(windows[:, :, -1])
        vision = self.trunk_video(maps, windows)
        return FrameFeatures(vision=vision, position=self.position.to(vision.dtype))
