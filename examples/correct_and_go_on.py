"""Track an object, correct it on a frame in the middle with a background click, and go on from there."""

import argparse

from i2v.i2v_video_predictor import I2VVideoPredictor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video", help="a video file or a folder of frames")
parser.add_argument("--click", type=float, nargs=2, default=[80, 60], metavar=("X", "Y"))
parser.add_argument("--background", type=float, nargs=2, default=[10, 10], metavar=("X", "Y"))
parser.add_argument("--model", default="i2v-nano")
args = parser.parse_args()

predictor = I2VVideoPredictor.from_pretrained(args.model)
with predictor.init_state(args.video) as state:
    predictor.add_new_points_or_box(state, frame_idx=0, obj_id=1, points=[args.click], labels=[1])
    areas = {frame: int((logits > 0).sum()) for frame, _, logits in predictor.propagate_in_video(state)}

    # The mask of the frame and the memories before it count, so one click can be enough.
    middle = state.num_frames // 2
    predictor.add_new_points_or_box(state, middle, 1, points=[args.background], labels=[0])
    for frame, _, logits in predictor.propagate_in_video(state, start_frame_idx=middle):
        print(f"frame {frame}: {areas[frame]} pixels before, {int((logits > 0).sum())} after the correction")
