"""Track two objects through a video, from a click and a box, and save their masks as NumPy arrays."""

import argparse
from pathlib import Path

import numpy as np

from i2v.i2v_video_predictor import I2VVideoPredictor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video", help="a video file or a folder of frames")
parser.add_argument("--click", type=float, nargs=2, default=[80, 60], metavar=("X", "Y"))
parser.add_argument("--box", type=float, nargs=4, default=[100, 20, 150, 100], metavar=("X0", "Y0", "X1", "Y1"))
parser.add_argument("--model", default="i2v-nano")
parser.add_argument("--out", type=Path, default=Path("masks"))
args = parser.parse_args()

predictor = I2VVideoPredictor.from_pretrained(args.model)
args.out.mkdir(exist_ok=True)
with predictor.init_state(args.video) as state:
    predictor.add_new_points_or_box(state, frame_idx=0, obj_id=1, points=[args.click], labels=[1])
    predictor.add_new_points_or_box(state, frame_idx=0, obj_id=2, box=args.box)
    for frame, object_ids, logits in predictor.propagate_in_video(state):
        masks = (logits[:, 0] > 0).cpu().numpy()  # (objects, height, width)
        np.savez_compressed(args.out / f"{frame:05d}.npz", ids=object_ids, masks=masks)
        areas = ", ".join(f"object {i}: {mask.sum()} pixels" for i, mask in zip(object_ids, masks, strict=True))
        print(f"frame {frame}: {areas}")
