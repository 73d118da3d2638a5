"""Find masks of everything in an image, list them, and paint them onto it."""

import argparse

import numpy as np
from PIL import Image

from i2v.automatic_mask_generator import I2VAutomaticMaskGenerator
from i2v.results.overlay import blend_overlay

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("image")
parser.add_argument("--points-per-side", type=int, default=16)
parser.add_argument("--model", default="i2v-nano")
parser.add_argument("--out", default="everything.png")
args = parser.parse_args()

image = np.asarray(Image.open(args.image).convert("RGB"))
generator = I2VAutomaticMaskGenerator.from_pretrained(args.model, points_per_side=args.points_per_side)
found = generator.generate(image)[:255]  # the best first

labels = np.zeros(image.shape[:2], np.uint8)
for label, mask in sorted(enumerate(found, start=1), key=lambda item: -item[1]["area"]):
    labels[mask["segmentation"]] = label  # small masks over large ones
    print(f"{label}: {mask['area']} pixels at {mask['bbox']}, predicted IoU {mask['predicted_iou']:.2f}")
Image.fromarray(blend_overlay(image, labels)).save(args.out)
