"""The prompt protocols: how an object's true mask on its first frame becomes what a user would have given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.modeling.structures import OBJECT
from i2v.prompts.sampling import centroid_pixel, point_from_error_center

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Target:
    """An object to follow: its name, and its true mask (H,W) on the frame where it is first seen."""

    obj: str
    frame: int
    mask: Mask


Protocol = Callable[[I2VVideoPredictor, InferenceState, Target], None]


def give_mask(predictor: I2VVideoPredictor, state: InferenceState, target: Target) -> None:
    """Prompt with the mask itself."""
    predictor.add_new_mask(state, target.frame, target.obj, target.mask)


def give_box(predictor: I2VVideoPredictor, state: InferenceState, target: Target) -> None:
    """Prompt with the box around all of the mask; its right and lower edges lie one pixel beyond, as published."""
    predictor.add_new_points_or_box(state, target.frame, target.obj, box=box_around(target.mask))


def give_clicks(
    predictor: I2VVideoPredictor, state: InferenceState, target: Target, count: int, replay_best: bool = False
) -> None:
    """Click the middle of the object, then ``count - 1`` times the middle of the largest error; keep the best.

    All clicks so far are given anew each time. At the end, those that reached the highest IoU are given once more; the
    mask that this yields starts from that of the last click, as published, and so need not be the one that was best.
    ``replay_best`` starts over instead and repeats the best one exactly.
    """
    points, labels = [tuple(map(float, centroid_pixel(target.mask)))], [OBJECT]
    found = _click(predictor, state, target, points, labels)
    ious = [_iou(found, target.mask)]
    while len(points) < count:
        point, label = _next_click(target.mask, found)
        points.append(point)
        labels.append(label)
        found = _click(predictor, state, target, points, labels)
        ious.append(_iou(found, target.mask))
    best = int(np.argmax(ious)) + 1
    if count > 1 and not replay_best:
        _click(predictor, state, target, points[:best], labels[:best])
    elif best < count:
        predictor.clear_all_prompts_in_frame(state, target.frame, target.obj, need_output=False)
        for num_clicks in range(1, best + 1):
            _click(predictor, state, target, points[:num_clicks], labels[:num_clicks])


def box_around(mask: Mask) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the pixels of a mask (H,W); the last two exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _click(
    predictor: I2VVideoPredictor,
    state: InferenceState,
    target: Target,
    points: list[tuple[float, ...]],
    labels: list[int],
) -> Mask:
    """Give the clicks, replacing earlier ones; the object's mask (H,W) on the frame."""
    _, objects, logits = predictor.add_new_points_or_box(state, target.frame, target.obj, points, labels)
    return (logits[objects.index(target.obj), 0] > 0).cpu().numpy()


def _next_click(gt: Mask, pred: Mask) -> tuple[tuple[float, ...], int]:
    batch = torch.from_numpy(np.stack((gt, pred)))[:, None, None]
    point, label = point_from_error_center(batch[0], batch[1], padding=True)
    return tuple(point.flatten().tolist()), int(label)


def _iou(pred: Mask, gt: Mask) -> float:
    return float(np.count_nonzero(pred & gt) / (np.count_nonzero(pred | gt) + 1e-6))


PROTOCOLS: dict[str, Protocol] = {
    "gm": give_mask,
    "bb": give_box,
    "1c": partial(give_clicks, count=1),
    "3c": partial(give_clicks, count=3),
    "5c": partial(give_clicks, count=5),
}


def protocol(name: str, replay_best: bool = False) -> Protocol:
    """A protocol by its name: gm, bb, 1c, 3c or 5c. ValueError for another name."""
    if name not in PROTOCOLS:
        raise ValueError(f"prompt: expected one of {', '.join(PROTOCOLS)}, got {name!r}")
    chosen = PROTOCOLS[name]
    return partial(chosen, replay_best=replay_best) if isinstance(chosen, partial) else chosen
