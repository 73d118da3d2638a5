"""Types of the data pipeline: a decoded frame, a clip before and after normalization, a batch.

Shapes: ``T`` frames, ``B`` clips, ``N`` objects, ``S`` side of the square model image, ``H, W`` size of a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameObjects:
    """One frame as stored in files.

    Image and masks may differ in resolution, as some frames are stored smaller than their annotations, but not in
    content.

    Attributes:
        image: ``(3, H, W)`` uint8.
        masks: ``(N, h, w)`` bool; empty for an absent object.
    """

    image: Tensor
    masks: Tensor


@dataclass(frozen=True)
class RawClip:
    """A clip at model size, before augmentation and normalization.

    Attributes:
        frames: ``(T, 3, S, S)`` uint8.
        masks: ``(T, N, S, S)`` bool.
        aspect: Width over height of the frames before they were resized to a square.
        name: Name of the video, for messages.
        frame_indices: Numbers of the frames in the video, in the order of the clip.
    """

    frames: Tensor
    masks: Tensor
    aspect: float
    name: str
    frame_indices: tuple[int, ...]


@dataclass(frozen=True)
class VideoClip:
    """A clip of one video as model input. An image is a clip of one frame.

    Attributes:
        frames: ``(T, 3, S, S)`` float32, normalized with the mean and standard deviation of ImageNet.
        masks: ``(T, N, S, S)`` bool, the same objects in the same order on every frame.
        name: Name of the video, for messages.
        frame_indices: Numbers of the frames in the video, in the order of the clip.
    """

    frames: Tensor
    masks: Tensor
    name: str
    frame_indices: tuple[int, ...]


@dataclass(frozen=True)
class BatchedClip:
    """A batch of clips of equal length.

    Attributes:
        frames: ``(T, B, 3, S, S)`` float32.
        masks: ``(T, N, S, S)`` bool, the objects of all clips concatenated.
        video_of: ``(N,)`` int64 in 0..B-1, the clip of each object.
        names: Names of the ``B`` videos.
    """

    frames: Tensor
    masks: Tensor
    video_of: Tensor
    names: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Number of frames ``T``."""
        return self.frames.shape[0]

    def pin_memory(self) -> BatchedClip:
        """Copy to page-locked memory, from which copies to a GPU can be asynchronous."""
        return self._with(self.frames.pin_memory(), self.masks.pin_memory(), self.video_of.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> BatchedClip:
        """Copy to a device."""
        return self._with(
            self.frames.to(device, non_blocking=non_blocking),
            self.masks.to(device, non_blocking=non_blocking),
            self.video_of.to(device, non_blocking=non_blocking),
        )

    def _with(self, frames: Tensor, masks: Tensor, video_of: Tensor) -> BatchedClip:
        return BatchedClip(frames, masks, video_of, self.names)


def collate(clips: Sequence[VideoClip]) -> BatchedClip:
    """Batch clips, which may differ in the number of objects.

    Raises:
        ValueError: If there are none, or they differ in number of frames or size.
    """
    if not clips:
        raise ValueError("clips: expected at least one, got none")
    first = clips[0]
    for clip in clips[1:]:
        if clip.frames.shape != first.frames.shape:
            raise ValueError(
                f"clips of one batch must have the same shape: {clip.name} has frames {tuple(clip.frames.shape)}, "
                f"{first.name} has {tuple(first.frames.shape)}"
            )
    counts = torch.tensor([clip.masks.shape[1] for clip in clips])
    return BatchedClip(
        frames=torch.stack([clip.frames for clip in clips], dim=1),
        masks=torch.cat([clip.masks for clip in clips], dim=1),
        video_of=torch.repeat_interleave(torch.arange(len(clips)), counts),
        names=tuple(clip.name for clip in clips),
    )
