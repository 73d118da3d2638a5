"""`i2v annotate` as a user runs it."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotate_command import Command

import i2v
from i2v.cli.main import main


def test_it_prints_an_address_serves_it_and_ends_cleanly_with_the_work_saved(
    clip: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    click = {"do": "click", "object": None, "frame": 0, "x": 32, "y": 38, "positive": True}
    with Command(clip, "--checkpoint", weights, "--out", out, "--port", _free_port()) as command:
        address = command.address()
        assert "i2v" in httpx.get(address).text
        number = _session(address)
        url = f"{address}sessions/{number}/commands"
        answer = httpx.post(url, headers=_origin(address), json=click, timeout=30)
        assert answer.json() == {"object": 1}
        assert command.interrupt() == (0, "")
    assert len(json.loads((out / "session.json").read_text())["prompts"]) == 1

    with Command(clip, "--checkpoint", weights, "--out", out, "--resume") as again:
        assert _session(again.address()) == 1
        assert again.interrupt()[0] == 0
    with Command(clip, "--checkpoint", weights, "--out", out) as fresh:
        assert _session(fresh.address()) == 2
        assert "use --resume to continue it" in "".join(fresh.said)
        assert fresh.interrupt()[0] == 0


def _origin(address: str) -> dict[str, str]:
    return {"origin": "/".join(address.split("/")[:3])}


def _session(address: str) -> int:
    number: int = httpx.post(f"{address}sessions", headers=_origin(address)).json()["session"]
    return number


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "VIDEO"),
        (["none.mp4"], 1, "none.mp4: no such video file or folder"),
        (["CLIP", "--camera", "0"], 2, "not allowed with"),
        (["CLIP", "--port", "0"], 2, "expected a whole number from 1 to 65535"),
        (["CLIP", "--port", "70000"], 2, "expected a whole number from 1 to 65535"),
        (["CLIP", "--resume"], 1, "there is no session file"),
        (["CLIP", "--resume", "CLIP/000.png"], 1, "000.png: not a session file"),
        (["CLIP", "--out", "CLIP/000.png"], 1, "is a file, expected an output folder"),
        (["CLIP", "--config", "nonsense", "--random-weights"], 1, "nonsense"),
        (["FOLDER", "--resume", "CLIP/000.png"], 1, "expected one video, got the folder"),
        (["FOLDER", "--out", "CLIP"], 1, "queue.json: not the state of a queue"),
        (["MIXED"], 1, "expected the images of one video, or several videos"),
        (["--camera", "77", "--out", "OUT"], 1, "camera 77: cannot be opened"),
    ],
)
def test_mistakes_get_one_clear_sentence(
    clip: Path, tmp_path: Path, capsys: Any, arguments: list[str], status: int, message: str
) -> None:
    paths = {"CLIP": clip, "OUT": tmp_path / "out", "FOLDER": tmp_path / "videos", "MIXED": tmp_path}
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(b"")
    (clip / "queue.json").write_text("[]")
    line = [re.sub("CLIP|OUT|FOLDER|MIXED", lambda found: str(paths[found[0]]), argument) for argument in arguments]
    assert main(["annotate", *line]) == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("i2v: error: ")
    assert message in error


def test_a_port_in_use_is_told_and_only_a_port_asked_for_must_be_free(clip: Path, capsys: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["annotate", str(clip), "--port", port]) == 1
    assert f"port {port} cannot be used" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(clip: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing anew sets this attribute, too, and the package that it had before is what other tests know.
    monkeypatch.setattr(i2v, "annotator", i2v.annotator)
    for name in [
        name for name in sys.modules if name.partition(".")[0] == "starlette" or name.startswith("i2v.annotator")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["annotate", str(clip)]) == 1
    assert "pip install 'i2v[web]'" in capsys.readouterr().err
