"""The prompt protocols: turn an object's ground truth on its first frame into a mask, a box or clicks."""

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
    """An object to track.

    Attributes:
        obj: Name of the object.
        frame: First frame with the object.
        mask: Ground truth ``(H, W)`` bool on that frame.
    """

    obj: str
    frame: int
    mask: Mask


Protocol = Callable[[I2VVideoPredictor, InferenceState, Target], None]


def give_mask(predictor: I2VVideoPredictor, state: InferenceState, target: Target) -> None:
    """Prompt with the mask itself."""
    predictor.add_new_mask(state, target.frame, target.obj, target.mask)


def give_box(predictor: I2VVideoPredictor, state: InferenceState, target: Target) -> None:
    """Prompt with the bounding box of the mask; its right and lower edges are exclusive, as in the published script."""
    predictor.add_new_points_or_box(state, target.frame, target.obj, box=box_around(target.mask))


def give_clicks(
    predictor: I2VVideoPredictor, state: InferenceState, target: Target, count: int, replay_best: bool = False
) -> None:
    """Click the center of the object, then repeatedly the center of the largest error, and keep the best clicks.

    All clicks so far are passed again with every new one. At the end, the clicks that reached the highest IoU are
    passed once more. As in the published script, their mask is then predicted with the mask of the last click as prior,
    so it may differ from the best one.

    Args:
        predictor: The predictor.
        state: Its session.
        target: The object.
        count: Number of clicks.
        replay_best: Whether to start over instead, and repeat the best clicks exactly.
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
    """Bounding box x0, y0, x1, y1 of a mask ``(H, W)`` in pixels; x1 and y1 are exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _click(
    predictor: I2VVideoPredictor,
    state: InferenceState,
    target: Target,
    points: list[tuple[float, ...]],
    labels: list[int],
) -> Mask:
    """Replace the clicks of an object. Returns its mask ``(H, W)`` on the frame."""
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
    """Look up a protocol.

    Args:
        name: gm (mask), bb (box), 1c, 3c or 5c (clicks).
        replay_best: As in :func:`give_clicks`; ignored by the other protocols.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"prompt: expected one of {', '.join(PROTOCOLS)}, got {name!r}")
    chosen = PROTOCOLS[name]
    return partial(chosen, replay_best=replay_best) if isinstance(chosen, partial) else chosen
