"""The ``i2v`` command: track objects, annotate a video in the browser, run a demo, inspect a checkpoint.

Only parsing and writing are imported here; torch and the model load inside the commands.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import re
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from i2v.cli.arguments import UsageError, collect_prompts, make_parser
from i2v.cli.checkout import MODULES, become
from i2v.demo import render_demo_clip
from i2v.errors import USER_ERRORS, describe_error
from i2v.pretrained import ModelChoice, choose_model, config_of
from i2v.prompts.frame_bounds import check_points, clip_box
from i2v.results.export import PictureSource, ResultFolder, read_label_png
from i2v.results.overlay import UserPrompt
from i2v.utils.background import Background
from i2v.utils.command import as_command
from i2v.utils.files import sha256_of
from i2v.utils.image_file import MAX_BYTES, decode_image
from i2v.utils.input_file import read_input
from i2v.utils.iou import mask_iou
from i2v.utils.output_folder import default_output_folder
from i2v.utils.signals import interrupts_deferred
from i2v.utils.terminal import log_to_stderr, printable, printable_lines

if TYPE_CHECKING:
    import torch

    from i2v.i2v_video_predictor import I2VVideoPredictor
    from i2v.inference.inference_state import InferenceState
    from i2v.video.frame_source import FrameSource

_LONGEST_CLAIM = 200  # characters shown of what a checkpoint says of itself
# Untrained masks mean nothing at any size, and this one takes less than a minute on two CPU cores.
UNTRAINED_DEMO = ("model.image_size=128",)


@as_command("i2v")
def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments, by default those of the process.

    Returns:
        The exit status: 0 on success, 1 on failure, 2 for wrong usage, 130 after Ctrl-C, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in arguments or "--verbose" in arguments
    commands = {"track": _track, "annotate": _annotate, "demo": _demo, "info": _info}
    try:
        if arguments and arguments[0] in MODULES:
            become(arguments[0], arguments[1:])
        args = make_parser().parse_args(arguments)
        _configure_logging(verbose)
        return commands[args.command](args)
    except SystemExit as stop:  # argparse ends --help and --version this way
        return int(stop.code or 0)
    except USER_ERRORS as error:
        if verbose:
            print(printable_lines(traceback.format_exc()), file=sys.stderr)
        print(f"i2v: error: {describe_error(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _say(text: str) -> None:
    print(printable(text), flush=True)


def build_i2v_video_predictor(*args: Any, **kwargs: Any) -> I2VVideoPredictor:
    """``i2v.build_i2v.build_i2v_video_predictor``, imported on call: torch takes seconds to load."""
    from i2v.build_i2v import build_i2v_video_predictor as build

    return build(*args, **kwargs)


def open_source(video: Path | NDArray[np.uint8]) -> FrameSource:
    """``i2v.video.sources.open_source``, imported on call for the same reason."""
    from i2v.video.sources import open_source as open_video

    return open_video(video)


def _configure_logging(verbose: bool) -> None:
    handler = log_to_stderr(logging.INFO if verbose else logging.WARNING, "i2v: %(levelname)s: %(message)s")
    # The builder also warns about random weights; the command's own line is enough.
    handler.addFilter(lambda record: verbose or record.name != "i2v.build_i2v")


@dataclass(frozen=True)
class _Run:
    """The arguments of one tracking run."""

    video: Path | NDArray[np.uint8]
    prompts: tuple[UserPrompt, ...]
    out: Path
    overwrite: bool
    model: ModelChoice
    device: str | None
    overrides: tuple[str, ...] = ()
    trust_config: bool = False
    direction: str = "forward"
    max_frames: int | None = None


def _track(args: Namespace) -> int:
    run = _Run(
        video=args.video,
        prompts=collect_prompts(args.marks or ()),
        out=args.out or default_output_folder(args.video),
        overwrite=args.overwrite,
        model=choose_model(args.config, args.checkpoint),
        device=args.device,
        overrides=tuple(args.overrides),
        trust_config=args.trust_config,
        direction=args.direction,
        max_frames=args.max_frames,
    )
    _perform(run)
    return 0


def _annotate(args: Namespace) -> int:
    try:
        from i2v.annotator.command import annotate
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "pydantic", "uvicorn"):
            raise
        raise RuntimeError(f"the annotator needs {error.name}: pip install 'i2v[web]'") from error

    def build() -> I2VVideoPredictor:
        return _build(choose_model(args.config, args.checkpoint), args.device, args.overrides, args.trust_config)

    return annotate(args, build, _say)


def _demo(args: Namespace) -> int:
    from i2v.prompts.sampling import centroid_pixel

    clip = None if args.video else render_demo_clip()
    click = args.click.click if args.click else None
    model = choose_model(args.config, args.checkpoint)
    if clip is not None and click is None:
        click = (*centroid_pixel(clip.masks[0]), 1)
    run = _Run(
        video=args.video if clip is None else clip.frames,
        prompts=(UserPrompt(obj_id=1, frame=0, clicks=(click,) if click else ()),),
        out=args.out or (Path("i2v_demo") if clip else default_output_folder(args.video)),
        # Running the demo again must not fail, but a folder that the user chose is never overwritten unasked.
        overwrite=args.overwrite or (clip is not None and args.out is None),
        model=model,
        device=args.device,
        overrides=() if model.checkpoint else UNTRAINED_DEMO,
        trust_config=args.trust_config,
    )
    results = _perform(run)
    if clip is not None:
        ious = [mask_iou(read_label_png(results.mask_path(t)) > 0, clip.masks[t]) for t in results.frames]
        print(f"mean IoU with the exact masks of the clip: {np.mean(ious):.3f}")
    if model.checkpoint is None:
        print("these masks come from random weights: use --checkpoint FILE to see the model track")
    return 0


def _perform(run: _Run) -> ResultFolder:
    _check_video(run)
    obj_ids = [prompt.obj_id for prompt in run.prompts]
    ResultFolder(run.out, obj_ids, run.overwrite)  # fail on a bad folder before the model is loaded
    predictor = _build(run.model, run.device, run.overrides, run.trust_config)
    state = predictor.init_state(run.video)
    # The overlay lags behind the model: with a reader of its own, neither makes the other seek.
    with contextlib.closing(state), contextlib.closing(open_source(run.video)) as reader:
        ordered = reader if run.direction == "forward" else None
        results = ResultFolder(run.out, obj_ids, run.overwrite, ordered)
        prompts = [_checked(prompt, state) for prompt in run.prompts]
        for prompt in prompts:
            _add_prompt(predictor, state, prompt)
        _follow(predictor, state, replace(run, prompts=tuple(prompts)), results, reader)
    return results


def _build(model: ModelChoice, device: str | None, overrides: Sequence[str], trust_config: bool) -> I2VVideoPredictor:
    """Print which model is used if it was not specified, and build it."""
    if model.checkpoint is None:
        warning = "no --checkpoint given: the model is untrained and its masks are meaningless"
        print(f"i2v: warning: {warning}", file=sys.stderr)
    elif model.is_nano:
        print(
            "i2v: using i2v-nano, the small model that comes with i2v; for another, use --checkpoint",
            file=sys.stderr,
        )
    return build_i2v_video_predictor(
        model.config,
        ckpt_path=model.checkpoint,
        device=device,
        hydra_overrides_extra=list(overrides),
        trust_config=trust_config,
    )


def _check_video(run: _Run) -> None:
    if isinstance(run.video, Path):
        if not run.video.exists():
            raise FileNotFoundError(f"{run.video}: no such video file or folder of frames")
        video, out = run.video.resolve(), run.out.resolve()
        if out == video or out in video.parents:
            raise ValueError(f"{run.video} is in the output folder, {run.out}: use another --out")


def _checked(prompt: UserPrompt, state: InferenceState) -> UserPrompt:
    # Checked here, where object, frame and video size are all known, for one clear message.
    width, height = state.video_width, state.video_height
    where = f"object {prompt.obj_id}, frame {prompt.frame}"
    if state.num_frames is not None and prompt.frame >= state.num_frames:
        raise IndexError(f"{where}: the video has {state.num_frames} frames, 0 to {state.num_frames - 1}")
    check_points(np.array(prompt.clicks, dtype=np.float64).reshape(-1, 3)[:, :2], (width, height), where)
    if prompt.box is not None:
        clip_box(np.array(prompt.box, dtype=np.float64).reshape(2, 2), (width, height), where)
    if prompt.clicks or prompt.box or prompt.mask:
        return prompt
    # Only the demo leaves a prompt empty, because the size is not known earlier: it means the centre.
    return replace(prompt, clicks=((width / 2, height / 2, 1),))


def _add_prompt(predictor: I2VVideoPredictor, state: InferenceState, prompt: UserPrompt) -> None:
    if prompt.mask is not None:
        mask = _read_mask(prompt, state.video_width, state.video_height)
        predictor.add_new_mask(state, frame_idx=prompt.frame, obj_id=prompt.obj_id, mask=mask)
        return
    clicks = np.array(prompt.clicks, dtype=np.float32).reshape(-1, 3)
    predictor.add_new_points_or_box(
        state,
        frame_idx=prompt.frame,
        obj_id=prompt.obj_id,
        points=clicks[:, :2] if len(clicks) else None,
        labels=clicks[:, 2].astype(np.int32) if len(clicks) else None,
        box=None if prompt.box is None else np.array(prompt.box, dtype=np.float32),
    )


def _read_mask(prompt: UserPrompt, width: int, height: int) -> NDArray[np.bool_]:
    where = f"object {prompt.obj_id}, frame {prompt.frame}, mask {prompt.mask}"
    image = decode_image(read_input(str(prompt.mask), MAX_BYTES), where, size=(height, width))
    values = np.asarray(image)
    # Ignore the alpha channel: it is usually 255 everywhere, background included.
    colours = values[..., :-1] if image.mode in ("LA", "RGBA") else values
    nonzero = np.asarray(colours.reshape(height, width, -1).any(axis=2))
    if not nonzero.any():
        raise ValueError(f"{where}: every pixel is zero, expected non-zero pixels on the object")
    own = np.asarray(values == prompt.obj_id) if image.mode == "P" else nonzero
    return own if own.any() else nonzero


def _follow(
    predictor: I2VVideoPredictor, state: InferenceState, run: _Run, results: ResultFolder, reader: PictureSource
) -> None:
    stop: BaseException | None = None
    started = time.perf_counter()
    try:
        with Background() as writer:
            for frame, obj_ids, logits in _propagate(predictor, state, run):
                labels, scores = results.label_map(obj_ids, logits), predictor.frame_scores(state, frame)
                writer.put(functools.partial(results.add_labels, frame, obj_ids, labels, scores))
    except (KeyboardInterrupt, *USER_ERRORS) as error:
        # The finished frames can be hours of work: complete their files before reporting the error.
        stop = error
    seconds = time.perf_counter() - started
    # The first Ctrl-C only stops tracking; a second one aborts completing the files, too.
    with contextlib.nullcontext() if stop else interrupts_deferred():
        bar = functools.partial(tqdm, desc="writing overlay", unit=" frames")
        try:
            results.finish(reader, run.prompts, progress=bar)
        except OSError as error:
            stop = stop or error
        _report(results, seconds, stopped=stop is not None)
    if stop:
        raise stop


def _report(results: ResultFolder, seconds: float, stopped: bool) -> None:
    count = len(results.frames)
    if stopped:
        kept = f"{count} finished frames are kept in {printable(results.folder)}" if count else "no frame was finished"
        if lacking := results.lacks():
            kept += f", but not {', '.join(lacking)}"
        print(f"i2v: stopped: {kept}", file=sys.stderr)
        return
    print(f"{count} frames in {seconds:.1f} s ({count / seconds:.2f} frames/s)")
    for name in ("masks", "masks.json", "overlay.mp4", "contact_sheet.png"):
        print(f"  {printable(results.folder / name)}")


def _propagate(
    predictor: I2VVideoPredictor, state: InferenceState, run: _Run
) -> Iterator[tuple[int, Sequence[Any], torch.Tensor]]:
    """Yield each tracked frame once, in tracking order, with a progress bar."""
    prompted = [prompt.frame for prompt in run.prompts]
    start = max(prompted) if run.direction == "backward" else min(prompted)
    if run.direction == "backward" and start == 0:
        raise ValueError("--direction backward: all prompts are on frame 0, expected one on a later frame")
    reversals = {"forward": (False,), "backward": (True,), "both": (False, True)}[run.direction]
    done: set[int] = set()
    with tqdm(total=_num_to_track(state.num_frames, start, run), desc="tracking", unit=" frames") as bar:
        for reverse in reversals:
            outputs = predictor.propagate_in_video(
                state, start_frame_idx=start, max_frame_num_to_track=run.max_frames, reverse=reverse
            )
            # max_frame_num_to_track excludes the start frame, as in SAM 2, but --max-frames includes it: hence islice.
            for frame, obj_ids, logits in itertools.islice(outputs, run.max_frames):
                if frame not in done:
                    done.add(frame)
                    yield frame, obj_ids, logits
                    bar.update()


def _num_to_track(num_frames: int | None, start: int, run: _Run) -> int | None:
    if num_frames is None:
        return None
    limit = run.max_frames or num_frames
    forward, backward = min(num_frames - start, limit), min(start + 1, limit)
    return {"forward": forward, "backward": backward, "both": forward + backward - 1}[run.direction]


def _info(args: Namespace) -> int:
    from i2v.build_i2v import build_i2v
    from i2v.checkpoint import compare_state_dict, read_checkpoint, read_checkpoint_info

    info = read_checkpoint_info(args.checkpoint)
    config = args.config or config_of(args.checkpoint, info.metadata)
    model = build_i2v(config, device="cpu", trust_config=args.trust_config)
    report = compare_state_dict(model, read_checkpoint(args.checkpoint))
    facts = {
        "file": args.checkpoint,
        "size": f"{args.checkpoint.stat().st_size:,} bytes",
        "sha256": sha256_of(args.checkpoint),
        "entries": f"{info.num_entries:,}",
        "numbers": f"{info.num_values:,}",
        "dtypes": ", ".join(info.dtypes),
        "also holds": ", ".join(info.other_keys) or "nothing",
        "fits": f"{config}: {'yes' if report.fits else 'no'}; {report.describe()}",
    }
    for name, fact in (*facts.items(), *_claims(info.metadata, facts)):
        print(f"{name:<12}{printable(fact)}")
    return 0 if report.fits else 1


def _claims(metadata: Mapping[str, str | int | float], facts: Container[str]) -> Iterator[tuple[str, object]]:
    """Yield the checkpoint's metadata. Names that look like one of our facts, or are not plain names, are quoted."""
    for name, claim in metadata.items():
        is_plain = re.fullmatch(r"[A-Za-z_][\w.-]*", name, re.ASCII) and name not in facts
        text = " ".join(str(claim).split())  # long runs of spaces could fake a new line in a terminal
        yield (name if is_plain else repr(printable(name, _LONGEST_CLAIM))), printable(text, _LONGEST_CLAIM)
