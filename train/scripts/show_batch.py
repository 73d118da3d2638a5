"""Draw batches of a training config as a PNG: a row per object, with its mask on all frames.

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

from i2v.cli.arguments import add_trust_option
from i2v.cli.numbers import count
from i2v.config import load_config
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.files import replacing
from train.build import build
from train.dataset.structures import BatchedClip
from train.metrics import TRUE_COLOUR, denormalize, tint

SIDE = 128  # of a frame, in pixels
MAX_ROWS = 48  # objects in a picture


def draw_batch(batch: BatchedClip) -> Tensor:
    """Draw one row per object: its frames with its mask, as a picture ``(3, H, W)`` uint8."""
    rows = []
    for number, clip in enumerate(batch.video_of.tolist()[:MAX_ROWS]):
        frames = denormalize(batch.frames[:, clip].cpu()).clamp(0, 1)
        row = tint(frames, batch.masks[:, number].cpu(), TRUE_COLOUR)
        small = F.interpolate(row, size=(SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)
        rows.append(torch.cat(list(small), dim=2))
    return (torch.cat(rows, dim=1) * 255).round().byte()


@as_command("show_batch")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 for an invalid config or missing data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path("batch.png"))
    parser.add_argument("--batches", type=count, default=1, help="number of batches (default: %(default)s)")
    add_trust_option(parser)
    args = parser.parse_intermixed_args(argv)
    try:
        config = load_config(args.config, args.overrides, args.trust_config)
        loader = build(config, "data.train", seed=config.trainer.seed_value, rank=0, world_size=1)
        pictures = [draw_batch(batch) for batch, _ in zip(loader.epoch(0), range(args.batches), strict=False)]
    except USER_ERRORS as error:
        print(f"show_batch: error: {describe_error(error)}", file=sys.stderr)
        return 1
    width = max(picture.shape[2] for picture in pictures)
    whole = torch.cat([F.pad(picture, (0, width - picture.shape[2])) for picture in pictures], dim=1)
    with replacing(args.output) as temporary:
        Image.fromarray(whole.movedim(0, -1).numpy()).save(temporary, "PNG")
    print(f"{args.output}: {len(pictures)} batches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
