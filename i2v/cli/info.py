"""`i2v info`: what a checkpoint contains."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Container, Iterator, Mapping

from i2v import build_i2v as builders
from i2v.checkpoint import compare_state_dict, read_checkpoint, read_checkpoint_info
from i2v.pretrained import config_of
from i2v.utils.files import sha256_of
from i2v.utils.terminal import printable

_LONGEST_CLAIM = 200  # characters shown of what a checkpoint says of itself


def info(args: Namespace, say: Callable[[str], None]) -> int:
    """Run the command.

    Args:
        args: The parsed arguments.
        say: Prints a line.

    Returns:
        The exit status: 0 if the checkpoint fits the config, else 1.
    """
    found = read_checkpoint_info(args.checkpoint)
    config = args.config or config_of(args.checkpoint, found.metadata)
    model = builders.build_i2v(config, device="cpu", trust_config=args.trust_config)
    report = compare_state_dict(model, read_checkpoint(args.checkpoint))
    facts = {
        "file": args.checkpoint,
        "size": f"{args.checkpoint.stat().st_size:,} bytes",
        "sha256": sha256_of(args.checkpoint),
        "entries": f"{found.num_entries:,}",
        "numbers": f"{found.num_values:,}",
        "dtypes": ", ".join(found.dtypes),
        "also holds": ", ".join(found.other_keys) or "nothing",
        "fits": f"{config}: {'yes' if report.fits else 'no'}; {report.describe()}",
    }
    for name, fact in (*facts.items(), *_claims(found.metadata, facts)):
        say(f"{name:<11} {printable(fact)}")
    return 0 if report.fits else 1


def _claims(metadata: Mapping[str, str | int | float], facts: Container[str]) -> Iterator[tuple[str, object]]:
    """Yield the checkpoint's metadata. Names that look like one of our facts, or are not plain names, are quoted."""
    for name, claim in metadata.items():
        is_plain = re.fullmatch(r"[A-Za-z_][\w.-]*", name, re.ASCII) and name not in facts
        text = " ".join(str(claim).split())  # long runs of spaces could fake a new line in a terminal
        yield (name if is_plain else repr(printable(name, _LONGEST_CLAIM))), printable(text, _LONGEST_CLAIM)
