"""The typed values of the data path: one decoded frame, a clip before and after normalization, a batch.

Letters: `T` frames, `B` clips, `N` objects, `S` side of the square model image, `H, W` pixels of a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameObjects:
    """One frame as its files hold it.

    Image and masks may differ in resolution (frames are stored smaller than their annotations at times), but
    show the same picture.
    """

    image: Tensor  # (3,H,W) uint8
    masks: Tensor  # (N,h,w) bool; an object that is absent has an empty mask


@dataclass(frozen=True)
class RawClip:
    """A clip at the model's size on which augmentations work."""

    frames: Tensor  # (T,3,S,S) uint8
    masks: Tensor  # (T,N,S,S) bool
    aspect: float  # width over height of the picture before it was made square
    name: str  # of the video, for messages
    frame_indices: tuple[int, ...]  # numbers of the frames in the video, in the clip's order


@dataclass(frozen=True)
class VideoClip:
    """A clip of one video as the model takes it. An image is a clip of one frame."""

    frames: Tensor  # (T,3,S,S) float32, normalized with the mean and deviation of ImageNet
    masks: Tensor  # (T,N,S,S) bool, the same objects in the same order on every frame
    name: str
    frame_indices: tuple[int, ...]


@dataclass(frozen=True)
class BatchedClip:
    """Clips of equal length side by side."""

    frames: Tensor  # (T,B,3,S,S) float32
    masks: Tensor  # (T,N,S,S) bool, objects of all clips, clip after clip
    video_of: Tensor  # (N,) int64: the clip, 0..B-1, to which each object belongs
    names: tuple[str, ...]  # of the B videos

    @property
    def num_frames(self) -> int:
        """T."""
        return self.frames.shape[0]

    def pin_memory(self) -> BatchedClip:
        """The same batch in page-locked memory, from which copies to a GPU can run beside other work."""
        return self._with(self.frames.pin_memory(), self.masks.pin_memory(), self.video_of.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> BatchedClip:
        """The same batch on a device."""
        return self._with(
            self.frames.to(device, non_blocking=non_blocking),
            self.masks.to(device, non_blocking=non_blocking),
            self.video_of.to(device, non_blocking=non_blocking),
        )

    def _with(self, frames: Tensor, masks: Tensor, video_of: Tensor) -> BatchedClip:
        return BatchedClip(frames, masks, video_of, self.names)


def collate(clips: Sequence[VideoClip]) -> BatchedClip:
    """Batch clips; ValueError unless they agree in number of frames and size. Numbers of objects may differ."""
    if not clips:
        raise ValueError("clips: got none, expected at least one")
    first = clips[0]
    for clip in clips[1:]:
        if clip.frames.shape != first.frames.shape:
            raise ValueError(
                f"clips of one batch have to agree in shape: {clip.name} has frames {tuple(clip.frames.shape)}, "
                f"{first.name} has {tuple(first.frames.shape)}"
            )
    counts = torch.tensor([clip.masks.shape[1] for clip in clips])
    return BatchedClip(
        frames=torch.stack([clip.frames for clip in clips], dim=1),
        masks=torch.cat([clip.masks for clip in clips], dim=1),
        video_of=torch.repeat_interleave(torch.arange(len(clips)), counts),
        names=tuple(clip.name for clip in clips),
    )
