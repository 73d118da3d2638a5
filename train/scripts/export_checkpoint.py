"""Export a training checkpoint for inference: the weights only, in half precision, with the name of their config.

    python -m train.scripts.export_checkpoint logs/i2v-nano-train/checkpoints/checkpoint.pt checkpoints/i2v-nano.pt \
        --config i2v-nano-infer
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from i2v.build_i2v import build_i2v
from i2v.checkpoint import save_checkpoint
from i2v.cli.arguments import add_trust_option
from i2v.config import packaged_name
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@as_command("export_checkpoint")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 if a file or the config is invalid."""
    parser = argparse.ArgumentParser(prog="python -m train.scripts.export_checkpoint", description=__doc__)
    parser.add_argument("state", type=Path, help="checkpoint.pt, checkpoint_N.pt or best.pt of a run")
    parser.add_argument("output", type=Path, help="the file to write; an existing one is replaced")
    parser.add_argument("--config", required=True, metavar="NAME", help="config for inference with these weights")
    add_trust_option(parser)
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    args = parser.parse_args(arguments)
    try:
        name = packaged_name(args.config)
        model = build_i2v(args.config, args.state, device="cpu", trust_config=args.trust_config)
        # A checkpoint may only name a packaged config, which everybody has.
        save_checkpoint(model, args.output, dtype=DTYPES[args.dtype], **({"config": name} if name else {}))
    except USER_ERRORS as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return 1
    use = f"for {name}" if name else f"to be used with --config {args.config}"
    print(f"{args.output}: {args.output.stat().st_size:,} bytes, {use}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
