"""Options of the ``i2v`` command from those of a benchmark."""

from __future__ import annotations

import argparse

from i2v.cli.arguments import TRUST
from i2v.pretrained import is_nano_config


def model_options(args: argparse.Namespace) -> list[str]:
    """Return the options for a benchmark's model. A config without weights of its own gets random ones."""
    options: list[str] = []
    for name in ("config", "checkpoint", "device"):
        if getattr(args, name) is not None:
            options += [f"--{name}", getattr(args, name)]
    if args.checkpoint is None and args.config is not None and not is_nano_config(args.config):
        options.append("--random-weights")
    return options + [TRUST] * args.trust_config
