"""Reading and drawing SA-V's training videos."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from vos_support import disc_mask, write_frames

from i2v.results.overlay import PALETTE, VideoWriter
from sav_dataset.utils.sav_utils import SAVDataset, draw_masks, read_annotation


def run_lengths(mask: np.ndarray) -> dict[str, object]:
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@pytest.fixture
def root(tmp_path):
    """Nine frames as JPEGs, three of them annotated: one masklet always, one from the second on."""
    write_frames(tmp_path / "sav_000" / "sav_000001", 9, [0, 0])
    empty = np.zeros_like(disc_mask(0, 0))
    masklets = [[run_lengths(disc_mask(0, t)), run_lengths(disc_mask(1, t) if t else empty)] for t in (0, 4, 8)]
    masklets[2][1] = None
    content = {
        "video_id": "sav_000001",
        "video_height": 48.0,
        "video_width": 64.0,
        "masklet": masklets,
        "masklet_first_appeared_frame": [0.0, 1.0],
    }
    (tmp_path / "sav_000" / "sav_000001_manual.json").write_text(json.dumps(content))
    return tmp_path


def test_masks(root):
    annotation = SAVDataset(root).annotation("sav_000001")
    assert (annotation.size, annotation.first_frames, list(annotation.frames)) == ((48, 64), (0, 4), [0, 4, 8])
    assert np.array_equal(annotation.mask(4, 1), disc_mask(1, 4))
    assert [mask.any() for mask in annotation.masks(8)] == [True, False]
    for frame, masklet in ((3, 0), (12, 0), (4, 2), (-4, 0)):
        with pytest.raises(IndexError, match=f"no annotation of masklet {masklet} on frame {frame}; there are 2"):
            annotation.mask(frame, masklet)


def test_frames_come_with_their_numbers(root):
    data = SAVDataset(root)
    assert data.videos == ["sav_000001"]
    assert [number for number, _ in data.read_frames("sav_000001")] == [0, 4, 8]
    for number in (1, 2, 3, 5, 6, 7):
        (root / "sav_000" / "sav_000001" / f"{number:05d}.jpg").unlink()
    assert [number for number, _ in data.read_frames("sav_000001")] == [0, 4, 8]
    assert data.draw("sav_000001", 8).shape == (48, 64, 3)


def test_drawn_masks_lie_where_they_belong(root):
    picture = SAVDataset(root).draw("sav_000001", 4)
    painted = (picture == PALETTE[2]).all(axis=2)
    assert painted.any() and not (painted & ~disc_mask(1, 4)).any()


def test_mp4_elsewhere(root, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    with VideoWriter(videos / "sav_000001.mp4") as video:
        for level in range(0, 90, 10):
            video.write(np.full((48, 64, 3), level, np.uint8))
    data = SAVDataset(root, frames=videos)
    assert data.video_path("sav_000001") == videos / "sav_000001.mp4"
    levels = {number: float(picture.mean()) for number, picture in data.read_frames("sav_000001")}
    assert levels == pytest.approx({0: 0, 4: 40, 8: 80}, abs=4)


def test_later_masks_cover_earlier_ones():
    first, second = np.ones((40, 40), bool), np.zeros((40, 40), bool)
    second[10:30, 10:30] = True
    picture = draw_masks(np.zeros((40, 40, 3), np.uint8), [first, second])
    assert np.array_equal(picture[20, 20], np.rint(PALETTE[2] / 2).astype(np.uint8))
    assert np.array_equal(picture[2, 2], np.rint(PALETTE[1] / 2).astype(np.uint8))


def test_what_is_missing_is_named(root, tmp_path):
    data = SAVDataset(root)
    with pytest.raises(FileNotFoundError, match=r"no sav_000001_auto\.json"):
        data.annotation("sav_000001", "auto")
    with pytest.raises(ValueError, match="kind: expected manual or auto, got 'both'"):
        data.annotation("sav_000001", "both")
    with pytest.raises(FileNotFoundError, match=r"no sav_7\.mp4 and no folder sav_7"):
        data.video_path("sav_7")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no annotations VIDEO_manual\.json"):
        SAVDataset(tmp_path / "empty")
    (tmp_path / "bad_manual.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad_manual.json: the key 'masklet' is missing"):
        read_annotation(tmp_path / "bad_manual.json")
