"""The server when requests are cut off or strange, and when its video or its disk changes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotator_support import FIRST, HEIGHT, NUM_FRAMES, WIDTH, Running, running, until
from client_support import CLICK, Client, next_event
from support import render_video

from i2v.annotator import patience, sessions
from i2v.annotator.command import _read_classes
from i2v.annotator.footage import VideoFootage
from i2v.annotator.sessions import About
from i2v.results.overlay import VideoWriter


@pytest.fixture
def client(server: Running) -> Client:
    return Client(server)


def test_a_binary_message_does_not_end_the_socket(client: Client) -> None:
    session = client.session()
    with client.events(session) as events:
        events.send(b"\x00\xff")
        events.send("text")
        client.command(session, **CLICK)
        assert next_event(events, "masks")["frame"] == 0


def test_a_request_that_is_cut_off_says_nothing_in_the_terminal(
    server: Running, client: Client, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    session = client.session()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /{server.token}/sessions/{session}/commands HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        connection.sendall(f"{head}Origin: {client.origin}\r\nContent-Length: 100\r\n\r\nhalf".encode())
        time.sleep(0.2)
    assert client.command(session, **CLICK).status_code == 200
    assert "Traceback" not in caplog.text + "".join(capsys.readouterr())
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("part", ["", "GET /", "POST /{token}/sessions/1/commands HTTP/1.1\r\n{headers}\r\n\r\n{{"])
def test_half_a_request_is_not_waited_for_for_ever(
    server: Running, client: Client, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(patience, "REQUEST_SECONDS", 0.3)
    session = client.session()
    headers = f"Host: 127.0.0.1:{server.port}\r\nOrigin: {client.origin}\r\nContent-Length: 50"
    with client.events(session) as events, socket.create_connection(("127.0.0.1", server.port), timeout=10) as half:
        half.sendall(part.format(token=server.token, headers=headers).encode())
        started = time.monotonic()
        assert half.recv(1000) == b""
        assert time.monotonic() - started < 8
        # Sockets of pages stay.
        client.command(session, **CLICK)
        assert next_event(events, "masks")["frame"] == 0


def test_a_video_that_was_replaced_is_named_and_takes_no_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_WATCH_SECONDS", 0.05)
    video = tmp_path / "clip.mp4"
    with VideoWriter(video, 10) as writer:
        for picture in render_video(NUM_FRAMES, HEIGHT, WIDTH):
            writer.write(picture)
    with running(VideoFootage(video), tmp_path / "out") as server:
        client = Client(server)
        session = client.session()
        assert client.command(session, **CLICK).status_code == 200
        with client.events(session) as events:
            other = tmp_path / "other.mp4"
            other.write_bytes(video.read_bytes())
            other.replace(video)
            assert "has been replaced or removed" in next_event(events, "video")["trouble"]
        answer = client.command(session, **{**CLICK, "object": 1})
        assert answer.status_code == 400
        assert "has been replaced or removed" in answer.json()["error"]
        assert "has been replaced" in client.snapshot(session)["trouble"]


def test_a_full_disk_is_told_in_words(client: Client, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(server.out / "session.json"))

    monkeypatch.setattr(sessions, "save_session", fail)
    session = client.session()
    client.command(session, **CLICK)
    error = client.command(session, do="save").json()["error"]
    assert error.endswith("session.json: the disk is full")
    until(lambda: client.snapshot(session)["state"]["saving"]["state"] == "failed")


def test_a_session_that_cannot_be_saved_makes_no_room(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(max_sessions=1) as server:
        client = Client(server)
        first = client.session()
        client.command(first, **CLICK)
        with monkeypatch.context() as broken:
            broken.setattr(sessions, "save_session", lambda *_: (_ for _ in ()).throw(OSError(28, "full", "x")))
            until(lambda: client.snapshot(first)["state"]["saving"]["state"] in ("failed", "saved"))
            client.command(first, **{**CLICK, "object": 1, "x": FIRST.x + 1})
            answer = client.http.post("sessions?new")
            assert answer.status_code == 400
            assert "must make room" in answer.json()["error"]
            assert len(client.snapshot(first)["state"]["prompts"][0]["steps"]) == 2
        assert client.http.post("sessions?new").status_code == 201


def test_classes_come_from_a_file(tmp_path: Path, start: Callable[..., Any]) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("cup\n\n plate \ncup\n")
    assert _read_classes(path) == ("cup", "plate")
    assert _read_classes(None) == ()
    for content, message in (("", "an empty file"), ("x" * 81, "up to 80 characters"), ("a\x07b", "x07")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            _read_classes(path)
    with pytest.raises(FileNotFoundError, match=r"--classes .*nope\.txt: there is no such file"):
        _read_classes(tmp_path / "nope.txt")
    with start(about=About("small", ("cup",))) as server:
        client = Client(server)
        snapshot = client.snapshot(client.session())
        assert (snapshot["model"], snapshot["classes"]) == ("small", ["cup"])


def test_sessions_are_asked_for_by_number(client: Client, server: Running) -> None:
    assert client.http.post("sessions?number=7").status_code == 404
    assert client.http.post("sessions?number=x").status_code == 400
    session = client.session()
    assert client.http.post(f"sessions?number={session}").json() == {"session": session}
    assert client.http.get(f"sessions/{session}/picture.jpg").headers["content-type"] == "image/jpeg"
    assert client.http.get("sessions/9/picture.jpg").status_code == 404
    (server.out).mkdir(exist_ok=True)
    (server.out / "session-9.json").write_text(json.dumps({"format": "other"}))
    assert "not a session file" in client.http.post("sessions?number=9").json()["error"]
