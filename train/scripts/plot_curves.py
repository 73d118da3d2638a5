"""Plot the curves of a training run, or of several consecutive ones.

    python -m train.scripts.plot_curves RUN [RUN ...] --output curves.png

RUN is the folder of a run, which contains `logs/train_stats.jsonl`. Needs matplotlib (extra `dev`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from i2v.errors import USER_ERRORS, InvalidFileError, describe_error, locating
from i2v.utils.command import as_command
from i2v.utils.files import replacing
from i2v.utils.input_file import read_text
from i2v.utils.json_file import parse_json

MAX_LOG_BYTES = 256 << 20

CURVES = {
    "loss_mask": "mask loss",
    "loss_iou": "IoU loss",
    "loss_class": "object score loss",
    "lr": "learning rate",
}


@as_command("plot_curves")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 if a run has no log."""
    parser = argparse.ArgumentParser(prog="python -m train.scripts.plot_curves", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--output", type=Path, required=True, metavar="PNG")
    args = parser.parse_args(arguments)
    try:
        draw([read_log(run) for run in args.runs], args.output)
    except USER_ERRORS as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return 1
    return 0


def read_log(run: Path) -> list[dict[str, float]]:
    """Read the log of a run.

    Args:
        run: Folder of the run.

    Returns:
        Step and values of the curves, for each line of the log.

    Raises:
        FileNotFoundError: If there is no log.
        InvalidFileError: If the log is empty or a line is invalid, naming the line.
    """
    path = run / "logs" / "train_stats.jsonl"
    lines = []
    for number, text in enumerate(read_text(path, MAX_LOG_BYTES).splitlines(), start=1):
        with locating(path, f"line {number}"):
            line = parse_json(text.encode(), path)
            lines.append({name: line.member(name).number() for name in ("step", *CURVES)})
    if not lines:
        raise InvalidFileError(path, "this log is empty")
    return lines


def count_on(stages: Sequence[Sequence[dict[str, float]]]) -> list[list[float]]:
    """Renumber the steps of consecutive runs as if they were one.

    Args:
        stages: The log of each run, in order.

    Returns:
        The new steps of each run.
    """
    counted: list[list[float]] = []
    end = 0.0
    for lines in stages:
        steps = [line["step"] for line in lines]
        # The first line comes as many steps after the start as lines are apart; a resumed log does not start at 0.
        # Step 1, which every run logs, is the start itself.
        begin = steps[0] - (steps[1] - steps[0]) if len(steps) > 1 and steps[0] > 1 else 0
        counted.append([end + step - begin for step in steps])
        end = counted[-1][-1]
    return counted


def draw(stages: Sequence[Sequence[dict[str, float]]], output: Path) -> None:
    """Plot one panel per curve, with a vertical line at the end of each run.

    Args:
        stages: The log of each run, in order.
        output: The PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        for lines, steps in zip(stages, count_on(stages), strict=True):
            axes.plot(steps, [line[name] for line in lines])
            axes.axvline(steps[-1], color="0.8", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
    with replacing(output) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
