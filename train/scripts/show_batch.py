"""Draw what a model is fed: a batch of a training config, each object on all its frames, as a PNG.

python -m train.scripts.show_batch CONFIG [KEY=VALUE ...] --output batch.png [--batches 2]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from i2v.config import ConfigError, load_config
from i2v.utils.files import replacing
from i2v.utils.frame_loader import MEAN, STD
from train.build import build
from train.dataset.structures import BatchedClip

SIDE = 128  # pixels of a frame
COLOUR = (1.0, 0.15, 0.15)
MAX_ROWS = 48  # objects in a picture


def draw_batch(batch: BatchedClip) -> Tensor:
    """The frames of every object with its mask, one row each: (3,H,W) uint8."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    colour = torch.tensor(COLOUR).view(3, 1, 1)
    rows = []
    for number, clip in enumerate(batch.video_of.tolist()[:MAX_ROWS]):
        frames = F.interpolate((batch.frames[:, clip].cpu() * std + mean).clamp(0, 1), size=(SIDE, SIDE), mode="area")
        mask = F.interpolate(batch.masks[:, number, None].float().cpu(), size=(SIDE, SIDE), mode="area")
        rows.append(torch.cat(list(torch.lerp(frames, colour.expand_as(frames), 0.5 * mask)), dim=2))
    return (torch.cat(rows, dim=1) * 255).round().byte()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 when done, 2 for a wrong config or missing data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path("batch.png"))
    parser.add_argument("--batches", type=int, default=1, help="below each other (default: %(default)s)")
    args = parser.parse_intermixed_args(argv)
    try:
        config = load_config(args.config, args.overrides)
        loader = build(config, "data.train", seed=config.trainer.seed_value, rank=0, world_size=1)
        pictures = [draw_batch(batch) for batch, _ in zip(loader.epoch(0), range(args.batches), strict=False)]
    except (ConfigError, OSError, ValueError) as error:
        print(f"show_batch: error: {error}", file=sys.stderr)
        return 2
    width = max(picture.shape[2] for picture in pictures)
    whole = torch.cat([F.pad(picture, (0, width - picture.shape[2])) for picture in pictures], dim=1)
    with replacing(args.output) as temporary:
        Image.fromarray(whole.movedim(0, -1).numpy()).save(temporary, "PNG")
    print(f"{args.output}: {len(pictures)} batches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
