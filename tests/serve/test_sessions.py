"""Sessions over videos: opened, prompted, tracked as a stream, closed; and their limits."""

from __future__ import annotations

import io
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serve_support import FIRST, FRAMES, HEIGHT, NUM_FRAMES, SECOND, WIDTH, Served, mask_of, serving, tiny
from support import make_predictor

from i2v.results.rle import encode_mask
from i2v.serve.limits import Limits
from i2v.serve.schemas import TrackRequest


def expected_masks() -> dict[int, np.ndarray]:
    predictor = tiny()
    with predictor.init_state(FRAMES) as state:
        predictor.add_new_points_or_box(state, 0, 1, [FIRST], [1])
        predictor.add_new_points_or_box(state, 0, 2, box=[30, 18, 62, 46])
        return {frame: (logits[:, 0] > 0).numpy() for frame, _, logits in predictor.propagate_in_video(state)}


def test_a_video_is_opened_prompted_and_tracked_as_the_predictor_does(served: Served) -> None:
    session = served.open()
    about = served.client.get(f"/sessions/{session}").json()
    assert about == {
        "session": session,
        "video": "clip",
        "width": WIDTH,
        "height": HEIGHT,
        "frames": NUM_FRAMES,
        "frame_rate": None,
        "objects": [],
        "tracking": False,
    }
    answer = served.click(session).json()
    assert answer["frame"] == 0 and [mask["object"] for mask in answer["masks"]] == [1]
    assert mask_of(answer["masks"][0]).sum() == answer["masks"][0]["area"]
    served.post(f"/sessions/{session}/prompts", object=2, frame=0, box=[30, 18, 62, 46])
    lines = served.track(session)
    assert lines[-1] == {"done": True, "frames": NUM_FRAMES}
    expected = expected_masks()
    assert [line["frame"] for line in lines[:-1]] == sorted(expected)
    for line in lines[:-1]:
        assert [mask["object"] for mask in line["masks"]] == [1, 2]
        for mask, plane in zip(line["masks"], expected[line["frame"]], strict=True):
            np.testing.assert_array_equal(mask_of(mask), plane)
            if plane.any():
                rows, columns = np.nonzero(plane)
                assert mask["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert any(plane.any() for plane in expected.values())
    assert served.client.delete(f"/sessions/{session}/objects/1").status_code == 204
    assert served.client.get(f"/sessions/{session}").json()["objects"] == [2]
    assert served.client.delete(f"/sessions/{session}").status_code == 204
    assert served.client.get(f"/sessions/{session}").status_code == 404


def test_ranges_directions_objects_and_masks(served: Served) -> None:
    session = served.open()
    disc = np.zeros((HEIGHT, WIDTH), bool)
    disc[10:28, 8:26] = True
    rle = {"size": [HEIGHT, WIDTH], "counts": encode_mask(disc).decode()}
    answer = served.post(f"/sessions/{session}/prompts", object=7, frame=3, mask=rle)
    found = mask_of(answer.json()["masks"][0])
    assert (found & disc).sum() / (found | disc).sum() > 0.8
    served.click(session, 8, SECOND, 3)
    lines = served.track(session, start=3, frames=3, reverse=True, objects=[7])
    assert [line.get("frame") for line in lines] == [3, 2, 1, None]
    assert {mask["object"] for line in lines[:-1] for mask in line["masks"]} == {7}
    served.client.delete(f"/sessions/{session}")


def animated(frames: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(buffer, format="WEBP", save_all=True, append_images=pictures[1:], lossless=True, duration=40)
    return buffer.getvalue()


def test_an_upload_is_opened_and_removed_with_its_session(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answer = served.client.post("/sessions/upload?name=mine.webp", content=animated(FRAMES))
    assert answer.status_code == 201
    about = answer.json()
    assert (about["video"], about["frames"]) == ("mine.webp", NUM_FRAMES)
    assert len(list(tmp_path.glob("*/video.webp"))) == 1
    assert served.click(about["session"]).status_code == 200
    served.client.delete(f"/sessions/{about['session']}")
    assert not list(tmp_path.iterdir())


def test_an_upload_that_is_no_video_is_refused_by_its_own_name(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for content in (
        b"",
        b"no video at all",
        b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        b"ffconcat version 1.0\nfile a.mp4",
    ):
        answer = served.client.post("/sessions/upload?name=mine.mp4", content=content)
        assert answer.status_code == 400
        assert answer.json()["error"] in ("mine.mp4: this is no video that can be read", "mine.mp4: the file is empty")
    assert not served.client.get("/sessions").json()["sessions"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path", ["../secret.png", "{root}/../secret.png", "/etc/passwd", "nothing.mp4", "a\0b", "clip/" + 300 * "x", "*"]
)
def test_only_what_is_below_the_folders_is_opened(served: Served, path: str) -> None:
    answer = served.post("/sessions", path=path.format(root=served.root))
    assert answer.status_code == 404
    assert "below the folders that --root allows" in answer.json()["error"]
    assert served.post("/images/segment", path=path, points=[{"x": 1, "y": 1}]).status_code == 404


def test_links_and_lists_do_not_lead_out(served: Served) -> None:
    secret = served.root.parent / "secret.png"
    os.symlink(secret, served.root / "link.png")
    (served.root / "linked").mkdir()
    os.symlink(secret, served.root / "linked" / "0.png")
    (served.root / "list.txt").write_text(f"{secret}\n")
    assert served.post("/images/segment", path="link.png", points=[{"x": 1, "y": 1}]).status_code == 404
    answer = served.post("/sessions", path="linked")
    assert answer.status_code == 403 and "leads out" in answer.json()["error"]
    assert served.post("/sessions", path="list.txt").status_code == 400


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "object: Field required"),
        ({"object": 1, "frame": 0}, "expected points, a box or both, or else a mask"),
        ({"object": 0, "frame": 0, "box": [1, 1, 2, 2]}, "object: "),
        ({"object": 1, "frame": NUM_FRAMES, "box": [1, 1, 20, 20]}, f"which has {NUM_FRAMES} frames"),
        ({"object": 1, "frame": 0, "points": [{"x": WIDTH + 1, "y": 1}]}, "is off the frame"),
        ({"object": 1, "frame": 0, "box": [9, 9, 2, 2]}, "expected a box with x0 < x1"),
        ({"object": 1, "frame": 0, "mask": {"size": [2, 2], "counts": "4"}}, "the mask is 2x2, expected 64x48"),
        ({"object": 1, "frame": 0, "mask": {"size": [HEIGHT, WIDTH], "counts": "~~"}}, "run lengths"),
        ({"object": 1, "frame": 0, "box": [1, 1, 2, 2], "colour": "red"}, "colour: "),
        ({"object": "1", "frame": 0, "box": [1, 1, 2, 2]}, "object: "),
    ],
)
def test_a_wrong_prompt_is_refused_in_one_sentence(served: Served, body: dict[str, Any], reason: str) -> None:
    session = served.open()
    answer = served.post(f"/sessions/{session}/prompts", **body)
    assert answer.status_code == 400
    assert reason in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert served.client.get(f"/sessions/{session}").json()["objects"] == []
    served.client.delete(f"/sessions/{session}")


def test_tracking_that_cannot_start_is_refused_before_the_stream(served: Served) -> None:
    session = served.open()
    path = f"/sessions/{session}/track"
    assert "no object has a prompt" in served.post(path).json()["error"]
    served.click(session)
    assert served.post(path, objects=[5]).status_code == 404
    assert served.post(path, start=NUM_FRAMES).status_code == 400
    assert served.track(session, start=0, reverse=True) == [{"done": True, "frames": 0}]
    served.client.delete(f"/sessions/{session}")


def test_one_stream_tracks_a_session_and_a_client_that_leaves_frees_it(root: Path) -> None:
    predictor = make_predictor()
    is_tracking, may_go_on = threading.Event(), threading.Event()
    advance = predictor._advance

    def slow(*arguments: Any) -> Any:
        is_tracking.set()
        may_go_on.wait(10)
        return advance(*arguments)

    predictor._advance = slow  # type: ignore[method-assign]
    with serving(root, predictor=predictor) as served:
        session = served.open()
        served.click(session)
        path = f"/sessions/{session}/track"
        other = httpx.Client(base_url=served.address, headers=served.client.headers)
        with other, other.stream("POST", path, json={}) as stream:
            assert is_tracking.wait(10)
            may_go_on.set()
            assert json.loads(next(stream.iter_lines()))["frame"] == 0
            may_go_on.clear()
        # The step that runs when the client leaves is finished, and then the session is free.
        may_go_on.set()
        deadline = time.monotonic() + 10
        while served.client.get(f"/sessions/{session}").json()["tracking"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert served.track(session)[-1] == {"done": True, "frames": NUM_FRAMES}


def test_a_second_stream_is_refused_and_closing_the_session_ends_the_first(root: Path) -> None:
    with serving(root) as served:
        session = served.open()
        served.click(session)
        video = served.service.sessions.get(session)
        steps = video.track(TrackRequest())
        next(steps)
        refused = served.post(f"/sessions/{session}/track")
        assert refused.status_code == 409 and "another request is tracking" in refused.json()["error"]
        served.client.delete(f"/sessions/{session}")
        with pytest.raises(Exception, match="this session was closed"):
            next(steps)


def test_a_stream_that_never_began_leaves_the_session_free(served: Served) -> None:
    session = served.open()
    served.click(session)
    served.service.sessions.get(session).track(TrackRequest()).close()
    assert served.track(session)[-1] == {"done": True, "frames": NUM_FRAMES}
    served.client.delete(f"/sessions/{session}")


def test_sessions_objects_and_memory_are_limited(root: Path) -> None:
    with serving(root, Limits(sessions=2, objects=1)) as served:
        first, _ = served.open(), served.open()
        answer = served.post("/sessions", path="clip")
        assert answer.status_code == 429 and "all 2 sessions are in use" in answer.json()["error"]
        assert served.client.post("/sessions/upload", content=b"x").status_code == 429
        assert served.click(first).status_code == 200
        assert served.click(first, 2).status_code == 429
        assert served.click(first, 1, SECOND).status_code == 200
    with serving(root, Limits(memory_bytes=1 << 20)) as served:
        answer = served.post("/sessions", path="clip")
        assert answer.status_code == 503 and "more than its 1 MiB of memory" in answer.json()["error"]


def test_idle_sessions_are_closed_and_used_ones_are_not(root: Path) -> None:
    with serving(root, Limits(idle_seconds=0.6)) as served:
        idle, used = served.open(), served.open()
        deadline = time.monotonic() + 10
        while len(served.service.sessions.all()) == 2:
            assert served.client.get(f"/sessions/{used}").status_code == 200
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert served.client.get(f"/sessions/{idle}").status_code == 404
        assert served.client.get(f"/sessions/{used}").status_code == 200
        # A stream that nobody reads is no use, either.
        served.click(used)
        steps = served.service.sessions.get(used).track(TrackRequest())
        next(steps)
        deadline = time.monotonic() + 10
        while served.service.sessions.all():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        steps.close()


def test_a_damaged_frame_ends_the_stream_with_an_error(root: Path, tmp_path: Path) -> None:
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    with serving(tmp_path.parent) as served:
        session = served.open(tmp_path.name)
        served.click(session)
        (tmp_path / "5.png").write_bytes(b"damaged")
        lines = served.track(session)
        assert "5.png" in lines[-1]["error"] and len(lines) > 1
        assert served.click(session, 2, SECOND).status_code == 200
