"""What tests of results share: a predictor without a model, its clip, and what its results must be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from i2v.results.export import read_label_png
from i2v.results.overlay import PALETTE

NUM_FRAMES, HEIGHT, WIDTH = 10, 48, 64
Array = NDArray[np.uint8]


@dataclass(frozen=True)
class Score:
    object_score: float
    iou: float


class Source:
    frame_rate = 12.5

    def __init__(self, video: Path | Array) -> None:
        self.frames = sorted(video.glob("*.png")) if isinstance(video, Path) else video
        self.num_frames = len(self.frames)
        self.height, self.width = self.read(0).shape[:2]

    def read(self, frame: int) -> Array:
        item = self.frames[frame]
        return np.asarray(Image.open(item)) if isinstance(item, Path) else item

    def close(self) -> None:
        self.frames = []


class State:
    def __init__(self, video: Path | Array) -> None:
        self.source = Source(video)
        self.num_frames = self.source.num_frames
        self.video_height, self.video_width = self.source.height, self.source.width
        self.obj_ids: list[int] = []
        self.closed = False

    def close(self) -> None:
        self.closed = True


@dataclass
class FakePredictor:
    """Object 1 is what is red, any other what is green; where both are, red has the higher logit."""

    hangs_after: int | None = None
    fails_at: int | None = None
    built_with: dict[str, Any] = field(default_factory=dict)
    prompts: list[tuple[Any, ...]] = field(default_factory=list)
    visited: list[int] = field(default_factory=list)
    state: State | None = None

    def build(self, config: str, **kwargs: Any) -> FakePredictor:
        self.built_with = {"config": config, **kwargs}
        return self

    def init_state(self, video: Path | Array) -> State:
        self.state = State(video)
        return self.state

    def add_new_points_or_box(
        self, state: State, frame_idx: int, obj_id: int, points: Any, labels: Any, box: Any
    ) -> None:
        listed = [None if given is None else np.asarray(given).tolist() for given in (points, labels, box)]
        self.prompts.append((obj_id, frame_idx, *listed))
        self._know(state, obj_id)

    def add_new_mask(self, state: State, frame_idx: int, obj_id: int, mask: NDArray[np.bool_]) -> None:
        self.prompts.append((obj_id, frame_idx, mask.copy()))
        self._know(state, obj_id)

    def _know(self, state: State, obj_id: int) -> None:
        if obj_id not in state.obj_ids:
            state.obj_ids.append(obj_id)

    def propagate_in_video(
        self,
        state: State,
        start_frame_idx: int,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[int, list[int], torch.Tensor]]:
        last = -1 if reverse else state.num_frames
        for frame in range(start_frame_idx, last, -1 if reverse else 1):
            if len(self.visited) == self.hangs_after:
                hang()
            if frame == self.fails_at:
                raise RuntimeError(f"frame {frame}:\ncannot be read")
            self.visited.append(frame)
            picture = torch.tensor(state.source.read(frame)).float()
            planes = [picture[..., 0] - 128 if obj_id == 1 else (picture[..., 1] - 128) / 2 for obj_id in state.obj_ids]
            yield frame, state.obj_ids, torch.stack(planes)[:, None]

    def frame_scores(self, state: State, frame: int) -> dict[int, Score]:
        return {obj_id: Score(object_score=frame + 0.5, iou=0.25) for obj_id in state.obj_ids}


def hang(seconds: float = 60) -> None:
    """Do nothing for long, but as a model would: a signal just before a single long sleep would wait for its end."""
    for _ in range(int(seconds / 0.01)):
        time.sleep(0.01)


def picture_of(frame: int) -> Array:
    """A red square that moves right over dark grey, a green one that stays and is partly covered by it."""
    picture = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    picture[20:40, 30:50, 1] = 255
    picture[10:20, 4 * frame : 4 * frame + 20, 1] = 0
    picture[10:30, 4 * frame : 4 * frame + 20, 0] = 255
    return picture


def labels_of(frame: int) -> Array:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[20:40, 30:50] = 2
    labels[10:30, 4 * frame : 4 * frame + 20] = 1
    return labels


def write_clip(folder: Path) -> Path:
    folder.mkdir()
    for frame in range(NUM_FRAMES):
        Image.fromarray(picture_of(frame)).save(folder / f"{frame:03d}.png")
    return folder


def decode(path: Path) -> list[Array]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def check_results(out: Path, frames: list[int], objects: tuple[int, ...]) -> None:
    """PNGs, JSON and video must show these frames of the clip, and agree."""
    assert sorted(path.name for path in (out / "masks").iterdir()) == [f"{t:05d}.png" for t in frames]
    records = json.loads((out / "masks.json").read_text())["frames"]
    pictures = decode(out / "overlay.mp4")
    assert [record["frame"] for record in records] == frames
    assert len(pictures) == len(frames)
    for frame, record, picture in zip(frames, records, pictures, strict=True):
        png = read_label_png(out / "masks" / f"{frame:05d}.png")
        wanted = labels_of(frame)
        if 2 not in objects:
            wanted[wanted == 2] = 0
        np.testing.assert_array_equal(png, wanted)
        assert [entry["id"] for entry in record["objects"]] == list(objects)
        for entry in record["objects"]:
            np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), png == entry["id"])
            assert entry["object_score"] == frame + 0.5
        # Within the red square, half covered with the colour of object 1.
        inside = picture[14:17, 4 * frame + 9 : 4 * frame + 12].mean((0, 1))
        red = np.array([255.0, 0.0, 20.0])
        np.testing.assert_allclose(inside, (red + PALETTE[1]) / 2, atol=8)
    assert Image.open(out / "contact_sheet.png").width > 300
