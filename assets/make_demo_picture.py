"""Make assets/demo.png: the rendered clip of `i2v demo` with its exact masks, drawn as `i2v track` draws results."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from i2v.demo import centre_of, render_demo_clip
from i2v.overlay import ContactSheet, UserPrompt, blend_overlay


def main() -> None:
    clip = render_demo_clip()
    prompt = UserPrompt(obj_id=1, frame=0, clicks=((*centre_of(clip.masks[0]), 1),))
    frames = [0, 10, 20, 26, 36, 47]
    sheet = ContactSheet(frames, [prompt], {1: 1})
    for frame in frames:
        sheet.add(frame, blend_overlay(clip.frames[frame], clip.masks[frame].astype(np.uint8)))
    sheet.save(Path(__file__).with_name("demo.png"))


if __name__ == "__main__":
    main()
