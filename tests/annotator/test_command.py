"""`i2v annotate` as a user runs it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import TINY, make_predictor

from i2v.checkpoint import save_checkpoint
from i2v.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(make_predictor().model, path)
    return path


class Command:
    """The command, running until the block ends."""

    def __init__(self, *arguments: str | Path) -> None:
        line = [sys.executable, "-m", "i2v", "annotate", "--config", str(TINY), "--device", "cpu", "--no-browser"]
        self.process = subprocess.Popen(
            [*line, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def address(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"open (http://\S+)", line):
                return found[1]
        raise AssertionError(self.process.communicate())

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(60)
        assert self.process.stderr is not None
        return status, self.process.stderr.read()


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
        (["none.mp4"], 1, "none.mp4: no such video file or folder of frames"),
        (["CLIP", "--camera", "0"], 2, "not allowed with"),
        (["CLIP", "--port", "0"], 2, "expected a whole number from 1 up"),
        (["CLIP", "--port", "70000"], 2, "expected a port from 1 to 65535"),
        (["CLIP", "--resume"], 1, "there is no session file"),
        (["CLIP", "--resume", "CLIP/000.png"], 1, "000.png: not a session file"),
        (["CLIP", "--out", "CLIP/000.png"], 1, "is a file, expected an output folder"),
        (["CLIP", "--config", "nonsense"], 1, "nonsense"),
        (["--camera", "77", "--out", "OUT"], 1, "camera 77: cannot be opened"),
    ],
)
def test_mistakes_get_one_clear_sentence(
    clip: Path, tmp_path: Path, capsys: Any, arguments: list[str], status: int, message: str
) -> None:
    names = {"CLIP": str(clip), "OUT": str(tmp_path / "out")}
    line = [re.sub("CLIP|OUT", lambda found: names[found[0]], argument) for argument in arguments]
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
    for name in [
        name for name in sys.modules if name.partition(".")[0] == "starlette" or name.startswith("i2v.annotator")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["annotate", str(clip)]) == 1
    assert "pip install 'i2v[web]'" in capsys.readouterr().err
