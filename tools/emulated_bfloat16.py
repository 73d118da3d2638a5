"""Test a model in bfloat16 on a machine without instructions for it: the arguments are those of test_pvs/semi_infer.py.

python tools/emulated_bfloat16.py --input gm --ckpt i2v-nano --dataset davis2016 --data_root DIR --output_root DIR

Products of bfloat16 tensors are computed in float32 and rounded to bfloat16, as tensor cores do it: rounded inputs,
sums in float32, a rounded output. PyTorch itself takes many times as long on such a CPU. ``i2v eval`` scores the masks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

if not __package__:
    # Run as a script, this file sees only its own folder.
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.utils.command import as_command
from test_pvs import semi_infer
from test_pvs.run_settings import RunSettings
from test_pvs.video_job import VideoJob
from test_pvs.workers import Failure, Work

aten = torch.ops.aten
# As they appear in inference mode, where PyTorch does not split them into smaller operations before.
PRODUCTS = frozenset(
    {
        aten.conv2d.default,
        aten.conv_transpose2d.input,
        aten.linear.default,
        aten.matmul.default,
        aten.scaled_dot_product_attention.default,
    }
)


class EmulatedBfloat16(TorchDispatchMode):
    """Inside a ``with`` block, products of bfloat16 tensors are computed in float32 and rounded."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        arguments = (args, kwargs or {})
        if func not in PRODUCTS or not any(_is_bfloat16(arg) for arg in args):
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(lambda x: x.float() if _is_bfloat16(x) else x, arguments)
        result = func(*args, **kwargs)
        return tree_map(lambda x: x.bfloat16() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, result)


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16


@as_command("emulated_bfloat16", "the same command resumes from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = semi_infer.make_parser().parse_args(["--dtype", "bfloat16", *words])
    return semi_infer.tell_failures("emulated_bfloat16", lambda: run(args))


def run(args: argparse.Namespace) -> list[Failure[VideoJob]]:
    """Make the masks of all videos.

    Args:
        args: The command line of test_pvs/semi_infer.py, parsed.

    Returns:
        The videos that failed.

    Raises:
        ValueError: If another precision is asked for, or an argument is invalid.
    """
    if args.dtype != "bfloat16":
        raise ValueError(f"--dtype: expected bfloat16, got {args.dtype}")
    return semi_infer.run(args, start_emulated_worker)


def start_emulated_worker(settings: RunSettings, device: str, trust_config: bool = False) -> Work[VideoJob]:
    """As ``semi_infer.start_worker``, and what the worker computes is emulated."""
    work = semi_infer.start_worker(settings, device, trust_config)

    def emulated(job: VideoJob) -> Iterator[float]:
        with EmulatedBfloat16():
            yield from work(job)

    return emulated


if __name__ == "__main__":
    sys.exit(main())
