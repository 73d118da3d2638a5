"""Write a video of an object on green. `i2v track VIDEO --matte green` does the same and more."""

import argparse

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.export import label_map
from i2v.results.matte import compose_matte
from i2v.results.overlay import VideoWriter

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video", help="a video file or a folder of frames")
parser.add_argument("--click", type=float, nargs=2, default=[80, 60], metavar=("X", "Y"))
parser.add_argument("--behind", choices=["green", "blur"], default="green")
parser.add_argument("--model", default="i2v-nano")
parser.add_argument("--out", default="cut_out.mp4")
args = parser.parse_args()

predictor = I2VVideoPredictor.from_pretrained(args.model)
with predictor.init_state(args.video) as state, VideoWriter(args.out, state.source.frame_rate) as writer:
    predictor.add_new_points_or_box(state, frame_idx=0, obj_id=1, points=[args.click], labels=[1])
    for frame, _, logits in predictor.propagate_in_video(state):
        writer.write(compose_matte(args.behind, state.source.read(frame), label_map(logits, [1])))
print(f"{args.out}: {writer.num_frames} frames")
