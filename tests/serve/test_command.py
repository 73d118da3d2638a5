"""The command: it prints where it is and the token, answers, and ends with Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve_support import FRAMES, png
from support import TINY, make_predictor

from i2v.checkpoint import save_checkpoint
from i2v.cli.main import main

SECRET = "a-secret-of-the-user"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(png(FRAMES[0]))
    save_checkpoint(make_predictor().model, tmp_path / "w.pt")
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(*options: str) -> list[str]:
    model = ["--config", str(TINY), "--checkpoint", "w.pt", "--device", "cpu"]
    return [sys.executable, "-m", "i2v", "serve", *model, *options]


@contextmanager
def started(folder: Path, *options: str, **environment: str) -> Iterator[tuple[str, str]]:
    """The address that the command prints, and all that it prints until it answers."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.Popen(
        command(*options), cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("token: "):
                break
        text = "".join(lines)
        address = re.search(r"http://[\d.]+:\d+", text)
        assert address is not None, text
        yield address[0], text
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
    finally:
        process.kill()
        process.wait()


def test_it_serves_with_a_token_of_its_own(folder: Path) -> None:
    with started(folder, "--root", ".", "--port", str(free_port())) as (address, text):
        token = text.rpartition("token: ")[2].strip()
        assert len(token) > 20
        body = {"path": "photo.png", "points": [{"x": 16, "y": 19}]}
        answer = httpx.post(f"{address}/images/segment", json=body, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200 and answer.json()["size"] == [48, 64]
        assert httpx.post(f"{address}/images/segment", json=body).status_code == 401


def test_the_token_of_the_environment_is_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("I2V_SERVE_TOKEN", SECRET)

    def started_and_stopped(server: Any, listener: socket.socket) -> bool:
        server._ready()
        return True

    monkeypatch.setattr("i2v.serve.command.serve", started_and_stopped)
    assert main([*command("--host", "0.0.0.0", "--root", ".")[3:], "--port", str(free_port())]) == 0
    printed = capsys.readouterr().out
    assert SECRET not in printed and "token: that of I2V_SERVE_TOKEN" in printed
    assert "other machines can reach 0.0.0.0, and nothing is encrypted" in printed


@pytest.mark.parametrize(
    ("options", "variables", "reason"),
    [
        (("--root", "nothing"), {}, "--root nothing: there is no such folder"),
        ((), {"I2V_SERVE_TOKEN": "short"}, "expected at least 16 ASCII characters"),
        (("--port", "70000"), {}, "expected a whole number from 1 to 65535"),
        (("--max-sessions", "0"), {}, "expected a whole number from 1 up"),
        (("--host", "203.0.113.1"), {}, "203.0.113.1 is no address to listen on"),
        (("--host", "no.such.host.invalid"), {}, "no.such.host.invalid is no address to listen on"),
    ],
)
def test_wrong_options_are_told_in_a_line(
    options: tuple[str, ...],
    variables: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", *options]) in (1, 2)
    told = capsys.readouterr().err
    assert reason in told and told.count("i2v: error: ") == 1 and "Traceback" not in told
