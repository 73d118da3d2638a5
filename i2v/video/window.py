"""The model's temporal window: which frames it reads for a frame."""

from __future__ import annotations

WINDOW_LENGTH = 5  # frames that the model reads for one step, the current one included


def window_indices(frame: int, length: int = WINDOW_LENGTH) -> list[int]:
    """Return the indices of the frames that the model reads for a frame: the preceding ones and itself.

    At the start of a video the window is padded with copies of the frame: 2 -> [0, 1, 2, 2, 2].

    Args:
        frame: Index of the current frame.
        length: Length of the window.

    Raises:
        IndexError: If ``frame`` is negative.
        ValueError: If ``length`` is below 1.
    """
    if frame < 0:
        raise IndexError(f"frame {frame}: frames are numbered from 0")
    if length < 1:
        raise ValueError(f"length: expected at least 1, got {length}")
    indices = list(range(max(0, frame - length + 1), frame + 1))
    return indices + [frame] * (length - len(indices))
