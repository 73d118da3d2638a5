"""A table of the runs that tools/compare_finetuning.sh made: python tools/finetuning_table.py WORK."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

if not __package__:
    # Run as a script, this file sees only its own folder.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.errors import USER_ERRORS, describe_error, locating
from i2v.utils.input_file import read_text
from i2v.utils.json_file import JsonValue, parse_json

KINDS = ("all", "decoder", "memory", "lora")
_MAX_BYTES = 64 << 20


def read_lines(path: Path) -> list[JsonValue]:
    """The lines of a log of JSON. The system's OSError, or InvalidFileError with the line."""
    lines = []
    for number, text in enumerate(read_text(path, _MAX_BYTES).splitlines(), start=1):
        with locating(path, f"line {number}"):
            lines.append(parse_json(text.encode(), path))
    return lines


def make_row(run: Path) -> str:
    """A row about a run: J&F of the first and of the best validation, peak memory, seconds of a step."""
    scores = [line.member("J&F").number() for line in read_lines(run / "logs" / "val_stats.jsonl")]
    steps = read_lines(run / "logs" / "train_stats.jsonl")
    memory = max(line.member("memory_gib").number() for line in steps)
    seconds = median(line.member("seconds").number() for line in steps)
    return f"| {run.name} | {scores[0]:.1f} | {max(scores):.1f} | {memory:.1f} GiB | {seconds:.2f} s |"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        rows = [make_row(Path(arguments[0]) / kind) for kind in KINDS if (Path(arguments[0]) / kind).is_dir()]
    except USER_ERRORS as error:
        print(f"finetuning_table: error: {describe_error(error)}", file=sys.stderr)
        return 1
    print("| trained | J&F before | J&F, best | memory | a step |\n|---|--:|--:|--:|--:|")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
