"""The server from outside: what it answers, and whom it refuses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotator_support import FIRST, HEIGHT, NUM_FRAMES, SIZE, WIDTH, Running, running, until
from client_support import CLICK, Client, next_event, raw
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from i2v.annotator.footage import VideoFootage
from i2v.annotator.masks import decode


@pytest.fixture
def client(server: Running) -> Client:
    return Client(server)


def test_the_page_and_its_parts_are_served_with_a_strict_policy(client: Client) -> None:
    page = client.http.get("")
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in page.headers
    assert client.http.get("static/js/main.js").headers["content-type"].startswith("text/javascript")
    frame = client.http.get("frames/3.jpg")
    assert frame.headers["content-type"] == "image/jpeg"
    assert "immutable" in frame.headers["cache-control"]
    assert client.http.get(f"frames/{NUM_FRAMES}.jpg").status_code == 404


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    static = Path(__file__).parents[2] / "i2v" / "annotator" / "static"
    texts = [path.read_text() for path in static.rglob("*") if path.is_file()]
    assert len(texts) > 10
    for text in texts:
        assert "https:" not in text
        assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_click_is_answered_and_told_to_listeners(client: Client) -> None:
    session = client.session()
    with client.events(session) as events:
        answer = client.command(session, **CLICK)
        assert answer.json() == {"object": 1}
        told = [json.loads(events.recv(timeout=10)) for _ in range(3)]
    by_kind = {event["event"]: event for event in told}
    # Nothing has to be fetched: a new object has no other masks.
    assert set(by_kind) == {"listening", "masks", "state"}
    masks = by_kind["masks"]["masks"]
    assert [(mask["object"], by_kind["masks"]["frame"]) for mask in masks] == [(1, 0)]
    assert decode(masks[0]["counts"].encode(), SIZE).any()
    assert by_kind["state"]["state"]["prompts"] == [
        {"object": 1, "frame": 0, "steps": [{"click": [FIRST.x, FIRST.y, 1]}]}
    ]
    assert client.http.get(f"sessions/{session}/masks?first=0&last=63").json()[0] == {
        key: by_kind["masks"][key] for key in ("frame", "masks")
    }


def test_tracking_exporting_and_saving_over_the_wire(client: Client, server: Running) -> None:
    session = client.session()
    client.command(session, **CLICK)
    assert client.command(session, do="track", frame=0, direction="forward", until="end").json() == {}
    client.idle(session)
    snapshot = client.snapshot(session)
    assert snapshot["video"] == {
        "name": "clip",
        "width": WIDTH,
        "height": HEIGHT,
        "frame_rate": None,
        "frames": NUM_FRAMES,
        "live": False,
    }
    assert client.command(session, do="export", formats=["png"]).status_code == 200
    client.idle(session)
    assert len(list((server.out / "export" / "masks").iterdir())) == NUM_FRAMES
    path = Path(client.command(session, do="save").json()["path"])
    assert path == server.out / "session.json"
    assert len(json.loads(path.read_text())["masks"]) == NUM_FRAMES


def test_sessions_are_apart_and_errors_stay_in_theirs(client: Client, clip: Path) -> None:
    first, second = client.session(), client.session()
    assert first != second
    client.command(first, **CLICK)
    assert client.snapshot(second)["state"]["objects"] == []
    (clip / "005.png").write_bytes(b"damaged")
    client.command(second, **{**CLICK, "frame": 1})
    with client.events(first) as events:
        client.command(first, do="track", frame=0, direction="forward", until="end")
        kinds: list[dict[str, Any]] = []
        while not any(event["event"] == "error" for event in kinds):
            kinds.append(json.loads(events.recv(timeout=20)))
    assert "005.png" in kinds[-1]["message"]
    assert client.command(second, **{**CLICK, "object": 1, "frame": 2}).status_code == 200
    assert {entry["session"]: entry["objects"] for entry in client.http.get("sessions").json()} == {first: 1, second: 1}


def test_sessions_are_bounded_and_idle_ones_make_room_saved(start: Callable[..., Any]) -> None:
    with start(max_sessions=2) as server:
        client = Client(server)
        first = client.session()
        client.command(first, **CLICK)
        second = client.session()
        with client.events(second):
            third = client.session()
            # The first had no page, so it went, but not its work.
            assert client.http.get(f"sessions/{first}").status_code == 404
            assert json.loads(server.book.file_of(first).read_text())["prompts"]
            with client.events(third):
                refused = client.http.post("sessions")
                assert refused.status_code == 400
                assert "all 2 sessions are in use" in refused.json()["error"]


def test_changes_are_saved_by_themselves_and_resumed(start: Callable[..., Any]) -> None:
    with start() as server:
        client = Client(server)
        client.command(client.session(), **CLICK)
        file = server.book.file_of(1)
        deadline = time.monotonic() + 10
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        client.command(1, do="rename", object=1, name="red disc")
    # Ending saves, too.
    assert json.loads(file.read_text())["objects"][0]["name"] == "red disc"
    before = file.read_bytes()
    with start(resume=file) as server:
        client = Client(server)
        assert client.session() == 1
        client.idle(1)
        assert client.snapshot(1)["state"]["objects"][0]["name"] == "red disc"
        assert client.snapshot(1)["state"]["prompts"][0]["steps"] == [{"click": [FIRST.x, FIRST.y, 1]}]
        assert client.session() == 2
    with start() as server:
        # Without --resume, what is there is left alone.
        assert Client(server).session() == 2
    assert json.loads(file.read_text())["masks"] == json.loads(before)["masks"]


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(clip: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with running(VideoFootage(clip), blocked / "out") as server:
        client = Client(server)
        session = client.session()
        with client.events(session) as events:
            client.command(session, **CLICK)
            saving = next_event(events, "saving")["saving"]
        assert saving["state"] == "failed"
        assert "could not be saved" in saving["message"]
        assert "Errno" not in saving["message"]
        assert client.command(session, do="undo").status_code == 200


# Hostile requests


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"host": "127.0.0.1:1"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_other_origins_are_refused(client: Client, headers: dict[str, str], status: int) -> None:
    for answer in (client.http.get("", headers=headers), client.http.post("sessions", headers=headers)):
        assert answer.status_code == status
        assert "content-security-policy" in answer.headers
    assert client.http.get("sessions").json() == []


def test_posts_and_sockets_without_an_origin_are_refused(server: Running, client: Client) -> None:
    assert httpx.post(f"{server.address}sessions").status_code == 403
    session = client.session()
    for origin in (None, "http://evil.example"):
        with pytest.raises(InvalidStatus) as caught:
            connect(f"{client.sockets}sessions/{session}/events", origin=origin)
        assert caught.value.response.status_code == 403


@pytest.mark.parametrize("token", ["", "wrong", "%00", "%C3%A4", "a" * 5000])
def test_a_wrong_token_opens_nothing(server: Running, client: Client, token: str) -> None:
    base = f"http://127.0.0.1:{server.port}/{token}"
    for path in ("/", "/static/js/main.js", "/frames/0.jpg", "/sessions"):
        answer = httpx.get(base + path)
        assert answer.status_code == 403
        assert "token" in answer.json()["error"]
    assert httpx.post(f"{base}/sessions", headers={"origin": client.origin}).status_code == 403
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{server.port}/{token}/sessions/1/events", origin=client.origin)


@pytest.mark.parametrize(
    "path",
    [
        "static/../app.py",
        "static/%2e%2e/app.py",
        "static/..%2fapp.py",
        "static//etc/passwd",
        "static/js/../../../../pyproject.toml",
        "frames/../../clip/000.png",
        "frames/-1.jpg",
        "frames/1e3.jpg",
        "sessions/..%2f..%2fetc%2fpasswd",
        "../../etc/passwd",
        "etc/passwd",
    ],
)
def test_paths_lead_nowhere_else(server: Running, path: str) -> None:
    status, body = raw(server, f"GET /{server.token}/{path} HTTP/1.1\nHost: 127.0.0.1:{server.port}\nConnection: close")
    assert status in (400, 403, 404)
    assert "root:" not in body
    assert "import" not in body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a command"),
        (b"{", "not a command"),
        (b"[" * 100_000, "more than 32 levels of nesting"),
        (b'{"do":"track","frame":' + b"9" * 5000 + b"}", "not a command"),
        (b"\xff\xfe", "not a command"),
        (b'"click"', "not a command"),
        (b'{"do":"shell"}', "not a command"),
        (b'{"do":"undo","path":"/etc/passwd"}', "path"),
        (b'{"do":"click","object":1,"frame":-1,"x":0,"y":0,"positive":true}', "frame"),
        (b'{"do":"click","object":1,"frame":0,"x":NaN,"y":0,"positive":true}', "x"),
        (b'{"do":"click","object":1,"frame":0,"x":1e999,"y":0,"positive":true}', "x"),
        (b'{"do":"click","object":1,"frame":0,"x":"1","y":0,"positive":true}', "x"),
        (b'{"do":"click","object":256,"frame":0,"x":1,"y":0,"positive":true}', "object"),
        (b'{"do":"click","object":7,"frame":0,"x":1,"y":0,"positive":true}', "no object 7"),
        (b'{"do":"click","object":null,"frame":99,"x":1,"y":0,"positive":true}', "frame 99 is not in the video"),
        (b'{"do":"click","object":null,"frame":0,"x":500,"y":0,"positive":true}', "off the frame"),
        (b'{"do":"paint","object":null,"frame":0,"runs":[1]}', "cover 128x96 pixels"),
        (b'{"do":"paint","object":null,"frame":0,"runs":[1.5]}', "runs"),
        (b'{"do":"paint","object":null,"frame":0,"runs":[' + b"9" * 20 + b"]}", "runs"),
        (b'{"do":"paint","object":null,"frame":0,"runs":[12288]}', "nothing to erase"),
        (b'{"do":"add","name":"a\\u0000b"}', "characters that can be shown"),
        (b'{"do":"add","name":"a\\u202eb"}', "characters that can be shown"),
        (json.dumps({"do": "paint", "object": None, "frame": 0, "runs": [1] * 200_001}).encode(), "runs"),
        (b'{"do":"rename","object":1,"name":"  "}', "name"),
        (json.dumps({"do": "rename", "object": 1, "name": "x" * 81}).encode(), "name"),
        (b'{"do":"export","formats":["exe"]}', "formats"),
        (b'{"do":"export","formats":["png"]}', "no mask to export"),
        (b'{"do":"track","frame":0,"direction":"up","until":"end"}', "direction"),
        (b'{"do":"track","frame":0,"direction":"both","until":"end"}', "nothing to track yet"),
        (b'{"do":"undo"}', "nothing to undo"),
        (b'{"do":"update"}', "nothing to update"),
    ],
)
def test_commands_that_are_none_are_refused_in_a_sentence(client: Client, body: bytes, message: str) -> None:
    session = client.session()
    answer = client.http.post(f"sessions/{session}/commands", content=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert client.snapshot(session)["state"]["objects"] == []


def test_large_bodies_and_bodies_of_unsaid_length_are_not_read(server: Running, client: Client) -> None:
    session = client.session()
    path = f"/{server.token}/sessions/{session}"
    host = f"Host: 127.0.0.1:{server.port}\nOrigin: {client.origin}"
    for target, length, status in (
        ("commands", "Content-Length: 3000000", 413),
        ("commands", "Transfer-Encoding: chunked", 411),
        ("commands", "Content-Length: -5", 400),
        ("uploads", f"Content-Length: {257 << 20}", 413),
    ):
        got, _ = raw(server, f"POST {path}/{target} HTTP/1.1\n{host}\n{length}")
        assert got == status, (target, length)
    assert client.command(session, **CLICK).status_code == 200


@pytest.mark.parametrize(
    "query", ["", "first=x", "first=-1", "first=3&last=1", "first=0&last=64", "first=" + "9" * 5000]
)
def test_masks_are_asked_for_in_bounded_ranges(client: Client, query: str) -> None:
    session = client.session()
    assert client.http.get(f"sessions/{session}/masks?{query}").status_code == 400


def test_imports_are_checked(client: Client) -> None:
    session = client.session()
    with client.events(session) as events:
        for name, data, message in (
            ("../../x.png", b"", "number of its frame"),
            ("1.png", b"none", "cannot be read"),
            ("masks.json", b"[]", "not a file of masks"),
            ("", b"", "expected masks as PNG, JSON"),
        ):
            client.http.post(f"sessions/{session}/uploads", params={"batch": "a", "name": name}, content=data)
            assert client.command(session, do="import", batch="a", object=1).json() == {}
            assert message in next_event(events, "error")["message"]
            client.idle(session)
    for command, message in (
        ({"batch": "a", "object": 1}, "no files to import"),
        ({"batch": "a", "object": 0}, "object"),
        ({"batch": "../a", "object": 1}, "batch"),
    ):
        answer = client.command(session, do="import", **command)
        assert answer.status_code == 400
        assert message in answer.json()["error"]


def test_a_large_message_of_a_page_ends_only_its_own_socket(client: Client) -> None:
    session = client.session()
    with client.events(session) as events, client.events(session) as other:
        events.send("x" * (1 << 20))
        client.command(session, **CLICK)
        told = [json.loads(other.recv(timeout=10)) for _ in range(3)]
        assert {event["event"] for event in told} == {"listening", "masks", "state"}
        assert [event["news"] for event in told] == sorted(event["news"] for event in told)
        # Not before the page has read its end, the server counts it as gone: it waits for the closing handshake.
        with pytest.raises(ConnectionClosed):
            for _ in range(10):
                events.recv(timeout=10)
        # Some time after it, the server counts it as gone.
        until(lambda: client.http.get("sessions").json()[0]["tabs"] == 1)
        (listed,) = client.http.get("sessions").json()
        assert (listed["session"], listed["objects"]) == (session, 1)


def test_unknown_addresses_and_methods_get_an_answer(client: Client) -> None:
    assert client.http.get("nothing").status_code == 404
    assert client.http.get("sessions/99").json() == {"error": "session 99 is not open"}
    assert client.http.delete("sessions", headers={"content-length": "0"}).status_code == 405
    with pytest.raises(InvalidStatus):
        client.events(99)
