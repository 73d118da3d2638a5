"""The ``i2v annotate`` command: from its arguments to a running server."""

from __future__ import annotations

import threading
import webbrowser
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from i2v.annotator.camera import Recording, open_camera
from i2v.annotator.footage import Footage, VideoFootage
from i2v.annotator.server import Door, make_server, serve
from i2v.annotator.session_file import read_session
from i2v.annotator.sessions import SessionBook
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.utils.file_pattern import is_pattern
from i2v.utils.output_folder import default_output_folder, refuse_link


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
    door = Door.open(args.port)
    with door.socket:
        footage = _open(args, out)
        try:
            resume = _resumed(args, out, footage)
            book = SessionBook(build(), footage, out)
            server = make_server(book, door, lambda: _greet(args, book, door, footage, say), resume)
            return 0 if serve(server, door) else 1
        finally:
            footage.close()


def _default_out(args: Namespace) -> Path:
    if args.camera is not None:
        return Path(f"camera-{Path(args.camera).name}_i2v")
    return default_output_folder(args.video)


def _check(args: Namespace, out: Path) -> None:
    if args.camera is None and not args.video.exists() and not is_pattern(str(args.video)):
        raise FileNotFoundError(f"{args.video}: no such video file or folder of frames")
    refuse_link(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file, expected an output folder")


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
    say(f"open {door.address}   (Ctrl-C to quit)")
    if not args.no_browser:
        # Opening can block, for example with a text browser, and must not block the server.
        threading.Thread(target=webbrowser.open, args=(door.address,), daemon=True).start()
