"""Track an object in a live stream, frame by frame: a camera, an address, or any file that FFmpeg opens."""

import argparse
import itertools
import time

import av

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.live_session import LiveSession

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("source", help="such as /dev/video0 with --format v4l2, or rtsp://...")
parser.add_argument("--format", help="FFmpeg's name of the device: v4l2, avfoundation, dshow")
parser.add_argument("--click", type=float, nargs=2, metavar=("X", "Y"), help="on the first frame; default: its middle")
parser.add_argument("--frames", type=int, default=100, help="stop after so many")
parser.add_argument("--model", default="i2v-nano")
args = parser.parse_args()

predictor = I2VVideoPredictor.from_pretrained(args.model)
with av.open(args.source, format=args.format) as stream, LiveSession(predictor) as session:
    for picture in itertools.islice(stream.decode(video=0), args.frames):
        image = picture.to_ndarray(format="rgb24")
        started = time.perf_counter()
        frame, _, logits = session.step(image)
        if frame == 0:
            click = args.click or [image.shape[1] / 2, image.shape[0] / 2]
            _, _, logits = session.add_new_points_or_box(1, points=[click], labels=[1])
        share = float((logits > 0).float().mean())
        print(f"frame {frame}: the object is {share:.0%} of the picture ({time.perf_counter() - started:.3f} s)")
