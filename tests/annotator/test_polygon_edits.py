"""Masks as polygons whose vertices are moved: what is shown, what they make, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator_support import FIRST, HEIGHT, NUM_FRAMES, SIZE, WIDTH, Running, in_session, masks_of, tracked
from client_support import Client

from i2v.annotator import polygon_edits
from i2v.annotator.document import Paint
from i2v.annotator.masks import decode
from i2v.annotator.polygon_edits import MAX_POLYGONS, MIN_IOU, polygons_of_mask, redraw, redrawn, shown_polygons
from i2v.annotator.session import Session
from i2v.results.polygons import Part, parts_of
from i2v.results.rle import RunLengths, encode_mask
from i2v.utils.iou import mask_iou

SQUARE = np.array([[5, 5], [25, 5], [25, 15], [5, 15]], float)


def frame_with(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of boxes x0, y0, x1, y1, of which each turns its pixels over."""
    mask = np.zeros(SIZE, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] ^= True
    return mask


def ragged() -> np.ndarray:
    """Parts with a ragged edge, holes, and a part in a hole."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    angle = np.arctan2(rows - 48, columns - 64)
    distance = np.hypot(rows - 48, columns - 64) + 1.5 * np.sin(9 * angle)
    mask = (distance < 42) & ~((distance > 14) & (distance < 26))
    return mask | frame_with((2, 2, 9, 8))


def in_place(mask: np.ndarray) -> list[np.ndarray]:
    """The exact polygons, in the order of those that are shown."""
    return [polygon for part in parts_of(mask) for polygon in part.polygons]


@pytest.mark.parametrize("radius", [3, 8, 20, 45])
def test_polygons_have_few_vertices_and_fill_to_nearly_the_mask(radius: int) -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    mask = np.hypot(rows - 48, columns - 64) < radius
    (polygon,) = polygons_of_mask(encode_mask(mask), SIZE)
    assert mask_iou(Part(polygon).mask(SIZE), mask) >= MIN_IOU
    (exact,) = in_place(mask)
    assert len(polygon) <= (0.5 if radius >= 20 else 1) * len(exact)


def test_parts_and_holes_are_polygons_of_their_own() -> None:
    mask = ragged()
    polygons = polygons_of_mask(encode_mask(mask), SIZE)
    assert [len(p.polygons) for p in parts_of(mask)] == [1, 2, 1]
    assert len(polygons) == 4
    speck, ring, hole, island = polygons
    got = Part(speck).mask(SIZE) | Part(ring, (hole,)).mask(SIZE) | Part(island).mask(SIZE)
    assert mask_iou(got, mask) >= MIN_IOU
    assert polygons_of_mask(encode_mask(np.zeros(SIZE, bool)), SIZE) == []


def test_polygons_as_they_are_traced_make_the_mask_again() -> None:
    mask = ragged() ^ (np.random.default_rng(2).random(SIZE) < 0.01)
    changes = dict(enumerate(in_place(mask)))
    assert redrawn(encode_mask(mask), SIZE, changes) == encode_mask(mask)


@pytest.mark.parametrize(
    ("place", "new", "wanted"),
    [
        (0, (0, 0, 40, 40), [(0, 0, 40, 40), (10, 10, 20, 20), (50, 0, 60, 9)]),  # the outline: the hole stays
        (1, (12, 12, 16, 16), [(5, 5, 30, 30), (12, 12, 16, 16), (50, 0, 60, 9)]),  # the hole
        (1, (10, 10, 40, 20), [(5, 5, 30, 30), (10, 10, 30, 20), (50, 0, 60, 9)]),  # a hole over its outline
        (1, (28, 0, 60, 9), [(5, 5, 30, 30), (28, 5, 30, 9), (50, 0, 60, 9)]),  # and over another part
        (2, (31, 0, 60, 9), [(5, 5, 30, 30), (10, 10, 20, 20), (31, 0, 60, 9)]),  # another part
        (2, (0, 0, 40, 35), [(0, 0, 40, 35)]),  # which covers the first
    ],
)
def test_a_changed_polygon_is_filled_and_the_others_stay(
    place: int, new: tuple[int, int, int, int], wanted: list[tuple[int, int, int, int]]
) -> None:
    mask = frame_with((5, 5, 30, 30), (10, 10, 20, 20), (50, 0, 60, 9))
    order = [tuple(map(float, (*p.min(axis=0), *p.max(axis=0)))) for p in in_place(mask)]
    assert order == [(50, 0, 60, 9), (5, 5, 30, 30), (10, 10, 20, 20)]
    x0, y0, x1, y1 = new
    polygon = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)
    got = redrawn(encode_mask(mask), SIZE, {(place + 1) % 3: polygon})
    np.testing.assert_array_equal(decode(got, SIZE), frame_with(*wanted))


def test_what_is_not_touched_keeps_its_pixels() -> None:
    mask = ragged()
    mask[70:, 100:] ^= np.random.default_rng(4).random((HEIGHT - 70, WIDTH - 100)) < 0.5
    polygons = in_place(mask)
    place = next(i for i, polygon in enumerate(polygons) if polygon.min(axis=0).tolist() == [2, 2])
    got = decode(redrawn(encode_mask(mask), SIZE, {place: SQUARE}), SIZE)
    wanted = mask.copy()
    wanted[2:8, 2:9] = False
    wanted[5:15, 5:25] = True
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({3: SQUARE}, "polygon 3: the mask has 3"),
        ({0: SQUARE - 6}, "polygon 0: point .* is off the frame, which is 128 x 96"),
        ({0: SQUARE * [10, 1]}, "off the frame"),
        ({0: SQUARE * np.nan}, "off the frame"),
        ({0: SQUARE[:2]}, "at least three corners"),
        ({0: np.zeros((100_001, 2))}, "at most 100,000 vertices, got 100,001"),
    ],
)
def test_polygons_that_do_not_fit_are_refused(changes: dict[int, np.ndarray], said: str) -> None:
    mask = frame_with((5, 5, 30, 30), (10, 10, 20, 20), (50, 0, 60, 9))
    with pytest.raises(ValueError, match=said):
        redrawn(encode_mask(mask), SIZE, changes)


def test_masks_that_are_too_complex_are_refused() -> None:
    board = np.indices((300, 300)).sum(axis=0) % 2 == 0
    with pytest.raises(ValueError, match="180,000 pixels of edges: polygons are for at most 100,000"):
        polygons_of_mask(encode_mask(board), board.shape)
    specks = np.zeros((100, 100), bool)
    specks[::3, ::3] = True
    with pytest.raises(ValueError, match=f"1,156 outlines and holes: at most {MAX_POLYGONS}"):
        polygons_of_mask(encode_mask(specks), specks.shape)


def test_a_change_is_one_edit_with_the_mask_as_prompt(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, FIRST)
        await session.prompt(1, 4, Paint(encode_mask(ragged())))
        await tracked(session)
        await session.edit(lambda document: document.with_reviewed([4], True))
        before, store, document = masks_of(session, 1), session.store, session.document
        counts, polygons = shown_polygons(session, 1, 4)
        assert counts == store.shown(1, 4).counts
        assert len(polygons) == 4
        await redraw(session, 1, 4, counts.decode(), {0: SQUARE})
        wanted = ragged()
        wanted[2:8, 2:9] = False
        wanted[5:15, 5:25] = True
        np.testing.assert_array_equal(masks_of(session, 1)[4], wanted)
        assert session.document.prompts[1, 4] == (Paint(encode_mask(wanted)),)
        # As with the brush: the frame is to be looked at again, and tracked frames around it are out of date.
        assert session.document.reviewed == frozenset()
        assert session.store.of(1).outdated
        await session.undo()
        assert (session.store, session.document) == (store, document)
        np.testing.assert_array_equal(masks_of(session, 1)[4], before[4])
        await session.redo()
        np.testing.assert_array_equal(masks_of(session, 1)[4], wanted)

    in_session(clip, scenario)


def test_changes_of_what_is_not_there_or_locked_are_refused(clip: Path) -> None:
    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, Paint(encode_mask(ragged())))
        counts = encode_mask(ragged()).decode()
        for number, frame, mask, said in [
            (2, 0, counts, "there is no object 2"),
            (1, 3, counts, "object 1 has no mask on frame 3 that could be edited as polygons"),
            (1, NUM_FRAMES, counts, f"frame {NUM_FRAMES} is not in the video"),
            (1, 0, encode_mask(~ragged()).decode(), "object 1, frame 0: the mask has changed"),
            (1, 0, "é", "the mask has changed"),
        ]:
            with pytest.raises(ValueError, match=said):
                await redraw(session, number, frame, mask, {0: SQUARE})
        await session.edit(lambda document: document.with_lock(1, True))
        with pytest.raises(ValueError, match="object 1 is locked: unlock it first"):
            await redraw(session, 1, 0, counts, {0: SQUARE})
        np.testing.assert_array_equal(masks_of(session, 1)[0], ragged())

    in_session(clip, scenario)


def test_an_edit_that_comes_in_between_is_not_undone(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, free = threading.Event(), threading.Event()

    def slow(*args: Any) -> bytes:
        begun.set()
        assert free.wait(60)
        return redrawn(*args)

    monkeypatch.setattr(polygon_edits, "redrawn", slow)

    async def scenario(session: Session) -> None:
        await session.prompt(None, 0, Paint(encode_mask(ragged())))
        change = asyncio.create_task(redraw(session, 1, 0, encode_mask(ragged()).decode(), {0: SQUARE}))
        await asyncio.to_thread(begun.wait, 60)
        await session.prompt(1, 0, Paint(encode_mask(~ragged())))
        free.set()
        with pytest.raises(ValueError, match="the mask has changed since its polygons were shown"):
            await change
        np.testing.assert_array_equal(masks_of(session, 1)[0], ~ragged())

    in_session(clip, scenario)


def test_polygons_over_the_wire(server: Running) -> None:
    client = Client(server)
    session, counts = client.session(), encode_mask(ragged())
    runs = RunLengths.of_counts(counts, SIZE).runs.tolist()
    assert client.command(session, do="paint", object=None, frame=0, runs=runs).status_code == 200
    answer = client.http.get(f"sessions/{session}/polygons?object=1&frame=0").json()
    assert answer["mask"] == counts.decode()
    assert [len(polygon) for polygon in answer["polygons"]] == [len(p) for p in polygons_of_mask(counts, SIZE)]
    for query, said in {
        "object=1": "expected the numbers of an object and a frame",
        "object=1&frame=x": "expected the numbers of an object and a frame",
        "object=1&frame=3": "object 1 has no mask on frame 3",
        "object=1&frame=-1": "frame -1 is not in the video",
        f"object=1&frame={10**30}": "is not in the video",
        "object=7&frame=0": "there is no object 7",
    }.items():
        refused = client.http.get(f"sessions/{session}/polygons?{query}")
        assert refused.status_code == 400
        assert said in refused.json()["error"]

    square = SQUARE.astype(int).tolist()
    fine = {"do": "polygons", "object": 1, "frame": 0, "mask": answer["mask"]}
    for changes, said in [
        ([], "at least 1 item"),
        ([{"polygon": 0, "vertices": square[:2]}], "at least 3 items"),
        ([{"polygon": 0, "vertices": [[1, 2, 3]] * 3}], "at most 2 items"),
        ([{"polygon": 0, "vertices": [[1, 1e300]] * 3}], "less than or equal to 1000000"),
        ([{"polygon": 0, "vertices": [[1, -1]] * 3}], "greater than or equal to 0"),
        ([{"polygon": 0, "vertices": [[1, 97]] * 3}], "off the frame"),
        ([{"polygon": 0, "vertices": [["1", "2"]] * 3}], "valid number"),
        ([{"polygon": 10**30, "vertices": square}], "less than 500"),
        ([{"polygon": 9, "vertices": square}], "polygon 9: the mask has 4, counted from 0"),
        ([{"polygon": 0, "vertices": square}] * 2, "each of them once"),
        ([{"polygon": 0, "vertices": [[1, 1]] * 100_001}], "at most 100000 items"),
    ]:
        refused = client.command(session, **fine, changes=changes)
        assert refused.status_code == 400
        message = refused.json()["error"]
        assert said in message
        assert len(message) < 250 and "\n" not in message
    nan = '{"do":"polygons","object":1,"frame":0,"mask":"x","changes":[{"polygon":0,"vertices":[[NaN,1],[2,3],[4,5]]}]}'
    assert client.http.post(f"sessions/{session}/commands", content=nan).status_code == 400
    assert server.book.get(session).store.shown(1, 0).counts == counts

    assert client.command(session, **fine, changes=[{"polygon": 0, "vertices": square}]).json() == {}
    wanted = ragged()
    wanted[2:8, 2:9] = False
    wanted[5:15, 5:25] = True
    np.testing.assert_array_equal(decode(server.book.get(session).store.shown(1, 0).counts, SIZE), wanted)
