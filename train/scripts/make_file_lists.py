"""List the samples of a data set, for the `*_file_list_txt` keys of the training config.

    python -m train.scripts.make_file_lists sav --images /data/sav_train_jpg --annotations /data/sav_train_json \\
        --output train/txt/sav_train_list.txt
    python -m train.scripts.make_file_lists sa1b --images /data/sa1b_jpg --annotations /data/sa1b_json \\
        --sample 10000 --output train/txt/sa1b_10k_train_list.txt

Only samples with both frames and annotations are listed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from i2v.cli.numbers import amount, count
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.files import replacing
from i2v.utils.terminal import log_to_stderr
from train.dataset.vos_raw_dataset import (
    ImageMaskRawDataset,
    JSONRawDataset,
    PNGRawDataset,
    SA1BRawDataset,
)

log = logging.getLogger(__name__)


class _Named(Protocol):
    names: list[str]


# The reader of each kind of data set, and the suffix of names in the published list of that kind.
_KINDS: dict[str, tuple[Callable[[Path, Path], _Named], str]] = {
    "sav": (JSONRawDataset, ""),
    "sa1b": (SA1BRawDataset, ".jpg"),
    "png": (PNGRawDataset, ""),
    "images": (ImageMaskRawDataset, ""),
}


def sampled(names: Sequence[str], count: int | None, seed: int) -> list[str]:
    """Sort names, or draw some in random order.

    Args:
        names: The names.
        count: How many to draw; ``None`` for all, sorted.
        seed: Seed of the draw.

    Raises:
        ValueError: If there are fewer names than ``count``.
    """
    if count is None:
        return sorted(names)
    if count > len(names):
        raise ValueError(f"--sample: expected {count} samples, got {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names))
    ordered = sorted(names)
    return [ordered[i] for i in order[:count]]


def write_list(path: Path, names: Sequence[str], suffix: str = "") -> None:
    """Write one name per line, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{name}{suffix}\n" for name in names), encoding="utf-8")


@as_command("make_file_lists")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status 0.

    Raises:
        SystemExit: With the reason, if there is nothing to list.
    """
    args = _parser().parse_args(arguments)
    log_to_stderr(logging.INFO, "%(message)s")
    reader, suffix = _KINDS[args.kind]
    try:
        names = sampled(reader(args.images, args.annotations).names, args.sample, args.seed)
    except USER_ERRORS as error:
        raise SystemExit(describe_error(error)) from error
    write_list(args.output, names, suffix)
    log.info("%d names written to %s", len(names), args.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.scripts.make_file_lists", description=__doc__.split("\n")[0])
    parser.add_argument(
        "kind",
        choices=sorted(_KINDS),
        help="sav: videos with NAME_manual.json; sa1b: images with NAME.json; "
        "png: videos with folders of PNG masks; images: images with NAME.png",
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of videos or images")
    parser.add_argument("--annotations", type=Path, required=True, help="folder of annotations")
    parser.add_argument("--output", type=Path, required=True, help="list to write")
    parser.add_argument("--sample", type=count, help="draw this many at random (default: list all, sorted)")
    parser.add_argument("--seed", type=amount, default=0, help="seed of the draw (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
