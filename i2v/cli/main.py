"""The ``i2v`` command: tracks objects, segments images, annotates and serves videos, inspects checkpoints.

Only parsing and writing are imported here; torch and the model load inside the commands.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from i2v.cli.arguments import UsageError, check_onnx_options, check_web_options, collect_prompts, make_parser
from i2v.cli.checkout import MODULES, become
from i2v.demo import render_demo_clip
from i2v.errors import USER_ERRORS, describe_error
from i2v.pretrained import NANO, ModelChoice, choose_model
from i2v.prompts.frame_bounds import check_prompt
from i2v.prompts.mask_file import read_mask_file
from i2v.prompts.mask_values import Mask
from i2v.results.datasets import write_datasets
from i2v.results.export import PictureSource, ResultFolder, read_label_png
from i2v.results.frame_names import FrameNames
from i2v.results.matte import Matte
from i2v.results.overlay import UserPrompt
from i2v.utils.background import Background
from i2v.utils.command import as_command
from i2v.utils.file_pattern import is_pattern
from i2v.utils.iou import mask_iou
from i2v.utils.output_folder import default_output_folder
from i2v.utils.signals import interrupts_deferred
from i2v.utils.terminal import log_to_stderr, printable, printable_lines
from i2v.video.standard_input import spooled

if TYPE_CHECKING:
    from i2v.i2v_image_predictor import I2VImagePredictor
    from i2v.i2v_video_predictor import I2VVideoPredictor
    from i2v.onnx_runtime.video_predictor import OnnxVideoPredictor

    _AnyPredictor = I2VVideoPredictor | OnnxVideoPredictor
    from i2v.video.frame_source import FrameSource

_Predictor = TypeVar("_Predictor")
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
    commands = {
        **{"track": _track, "segment": _segment, "annotate": _annotate, "serve": _serve},
        **{"demo": _demo, "export": _export, "info": _info},
    }
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


def _say(text: str, stream: TextIO | None = None) -> None:
    print(printable(text), file=stream, flush=True)


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
    renumber: bool = False
    mattes: tuple[Matte, ...] = ()
    onnx: Path | None = None


def _track(args: Namespace) -> int:
    prompts = collect_prompts(args.marks or ())
    if args.raw and str(args.video) != "-":
        raise UsageError(f"--raw is about frames on standard input, expected - as the video, got {args.video}")
    if args.onnx is not None:
        check_onnx_options(args)
    if str(args.video) != "-":
        return _track_video(args, prompts, args.video, args.out or default_output_folder(args.video))
    with spooled(sys.stdin.buffer, args.raw) as video:
        return _track_video(args, prompts, video, args.out or Path("stdin_i2v"))


def _track_video(args: Namespace, prompts: tuple[UserPrompt, ...], video: Path | NDArray[np.uint8], out: Path) -> int:
    run = _Run(
        video=video,
        prompts=prompts,
        out=out,
        overwrite=args.overwrite,
        model=_choose_model(args) if args.onnx is None else ModelChoice(str(args.onnx), None),
        device=args.device,
        overrides=tuple(args.overrides),
        trust_config=args.trust_config,
        direction=args.direction,
        max_frames=args.max_frames,
        renumber=args.renumber,
        mattes=tuple(args.mattes),
        onnx=args.onnx,
    )
    results = _perform(run)
    for path in write_datasets(results.folder, args.datasets) if args.datasets else ():
        _say(f"wrote {path}")
    return 0


def _segment(args: Namespace) -> int:
    from i2v.cli.segment import segment

    def build() -> I2VImagePredictor:
        from i2v.build_i2v import build_i2v_image_predictor

        model = _choose_model(args)
        return _build(build_i2v_image_predictor, model, args.device, args.overrides, args.trust_config)

    return segment(args, build, _say)


def _export(args: Namespace) -> int:
    check_web_options(args)
    from i2v.cli.export import export

    model = _choose_model(args)
    return export(
        args,
        model,
        lambda: _build(build_i2v_video_predictor, model, "cpu", args.overrides, args.trust_config),
        _say,
    )


def _annotate(args: Namespace) -> int:
    with _needing("the annotator", "web", "starlette", "pydantic", "uvicorn"):
        from i2v.annotator.command import annotate
    return annotate(args, lambda: _build_video_predictor(args), _say)


def _serve(args: Namespace) -> int:
    with _needing("the service", "serve", "starlette", "pydantic", "uvicorn", "psutil"):
        from i2v.serve.command import run_service
    return run_service(args, lambda: _build_video_predictor(args), _say)


@contextlib.contextmanager
def _needing(what: str, extra: str, *packages: str) -> Iterator[None]:
    """Say which extra brings the packages that an import in the block may lack."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        raise RuntimeError(f"{what} needs {package}: pip install 'i2v[{extra}]'") from error


def _build_video_predictor(args: Namespace) -> I2VVideoPredictor:
    model = _choose_model(args)
    return _build(build_i2v_video_predictor, model, args.device, args.overrides, args.trust_config)


def _demo(args: Namespace) -> int:
    from i2v.prompts.sampling import centroid_pixel

    clip = None if args.video else render_demo_clip()
    click = args.click.click if args.click else None
    model = _choose_model(args)
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
        overrides=UNTRAINED_DEMO if args.random_weights else (),
        trust_config=args.trust_config,
    )
    results = _perform(run)
    if clip is not None:
        ious = [mask_iou(read_label_png(results.mask_path(t)) > 0, clip.masks[t]) for t in results.frames]
        print(f"mean IoU with the exact masks of the clip: {np.mean(ious):.3f}")
    if args.random_weights:
        print("these masks come from random weights: use --checkpoint FILE to see the model track")
    return 0


def _perform(run: _Run) -> ResultFolder:
    _check_video(run)
    obj_ids = [prompt.obj_id for prompt in run.prompts]
    ResultFolder(run.out, obj_ids, run.overwrite)
    # The overlay lags behind the model: with a reader of its own, neither makes the other seek.
    with contextlib.closing(open_source(run.video)) as reader:
        ordered = reader if run.direction == "forward" else None
        results = ResultFolder(run.out, obj_ids, run.overwrite, ordered, FrameNames(reader, run.renumber), run.mattes)
        prompts = [_checked(prompt, reader) for prompt in run.prompts]
        masks = [_read_mask(prompt, reader) for prompt in prompts]
        predictor = _predictor_of(run)  # which takes long, so what the user has given is checked before
        with contextlib.closing(predictor.init_state(run.video)) as state:
            for prompt, mask in zip(prompts, masks, strict=True):
                _add_prompt(predictor, state, prompt, mask)
            _follow(predictor, state, replace(run, prompts=tuple(prompts)), results, reader)
    return results


def _predictor_of(run: _Run) -> _AnyPredictor:
    if run.onnx is None:
        return _build(build_i2v_video_predictor, run.model, run.device, run.overrides, run.trust_config)
    from i2v.onnx_runtime.video_predictor import OnnxVideoPredictor

    return OnnxVideoPredictor(run.onnx)


def _choose_model(args: Namespace) -> ModelChoice:
    """Return what the options ask for; without a checkpoint only by ``--random-weights``."""
    # `i2v export` takes the checkpoint as an argument of its own.
    given = "CHECKPOINT" if args.command == "export" else "--checkpoint FILE"
    if args.random_weights:
        if args.checkpoint is not None:
            raise UsageError(f"expected {given} or --random-weights, got both: {args.checkpoint}")
        return ModelChoice(args.config or NANO, None)
    model = choose_model(args.config, args.checkpoint)
    if model.checkpoint is None:
        raise UsageError(
            f"--config {model.config}: this config has no weights of its own: add {given}, "
            "or --random-weights for an untrained model"
        )
    return model


def _build(
    builder: Callable[..., _Predictor],
    model: ModelChoice,
    device: str | None,
    overrides: Sequence[str],
    trust_config: bool,
) -> _Predictor:
    """Print which model is used if it was not specified, and build its predictor."""
    if model.checkpoint is None:
        print("i2v: warning: --random-weights: the model is untrained and its masks are meaningless", file=sys.stderr)
    elif model.is_nano:
        print(
            "i2v: using i2v-nano, the small model that comes with i2v; for another, give a checkpoint",
            file=sys.stderr,
        )
    return builder(
        model.config,
        ckpt_path=model.checkpoint,
        device=device,
        hydra_overrides_extra=list(overrides),
        trust_config=trust_config,
        random_weights=model.checkpoint is None,
    )


def _check_video(run: _Run) -> None:
    if isinstance(run.video, Path):
        if not run.video.exists() and not is_pattern(str(run.video)):
            raise FileNotFoundError(f"{run.video}: no such video file or folder of frames")
        video, out = run.video.resolve(), run.out.resolve()
        if out == video or out in video.parents:
            raise ValueError(f"{run.video} is in the output folder, {run.out}: use another --out")


def _checked(prompt: UserPrompt, video: FrameSource) -> UserPrompt:
    # Checked here, where object, frame and video size are all known, for one clear message.
    width, height = video.width, video.height
    where = f"object {prompt.obj_id}, frame {prompt.frame}"
    if video.num_frames is not None and prompt.frame >= video.num_frames:
        raise IndexError(f"{where}: the video has {video.num_frames} frames, 0 to {video.num_frames - 1}")
    check_prompt(prompt.clicks, prompt.box, (width, height), where)
    if prompt.clicks or prompt.box or prompt.mask:
        return prompt
    # Only the demo leaves a prompt empty, because the size is not known earlier: it means the centre.
    return replace(prompt, clicks=((width / 2, height / 2, 1),))


def _read_mask(prompt: UserPrompt, video: FrameSource) -> Mask | None:
    if prompt.mask is None:
        return None
    where = f"object {prompt.obj_id}, frame {prompt.frame}, mask {prompt.mask}"
    return read_mask_file(prompt.mask, prompt.obj_id, (video.height, video.width), where)


def _add_prompt(predictor: _AnyPredictor, state: Any, prompt: UserPrompt, mask: Mask | None) -> None:
    if mask is not None:
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


def _follow(
    predictor: _AnyPredictor,
    state: Any,
    run: _Run,
    results: ResultFolder,
    reader: PictureSource,
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
        bar = functools.partial(tqdm, desc="writing video", unit=" frames")
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
    for name in ("masks", *results.file_names):
        print(f"  {printable(results.folder / name)}")
    renamed = {obj_id: label for obj_id, label in results.labels.items() if obj_id != label}
    if renamed:
        table = ", ".join(f"object {obj_id} has label {label}" for obj_id, label in results.labels.items())
        print(f"labels in the masks, which hold 1 to 255 only: {printable(table)}")


def _propagate(predictor: _AnyPredictor, state: Any, run: _Run) -> Iterator[tuple[int, Sequence[Any], Any]]:
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
    from i2v.cli.info import info

    return info(args, _say)


if __name__ == "__main__":  # python -m i2v.cli.main, which would do nothing without a word
    sys.exit(main())
