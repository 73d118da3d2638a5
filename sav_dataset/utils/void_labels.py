"""Which values of label images are no objects: void, as DAVIS calls the 255 where it is not said what a pixel shows."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from i2v.prompts.mask_values import VOID

RULE = "label 255 is void where a video has other labels, too"


def void_labels(frames: Iterable[Collection[int]]) -> frozenset[int]:
    """The labels of a video that are void, from the labels of its frames; 0, the background, may be among them.

    255 is void where any frame has another label than 0 and 255. Where there is none, as in DAVIS-2016 and in masks of
    0 and 255, it is the object. Reads no further than to the first frame that decides.
    """
    others = any(label not in (0, VOID) for labels in frames for label in labels)
    return frozenset({VOID}) if others else frozenset()


def read_ignore_labels(text: str) -> tuple[int, ...]:
    """The labels that an option names: numbers from 1 to 255 with commas between them, or ``none``. ValueError else."""
    if text == "none":
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part) <= 255 for part in parts):
        raise ValueError(f"ignore_labels: expected labels from 1 to 255 such as 254,255, or none, got {text!r}")
    return tuple(sorted({int(part) for part in parts}))
