"""Arguments of the ``i2v`` command line. Prompts keep the order in which they are given."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from i2v import __version__
from i2v.cli.numbers import amount, count, whole_number
from i2v.export.description import TARGETS, WEB, WEIGHT_TYPES
from i2v.results.datasets import DATASET_FORMATS
from i2v.results.matte import MATTES
from i2v.results.overlay import UserPrompt
from i2v.video.standard_input import RawFormat

TRUST = "--trust-config"


class UsageError(ValueError):
    """The command line is wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        return super().parse_args(_attach_coordinates(sys.argv[1:] if args is None else args), namespace)


def _attach_coordinates(arguments: Sequence[str]) -> list[str]:
    """Write ``--box -1,2,3,4`` as ``--box=-1,2,3,4``: argparse takes what begins with a minus sign for an option."""
    attached: list[str] = []
    for argument in arguments:
        if attached and attached[-1] in ("--click", "--box") and re.match(r"-[\d.]", argument):
            attached[-1] += f"={argument}"
        else:
            attached.append(argument)
    return attached


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
    _add_segment(commands.add_parser("segment", help="segment objects in images", allow_abbrev=False))
    _add_annotate(commands.add_parser("annotate", help="label a video in the browser", allow_abbrev=False))
    _add_serve(commands.add_parser("serve", help="answer programs and labelling tools over HTTP", allow_abbrev=False))
    _add_demo(commands.add_parser("demo", help="track an object in a rendered clip", allow_abbrev=False))
    _add_export(commands.add_parser("export", help="export a model, to run it without PyTorch", allow_abbrev=False))
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
    video = "a video file, a folder of frames, a quoted pattern of them ('frames/*.jpg'), or - for standard input"
    add("video", metavar="VIDEO", type=Path, help=video)
    add("--raw", type=_raw, metavar="WxH", help="standard input is raw RGB frames of that size, 8 bits a channel")
    for option in ("--click", "--box", "--mask", "--object", "--frame"):
        _add_prompt_option(parser, option)
    add("--direction", choices=("forward", "backward", "both"), default="forward")
    add("--max-frames", type=count, metavar="N", help="track at most N frames in each direction")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change the config")
    also = "write the masks as a dataset, too; can be repeated"
    add("--dataset", dest="datasets", action="append", default=[], choices=DATASET_FORMATS, help=also)
    renumbered = "call masks 00000.png and so on; default: frames that are files lend them their names"
    add("--renumber", action="store_true", help=renumbered)
    exported = "track with this model, made by `i2v export --to onnx`, and ONNX Runtime instead of PyTorch"
    add("--onnx", type=Path, metavar="DIR", help=exported)
    matte = (
        "also write the objects cut out: with alpha (WebM, or ProRes 4444), on green, or before a blurred background"
    )
    add("--matte", dest="mattes", action="append", default=[], choices=MATTES, help=matte)
    _add_common(parser)


def _add_prompt_option(parser: argparse.ArgumentParser, option: str) -> None:
    mask = "a label map (the object is its id), a black and white mask, or a cut-out with alpha"
    kind, metavar, text = {
        "--click": (_click, "X,Y[,0]", "in pixels; 0: background"),
        "--box": (_box, "X0,Y0,X1,Y1", "in pixels"),
        "--mask": (_mask, "FILE", mask),
        "--object": (_object, "ID", "object of the prompts that follow"),
        "--frame": (_frame, "N", "frame of the prompts that follow"),
    }[option]
    # All prompts go into one list, because their order matters.
    parser.add_argument(option, dest="marks", action="append", type=kind, metavar=metavar, help=text)


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Segment objects in images: those that are prompted, or everything. Prompts can be repeated; --object applies "
        "to those that follow, initially object 1. They count for each of several images."
    )
    add = parser.add_argument
    images = "image files, folders of them, or quoted patterns ('photos/*.jpg')"
    add("images", metavar="IMAGE", type=Path, nargs="+", help=images)
    for option in ("--click", "--box", "--object"):
        _add_prompt_option(parser, option)
    add("--everything", action="store_true", help="find masks of all objects, from a grid of clicks")
    for name, (kind, metavar, text) in EVERYTHING_OPTIONS.items():
        add(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=f"with --everything: {text}")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change the config")
    _add_common(parser, "<image>_i2v, or images_i2v for several")


def _add_annotate(parser: argparse.ArgumentParser) -> None:
    parser.description = "Label a video, or several one after another, in the browser, served on this machine only."
    add = parser.add_argument
    given = parser.add_mutually_exclusive_group(required=True)
    video = "a video file, a folder of frames, or a folder of videos"
    given.add_argument("video", metavar="VIDEO", type=Path, nargs="?", help=video)
    given.add_argument("--camera", metavar="N", help="a live camera, by number or name")
    add("--port", type=_port, metavar="N", help="default: 8765, or another free port")
    resumed = "resume a session file; default: session.json in the output folder"
    add("--resume", nargs="?", const="", metavar="FILE", help=resumed)
    add("--classes", type=Path, metavar="FILE", help="classes that objects can have, one a line")
    add("--no-browser", action="store_true", help="print the address without opening it")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change the config")
    _add_model(parser)
    add("--out", type=Path, metavar="DIR", help="output folder for sessions and exports; default: <video>_i2v")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answer programs and labelling tools over HTTP, on this machine only unless --host says otherwise. Requests "
        "carry the token that is printed, or that of the environment variable I2V_SERVE_TOKEN."
    )
    add = parser.add_argument
    root = "a folder from which clients may open videos and images; can be repeated; default: none"
    add("--root", dest="roots", action="append", type=Path, default=[], metavar="DIR", help=root)
    add("--host", metavar="ADDRESS", help="address to listen on; default: 127.0.0.1")
    add("--port", type=_port, metavar="N", help="default: 8766, or another free port")
    add("--max-sessions", type=count, metavar="N", help="open videos; default: 8")
    add("--idle-minutes", type=count, metavar="N", help="after which an unused session is closed; default: 30")
    add("--max-memory", type=count, metavar="MIB", help="memory above which nothing is added; default: 8192")
    add("--max-upload", type=count, metavar="MIB", help="size of an uploaded video; default: 256")
    add("--task-frames", type=count, metavar="N", help="frames that a labelling tool's request tracks; default: 64")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change the config")
    _add_model(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = "Track an object in a rendered clip, or an object clicked on the first frame of VIDEO."
    parser.add_argument("video", metavar="VIDEO", type=Path, nargs="?")
    parser.add_argument("--click", type=_click, metavar="X,Y", help="in pixels; default: the centre")
    _add_common(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Export a model as parts, in a folder of their own: for ONNX Runtime (see `i2v track --onnx`), as programs of "
        "torch.export, or with a page that tracks videos in the browser, for any server of static files."
    )
    add = parser.add_argument
    checkpoint = "weights: a file or an https address; default: those of i2v-nano, the small model"
    add("checkpoint", metavar="CHECKPOINT", nargs="?", help=checkpoint)
    add("--to", dest="target", choices=(*TARGETS, WEB), required=True, help="what to make")
    stored = "type in which large weights are stored; all parts compute in float32 (default: float32)"
    add("--dtype", choices=WEIGHT_TYPES, default="float32", help=stored)
    add("--out", type=Path, metavar="DIR", help="the folder to make; default: <model>_<target>_<dtype>")
    runtime = "with --to web: the folder of onnxruntime-web; default: fetched from npm's registry and checked"
    add("--ort", type=Path, metavar="DIR", help=runtime)
    add("--video", type=Path, metavar="FILE", help="with --to web: a clip that the page opens at its start")
    add("--overwrite", action="store_true", help="replace an earlier export")
    add("--config", metavar="NAME", help="default: i2v-nano-infer, or the checkpoint's own config")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change the config")
    add_trust_option(parser)
    untrained = "an untrained model, to try a config without weights; its masks mean nothing"
    add("--random-weights", action="store_true", help=untrained)
    add("-v", "--verbose", action="store_true", help="log more, and show tracebacks")


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what a checkpoint contains. The exit status is 0 if it fits the config, else 1."
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path)
    parser.add_argument("--config", metavar="NAME", help="default: the checkpoint's own config, or i2v-infer")
    add_trust_option(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, and show tracebacks")


def _add_common(parser: argparse.ArgumentParser, out: str = "<video>_i2v") -> None:
    _add_model(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"output folder; default: {out}")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results in the output folder")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="NAME", help="default: i2v-nano-infer, or the checkpoint's own config")
    add_trust_option(parser)
    checkpoint = "weights: a file or an https address; default: those of i2v-nano, the small model"
    parser.add_argument("--checkpoint", metavar="FILE", help=checkpoint)
    untrained = "an untrained model, to try a config without weights; its masks mean nothing"
    parser.add_argument("--random-weights", action="store_true", help=untrained)
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, ...; default: the best available")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, and show tracebacks")


def _numbers(text: str, counts: tuple[int, ...], expected: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return values


def _click(text: str) -> _Mark:
    expected = "X,Y or X,Y,0 in pixels, such as 120,80 (a third number is 1 for object, 0 for background)"
    x, y, *label = _numbers(text, (2, 3), expected)
    if label and label[0] not in (0, 1):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return _Mark(click=(x, y, int(label[0]) if label else 1))


def _box(text: str) -> _Mark:
    expected = "X0,Y0,X1,Y1 in pixels with X0 < X1 and Y0 < Y1, such as 10,20,110,90"
    x0, y0, x1, y1 = _numbers(text, (4,), expected)
    if not (x0 < x1 and y0 < y1):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return _Mark(box=(x0, y0, x1, y1))


def _mask(text: str) -> _Mark:
    return _Mark(mask=Path(text))


def _object(text: str) -> _Switch:
    return _Switch("object", whole_number(text))


def _frame(text: str) -> _Switch:
    return _Switch("frame", amount(text))


def _raw(text: str) -> RawFormat:
    try:
        return RawFormat.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _port(text: str) -> int:
    return whole_number(text, 1, 65535)


def _fraction(text: str) -> float:
    (value,) = _numbers(text, (1,), "a number from 0 to 1")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


EVERYTHING_OPTIONS: dict[str, tuple[Callable[[str], int | float], str, str]] = {
    "points_per_side": (count, "N", "clicks along each side of the grid"),
    "pred_iou_thresh": (_fraction, "IOU", "least predicted IoU of a mask"),
    "stability_score_thresh": (_fraction, "SCORE", "least stability score of a mask"),
    "min_mask_region_area": (amount, "PIXELS", "largest hole to fill and speck to remove"),
    "crop_n_layers": (amount, "N", "layers of crops that are segmented as well"),
}
"""Fields of ``i2v.automatic_mask_generator.AutomaticMaskSettings`` that are options; each default stands there."""


def collect_prompts(
    marks: Sequence[_Mark | _Switch],
    missing: str = "nothing to track: prompt an object with --click, --box or --mask",
) -> tuple[UserPrompt, ...]:
    """Collect the prompts of --click, --box and --mask; those for one object on one frame form one prompt.

    Args:
        marks: The parsed options, in the order of the command line.
        missing: What to say if there is no prompt.

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
        raise UsageError(missing)
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


def check_onnx_options(args: argparse.Namespace) -> None:
    """Refuse the options of `i2v track` that an exported model has no use for."""
    given = {
        "--checkpoint": args.checkpoint is not None,
        "--config": args.config is not None,
        "--set": bool(args.overrides),
        "--random-weights": args.random_weights,
        "--device": args.device is not None,
        f"--direction {args.direction}": args.direction != "forward",
    }
    for option in (option for option, is_given in given.items() if is_given):
        raise UsageError(f"{option} is about models of PyTorch: expected none with --onnx, which tracks forward")


def check_web_options(args: argparse.Namespace) -> None:
    """Refuse the options of `i2v export` that only a page has a use for, for other targets."""
    for option, value in (("--ort", args.ort), ("--video", args.video)):
        if value is not None and args.target != WEB:
            raise UsageError(f"{option} is about the page: expected none with --to {args.target}")
