"""Make assets/demo.png: the rendered clip of `i2v demo`, tracked from one click by i2v-nano."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from i2v.build_i2v import build_i2v_video_predictor
from i2v.demo import render_demo_clip
from i2v.pretrained import choose_model
from i2v.prompts.sampling import centroid_pixel
from i2v.results.overlay import ContactSheet, UserPrompt, blend_overlay

FRAMES = (0, 10, 20, 26, 36, 47)


def main() -> None:
    clip, model = render_demo_clip(), choose_model()
    x, y = centroid_pixel(clip.masks[0])
    sheet = ContactSheet(list(FRAMES), [UserPrompt(obj_id=1, frame=0, clicks=((x, y, 1),))], {1: 1})
    predictor = build_i2v_video_predictor(model.config, model.checkpoint, device="cpu")
    with predictor.init_state(clip.frames) as state:
        predictor.add_new_points_or_box(state, frame_idx=0, obj_id=1, points=[[x, y]], labels=[1])
        for frame, _, logits in predictor.propagate_in_video(state):
            if frame in FRAMES:
                mask = (logits[0, 0] > 0).numpy().astype(np.uint8)
                sheet.add(frame, blend_overlay(clip.frames[frame], mask))
    sheet.save(Path(__file__).with_name("demo.png"))


if __name__ == "__main__":
    main()
