"""The ``i2v serve`` command: from its arguments to a running server."""

from __future__ import annotations

import os
import secrets
from argparse import Namespace
from collections.abc import Callable
from ipaddress import ip_address

from i2v.annotator.server import HOST, bind, make_server, serve
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.pretrained import choose_model
from i2v.serve.app import DOCUMENT_PATH, make_app
from i2v.serve.folders import AllowedFolders
from i2v.serve.limits import Limits
from i2v.serve.service import Service

PORT = 8766
TOKEN_VARIABLE = "I2V_SERVE_TOKEN"
_LEAST_TOKEN = 16  # characters


def run_service(args: Namespace, build: Callable[[], I2VVideoPredictor], say: Callable[[str], None]) -> int:
    """Run the service until Ctrl-C or SIGTERM.

    Args:
        args: The parsed command line.
        build: Builds the predictor.
        say: Prints a line for the user.

    Returns:
        The exit status.

    Raises:
        OSError: If a folder cannot be used, or the port is taken.
        ValueError: If the token is too short.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    token = _checked_token(given) if given else secrets.token_urlsafe(24)
    folders = AllowedFolders(args.roots)
    host = args.host or HOST
    listener = bind(host, args.port, PORT)
    with listener:
        service = Service.create(build(), folders, _limits(args), _describe_model(args))
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"

        def greet() -> None:
            if not _is_loopback(host):
                say(f"other machines can reach {host}, and nothing is encrypted")
            say(f"serving {service.model} on {address}; its endpoints: {address}{DOCUMENT_PATH}   (Ctrl-C to quit)")
            say(f"token: {'that of ' + TOKEN_VARIABLE if given else token}")

        return 0 if serve(make_server(make_app(service, token), greet), listener) else 1


def _checked_token(token: str) -> str:
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{TOKEN_VARIABLE}: expected at least {_LEAST_TOKEN} ASCII characters without spaces, got {len(token)}"
        )
    return token


def _limits(args: Namespace) -> Limits:
    given = {
        "sessions": args.max_sessions,
        "idle_seconds": None if args.idle_minutes is None else args.idle_minutes * 60,
        "memory_bytes": None if args.max_memory is None else args.max_memory << 20,
        "upload_bytes": None if args.max_upload is None else args.max_upload << 20,
        "task_frames": args.task_frames,
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})


def _describe_model(args: Namespace) -> str:
    choice = choose_model(args.config, args.checkpoint) if not args.random_weights else None
    if choice is None:
        return "random-weights"
    return "i2v-nano" if choice.is_nano else choice.config.removesuffix(".yaml").rpartition("/")[2]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
