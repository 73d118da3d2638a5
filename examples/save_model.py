"""Save a model with its config in half precision, and load it again, as a stranger would from the Hugging Face hub."""

import argparse
from pathlib import Path

import torch

from i2v.i2v_video_predictor import I2VVideoPredictor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--model", default="i2v-nano")
args = parser.parse_args()

predictor = I2VVideoPredictor.from_pretrained(args.model)
folder = predictor.save_pretrained(args.folder, dtype=torch.float16)
for path in sorted(folder.iterdir()):
    print(f"{path}: {path.stat().st_size:,} bytes")

again = I2VVideoPredictor.from_pretrained(folder)
print(f"{sum(p.numel() for p in again.parameters()):,} parameters, model image {again.image_size} pixels")
