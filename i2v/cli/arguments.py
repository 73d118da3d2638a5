"""Arguments of the ``i2v`` command line. Prompts keep the order in which they are given."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from i2v import __version__
from i2v.results.overlay import UserPrompt

TRUST = "--trust-config"


class UsageError(ValueError):
    """The command line is wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


@dataclass(frozen=True)
class _Switch:
    # --object or --frame: applies to the prompts that follow.
    name: str
    value: int


@dataclass(frozen=True)
class _Mark:
    # One --click, --box or --mask.
    click: tuple[float, float, int] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: Path | None = None


def make_parser() -> argparse.ArgumentParser:
    """Create the parser of all commands. It raises UsageError and stores the command's name as ``command``."""
    parser = _Parser(prog="i2v", description="Promptable video segmentation.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"i2v {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_track(commands.add_parser("track", help="track prompted objects through a video", allow_abbrev=False))
    _add_annotate(commands.add_parser("annotate", help="label a video in the browser", allow_abbrev=False))
    _add_demo(commands.add_parser("demo", help="track an object in a rendered clip", allow_abbrev=False))
    _add_info(commands.add_parser("info", help="inspect a checkpoint", allow_abbrev=False))
    # Only named here: what follows them is for the checkout, see i2v.cli.checkout.
    commands.add_parser("train", help="train or fine-tune a model (from a checkout)", add_help=False)
    commands.add_parser("test", help="track the objects of a benchmark (from a checkout)", add_help=False)
    commands.add_parser("eval", help="score masks against annotations (from a checkout)", add_help=False)
    return parser


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that trusts a config. Every command that takes a config has it."""
    text = "allow any class or function in the config; it can then run arbitrary code, like a program"
    parser.add_argument(TRUST, action="store_true", help=text)


def _add_track(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Track objects through a video. Prompts can be repeated; --object and --frame apply to the prompts that "
        "follow, initially object 1 on frame 0."
    )
    add = parser.add_argument
    add("video", metavar="VIDEO", type=Path, help="a video file or a folder of frames")
    for option, kind, metavar, text in (
        ("--click", _click, "X,Y[,0]", "in pixels; 0: background"),
        ("--box", _box, "X0,Y0,X1,Y1", "in pixels"),
        ("--mask", _mask, "PNG", "the object's pixels are non-zero, or have its id in a palette PNG that contains it"),
        ("--object", _object, "ID", "object of the prompts that follow"),
        ("--frame", _frame, "N", "frame of the prompts that follow"),
    ):
        # All prompts go into one list, because their order matters.
        add(option, dest="marks", action="append", type=kind, metavar=metavar, help=text)
    add("--direction", choices=("forward", "backward", "both"), default="forward")
    add("--max-frames", type=_count, metavar="N", help="track at most N frames in each direction")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change the config")
    _add_common(parser)


def _add_annotate(parser: argparse.ArgumentParser) -> None:
    parser.description = "Label a video in the browser, served on this machine only."
    add = parser.add_argument
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("video", metavar="VIDEO", type=Path, nargs="?", help="a video file or a folder of frames")
    given.add_argument("--camera", metavar="N", help="a live camera, by number or name")
    add("--port", type=_port, metavar="N", help="default: 8765, or another free port")
    resumed = "resume a session file; default: session.json in the output folder"
    add("--resume", nargs="?", const="", metavar="FILE", help=resumed)
    add("--no-browser", action="store_true", help="print the address without opening it")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change the config")
    _add_model(parser)
    add("--out", type=Path, metavar="DIR", help="output folder for sessions and exports; default: <video>_i2v")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = "Track an object in a rendered clip, or an object clicked on the first frame of VIDEO."
    parser.add_argument("video", metavar="VIDEO", type=Path, nargs="?")
    parser.add_argument("--click", type=_click, metavar="X,Y", help="in pixels; default: the centre")
    _add_common(parser)


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what a checkpoint contains. The exit status is 0 if it fits the config, else 1."
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path)
    parser.add_argument("--config", metavar="NAME", help="default: the checkpoint's own config, or i2v-infer")
    add_trust_option(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, and show tracebacks")


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder; default: <video>_i2v")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results in the output folder")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="NAME", help="default: i2v-nano-infer, or the checkpoint's own config")
    add_trust_option(parser)
    checkpoint = "weights: a file or an https address; default: those of i2v-nano, the small model"
    parser.add_argument("--checkpoint", metavar="FILE", help=checkpoint)
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, ...; default: the best available")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, and show tracebacks")


def _numbers(text: str, counts: tuple[int, ...], wanted: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
    return values


def _click(text: str) -> _Mark:
    wanted = "X,Y or X,Y,0 in pixels, such as 120,80 (a third number is 1 for object, 0 for background)"
    x, y, *label = _numbers(text, (2, 3), wanted)
    if label and label[0] not in (0, 1):
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
    return _Mark(click=(x, y, int(label[0]) if label else 1))


def _box(text: str) -> _Mark:
    wanted = "X0,Y0,X1,Y1 in pixels with X0 < X1 and Y0 < Y1, such as 10,20,110,90"
    x0, y0, x1, y1 = _numbers(text, (4,), wanted)
    if not (x0 < x1 and y0 < y1):
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
    return _Mark(box=(x0, y0, x1, y1))


def _mask(text: str) -> _Mark:
    return _Mark(mask=Path(text))


def _integer(text: str, minimum: int | None = None) -> int:
    wanted = "a whole number" + ("" if minimum is None else f" from {minimum} up")
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}") from None
    if minimum is not None and value < minimum:
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
    return value


def _object(text: str) -> _Switch:
    return _Switch("object", _integer(text))


def _frame(text: str) -> _Switch:
    return _Switch("frame", _integer(text, minimum=0))


def _port(text: str) -> int:
    port = _integer(text, minimum=1)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return port


def _count(text: str) -> int:
    return _integer(text, minimum=1)


def collect_prompts(marks: Sequence[_Mark | _Switch]) -> tuple[UserPrompt, ...]:
    """Collect the prompts of --click, --box and --mask; those for one object on one frame form one prompt.

    Args:
        marks: The parsed options, in the order of the command line.

    Raises:
        UsageError: If there is no prompt, a mask is combined with other prompts, there is a second box, or no prompt
            follows an --object or --frame.
    """
    now = {"object": 1, "frame": 0}
    prompts: dict[tuple[int, int], UserPrompt] = {}
    for mark in marks:
        if isinstance(mark, _Switch):
            now[mark.name] = mark.value
        else:
            key = (now["object"], now["frame"])
            prompts[key] = _extended(prompts.get(key, UserPrompt(*key)), mark)
    if not prompts:
        raise UsageError("nothing to track: prompt an object with --click, --box or --mask")
    last = marks[-1]
    if isinstance(last, _Switch):
        raise UsageError(f"--{last.name} {last.value} applies to the prompts that follow, but there are none")
    return tuple(prompts.values())


def _extended(prompt: UserPrompt, mark: _Mark) -> UserPrompt:
    where = f"object {prompt.obj_id}, frame {prompt.frame}"
    if prompt.mask or (mark.mask and (prompt.clicks or prompt.box)):
        raise UsageError(f"{where}: a --mask cannot be combined with other prompts")
    if prompt.box and mark.box:
        raise UsageError(f"{where}: expected at most one --box, got a second one")
    clicks = prompt.clicks + ((mark.click,) if mark.click else ())
    return replace(prompt, clicks=clicks, box=mark.box or prompt.box, mask=mark.mask or prompt.mask)
