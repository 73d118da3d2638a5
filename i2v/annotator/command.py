"""The ``i2v annotate`` command: from its arguments to a running server."""

from __future__ import annotations

import threading
import webbrowser
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from i2v.annotator.app import make_app
from i2v.annotator.camera import Recording, open_camera
from i2v.annotator.footage import Footage, VideoFootage
from i2v.annotator.queue_app import make_queue_app
from i2v.annotator.server import Door, make_server, serve
from i2v.annotator.session_file import read_session
from i2v.annotator.sessions import About, SessionBook
from i2v.annotator.video_folder import find_videos
from i2v.annotator.video_queue import QueueState, VideoQueue
from i2v.errors import InvalidFileError, brief
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.pretrained import choose_model
from i2v.utils.file_pattern import is_pattern
from i2v.utils.input_file import read_text
from i2v.utils.output_folder import check_writable, default_output_folder, is_showable, refuse_link

MAX_NAME = 80  # characters of the name of a class


def annotate(args: Namespace, build: Callable[[], I2VVideoPredictor], say: Callable[[str], None]) -> int:
    """Run the annotator until Ctrl-C or SIGTERM.

    Args:
        args: The parsed command line.
        build: Builds the predictor.
        say: Prints a line for the user.

    Returns:
        The exit status.

    Raises:
        OSError: If the video or the output folder cannot be used, or the port is taken.
        ValueError: If the video, the camera or the session file cannot be read.
    """
    out = args.out or _default_out(args)
    _check(args, out)
    about = About(_describe_model(args), _read_classes(args.classes))
    videos = find_videos(args.video) if args.camera is None and args.video.is_dir() else None
    if videos is not None:
        return _annotate_queue(args, build, say, out, about, videos)
    door = Door.open(args.port)
    with door.socket:
        footage = _open(args, out)
        try:
            resume = _resumed(args, out, footage)
            book = SessionBook(build(), footage, out, about=about)
            app = make_app(book, door.token, door.port, resume)
            server = make_server(app, lambda: _greet(args, book, door, footage, say))
            return 0 if serve(server, door.socket) else 1
        finally:
            footage.close()


def _annotate_queue(
    args: Namespace,
    build: Callable[[], I2VVideoPredictor],
    say: Callable[[str], None],
    out: Path,
    about: About,
    videos: list[Path],
) -> int:
    if args.resume:
        raise ValueError(f"--resume FILE: expected one video, got the folder {args.video} of several; leave FILE out")
    QueueState(out).read()  # fail on a bad file before the model is built
    door = Door.open(args.port)
    with door.socket:
        queue = VideoQueue(build(), videos, out, about)

        def greet() -> None:
            count = sum(queue.state_of(video.number) == "done" for video in queue.videos)
            say(f"annotating {len(videos)} videos of {args.video}, {count} done; sessions and exports go to {out}")
            _show_address(args, door, say)

        server = make_server(make_queue_app(queue, door.token, door.port), greet)
        return 0 if serve(server, door.socket) else 1


def _describe_model(args: Namespace) -> str:
    if args.random_weights:
        return "random weights: its masks mean nothing"
    choice = choose_model(args.config, args.checkpoint)
    if choice.is_nano:
        return "i2v-nano, the small model: fast, and coarser than larger ones (--config and --checkpoint load another)"
    weights = "" if choice.checkpoint is None else f", {Path(choice.checkpoint).name}"
    return f"{choice.config}{weights}"


def _read_classes(path: Path | None) -> tuple[str, ...]:
    """Read a list of classes, one a line."""
    if path is None:
        return ()
    if not path.exists():
        raise FileNotFoundError(f"--classes {path}: there is no such file")
    names = tuple(dict.fromkeys(filter(None, map(str.strip, read_text(path).splitlines()))))
    wrong = next((name for name in names if len(name) > MAX_NAME or not is_showable(name)), None)
    if wrong is not None or not names:
        got = "an empty file" if wrong is None else brief(wrong)
        raise InvalidFileError(path, f"expected names of classes, one a line, up to {MAX_NAME} characters, got {got}")
    return names


def _default_out(args: Namespace) -> Path:
    if args.camera is not None:
        return Path(f"camera-{Path(args.camera).name}_i2v")
    return default_output_folder(args.video)


def _check(args: Namespace, out: Path) -> None:
    if args.camera is None and not args.video.exists() and not is_pattern(str(args.video)):
        raise FileNotFoundError(f"{args.video}: no such video file or folder")
    refuse_link(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file, expected an output folder")
    check_writable(out)


def _open(args: Namespace, out: Path) -> Footage:
    if args.camera is None:
        return VideoFootage(args.video)
    recording = Recording(open_camera(args.camera), out / "camera")
    recording.start()
    return recording


def _resumed(args: Namespace, out: Path, footage: Footage) -> Path | None:
    if args.resume is None:
        return None
    path = Path(args.resume) if args.resume else out / "session.json"
    if not path.is_file():
        raise FileNotFoundError(f"--resume: there is no session file {path}")
    read_session(path, footage)  # fail on a bad file before the model is built
    return path


def _greet(args: Namespace, book: SessionBook, door: Door, footage: Footage, say: Callable[[str], None]) -> None:
    if args.resume is None and book.file_of(1).exists():
        say(f"an earlier session was saved as {book.file_of(1)}: use --resume to continue it")
    say(f"annotating {footage.name}; sessions and exports go to {book.out}")
    _show_address(args, door, say)


def _show_address(args: Namespace, door: Door, say: Callable[[str], None]) -> None:
    say(f"open {door.address}   (Ctrl-C to quit)")
    if not args.no_browser:
        # Opening can block, for example with a text browser, and must not block the server.
        threading.Thread(target=webbrowser.open, args=(door.address,), daemon=True).start()
