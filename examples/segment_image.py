"""Segment an object in an image from a click, and again from the box of the best mask."""

import argparse

import numpy as np
from PIL import Image

from i2v.i2v_image_predictor import I2VImagePredictor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("image")
parser.add_argument("--click", type=float, nargs=2, metavar=("X", "Y"), help="default: the middle")
parser.add_argument("--model", default="i2v-nano")
parser.add_argument("--out", default="mask.png")
args = parser.parse_args()

image = Image.open(args.image)
predictor = I2VImagePredictor.from_pretrained(args.model)
predictor.set_image(image)

click = args.click or [image.width / 2, image.height / 2]
masks, ious, low_res = predictor.predict([click], [1])
best = int(ious.argmax())
print(f"three masks with predicted IoUs {', '.join(f'{iou:.2f}' for iou in ious)}")

rows, columns = np.nonzero(masks[best])
box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
masks, ious, _ = predictor.predict(box=box, mask_input=low_res[[best]], multimask_output=False)
print(f"from its box {[int(side) for side in box]}: predicted IoU {ious[0]:.2f}, {masks[0].sum()} pixels")
Image.fromarray(masks[0]).save(args.out)
