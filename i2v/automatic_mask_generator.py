"""I2VAutomaticMaskGenerator: masks of everything in an image, from a grid of clicks, as in SAM 2."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import batched_nms, box_area, masks_to_boxes

from i2v.i2v_image_predictor import I2VImagePredictor, check_image
from i2v.inference.policy import PredictorSettings
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.sam.mask_decoder import stability
from i2v.results.rle import RunLengths, encode_mask
from i2v.utils.masks import fill_holes, remove_specks, resize_logits

OutputMode = Literal["binary_mask", "coco_rle", "uncompressed_rle"]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 excluded
EDGE_TOLERANCE = 20  # pixels within which a mask touches the edge of its crop
_MASKS_AT_ONCE = 64  # that are resized to the model image, which bounds memory


@dataclass(frozen=True, eq=False)
class AutomaticMaskSettings:
    """How masks are found and filtered, under SAM 2's names.

    Defaults are for i2v-nano, whose predicted IoUs are low: under SAM 2's own (``points_per_side`` 32,
    ``pred_iou_thresh`` 0.8, ``stability_score_thresh`` 0.95, ``min_mask_region_area`` 0) it finds next to nothing.

    Attributes:
        points_per_side: Clicks along each side of the grid; ``None`` with ``point_grids``.
        points_per_batch: Clicks that the model answers at once.
        pred_iou_thresh: Least predicted IoU of a mask, 0 to 1.
        stability_score_thresh: Least stability score of a mask, 0 to 1.
        stability_score_offset: Logit offset of the stability score.
        mask_threshold: Logit above which a pixel belongs to a mask.
        box_nms_thresh: IoU of boxes above which the mask of lower quality is dropped.
        crop_n_layers: Layers of crops that are segmented as well; layer ``i`` has ``2^i`` crops along each side.
        crop_nms_thresh: As ``box_nms_thresh``, between crops; masks of smaller crops win.
        crop_overlap_ratio: Overlap of neighbouring crops of layer 1 as a fraction of the image's shorter side.
        crop_n_points_downscale_factor: The grid of layer ``i`` has this to the power ``i`` fewer clicks along a side.
        point_grids: Clicks of each layer ``(P, 2)`` in 0..1 of a crop, x first, in place of ``points_per_side``.
        min_mask_region_area: Largest hole that is filled and speck that is removed, in pixels of the image, up to the
            resolution of the model's masks; 0 removes no specks and fills what ``I2VImagePredictor`` fills.
        output_mode: Form of the masks: arrays, or COCO RLE as text or as a list of run lengths.
        use_m2m: Whether each mask goes back into the model once, with its click, to be refined.
        multimask_output: Whether each click has three masks instead of one.

    Raises:
        ValueError: If a value is out of its range.
    """

    points_per_side: int | None = 16
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.4
    stability_score_thresh: float = 0.6
    stability_score_offset: float = 1.0
    mask_threshold: float = 0.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: Sequence[NDArray[Any]] | None = None
    min_mask_region_area: int = 100
    output_mode: OutputMode = "binary_mask"
    use_m2m: bool = False
    multimask_output: bool = True

    def __post_init__(self) -> None:
        for name in ("points_per_batch", "crop_n_points_downscale_factor"):
            _check_whole(name, getattr(self, name), 1)
        for name in ("crop_n_layers", "min_mask_region_area"):
            _check_whole(name, getattr(self, name), 0)
        if (self.points_per_side is None) == (self.point_grids is None):
            raise ValueError("expected either points_per_side or point_grids, got " + self._grid_source())
        if self.points_per_side is not None:
            _check_whole("points_per_side", self.points_per_side, 1)
        if self.point_grids is not None:
            object.__setattr__(self, "point_grids", _checked_grids(self.point_grids, self.crop_n_layers + 1))
        for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh", "crop_nms_thresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.crop_overlap_ratio < 1:
            raise ValueError(f"crop_overlap_ratio: expected a number from 0 to below 1, got {self.crop_overlap_ratio}")
        if self.output_mode not in ("binary_mask", "coco_rle", "uncompressed_rle"):
            raise ValueError(
                f"output_mode: expected binary_mask, coco_rle or uncompressed_rle, got {self.output_mode!r}"
            )

    def _grid_source(self) -> str:
        return "neither" if self.points_per_side is None else "both: for grids of your own, set points_per_side=None"

    def grid(self, layer: int) -> NDArray[np.float64]:
        """Clicks ``(P, 2)`` of a layer's crops in 0..1: by default in the middle of the cells of a grid."""
        if self.point_grids is not None:
            return np.asarray(self.point_grids[layer])
        assert self.points_per_side is not None
        per_side = max(1, self.points_per_side // self.crop_n_points_downscale_factor**layer)
        axis = (np.arange(per_side) + 0.5) / per_side
        x, y = np.meshgrid(axis, axis)
        return np.stack((x.ravel(), y.ravel()), axis=1)


@dataclass(frozen=True, eq=False)
class _Found:
    """Masks that were found in crops, at the model's own resolution: full size would take gigabytes.

    Attributes:
        low_res: ``(N, 4h, 4w)`` logits on the crop.
        boxes: ``(N, 4)`` float32, x0, y0, x1, y1 in pixels of the image.
        ious: ``(N,)`` predicted IoUs.
        stabilities: ``(N,)`` stability scores.
        points: ``(N, 2)`` the clicks in pixels of the image, x first.
        crops: ``(N, 4)`` int64, the crop in which each was found.
    """

    low_res: Tensor
    boxes: Tensor
    ious: Tensor
    stabilities: Tensor
    points: Tensor
    crops: Tensor

    def __getitem__(self, index: Tensor) -> _Found:
        return _Found(*(getattr(self, field.name)[index] for field in fields(self)))

    @staticmethod
    def join(parts: list[_Found]) -> _Found:
        return _Found(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(_Found)))


class I2VAutomaticMaskGenerator:
    """Finds masks of all objects in an image: clicks on a grid, filters by quality, removal of duplicates.

    Attributes:
        predictor: Answers the clicks.
        settings: How masks are found and filtered.
    """

    def __init__(
        self,
        model: I2VModel | I2VImagePredictor,
        settings: AutomaticMaskSettings | None = None,
        **changes: Any,
    ) -> None:
        """Create a generator.

        Args:
            model: The network, as ``i2v.build_i2v.build_i2v`` returns it, or a predictor of it. The generator sets and
                resets the predictor's image.
            settings: How masks are found and filtered.
            **changes: Fields of ``AutomaticMaskSettings`` that differ, under SAM 2's names.

        Raises:
            ValueError: If a setting is out of its range.
            TypeError: If there is no such setting, or the model is neither.
        """
        if settings is not None and not isinstance(settings, AutomaticMaskSettings):
            raise TypeError(f"settings: expected AutomaticMaskSettings, or settings by name, got {settings!r}")
        known = {field.name for field in fields(AutomaticMaskSettings)}
        if unknown := sorted(set(changes) - known):
            raise TypeError(f"expected settings among {', '.join(sorted(known))}, got {', '.join(unknown)}")
        self.settings = replace(settings or AutomaticMaskSettings(), **changes)
        self.predictor = model if isinstance(model, I2VImagePredictor) else I2VImagePredictor(model)

    @classmethod
    def from_pretrained(cls, model_id: str | os.PathLike[str], **options: Any) -> I2VAutomaticMaskGenerator:
        """Build a generator from a model's name.

        Args:
            model_id: See ``i2v.pretrained.find_pretrained``.
            **options: Fields of ``AutomaticMaskSettings``; all others are those of
                ``I2VImagePredictor.from_pretrained``.

        Raises:
            FileNotFoundError: If there is no such model.
            ValueError: If the name or an option is malformed, or the weights do not fit.
        """
        own = {field.name for field in fields(AutomaticMaskSettings)}
        changes = {name: options.pop(name) for name in own & set(options)}
        settings = AutomaticMaskSettings(**changes)  # fail before the model is loaded
        return cls(I2VImagePredictor.from_pretrained(model_id, **options), settings)

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Find masks of everything in an image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.

        Returns:
            One dictionary for each mask, the best first, with SAM 2's keys: ``segmentation`` (``(H, W)`` bool, or RLE),
            ``area`` in pixels, ``bbox`` and ``crop_box`` as x, y, width, height, ``predicted_iou``,
            ``stability_score`` and ``point_coords`` (``[[x, y]]``).

        Raises:
            ValueError: If the image is not such an array.
        """
        pixels = check_image(image, "image")
        try:
            parts = [
                self._in_crop(pixels, crop, layer) for crop, layer in self._crops(pixels.shape[0], pixels.shape[1])
            ]
        finally:
            self.predictor.reset_predictor()
        found = _Found.join(parts)
        if len(parts) > 1:
            # Small crops see more detail, so their masks win over those of larger ones.
            found = found[_nms(found.boxes, 1 / box_area(found.crops.float()), self.settings.crop_nms_thresh)]
        best_first = found.ious.argsort(descending=True, stable=True).tolist()
        records = (self._record(found, number, (pixels.shape[0], pixels.shape[1])) for number in best_first)
        return [record for record in records if record["area"]]

    def _crops(self, height: int, width: int) -> Iterator[tuple[Box, int]]:
        """The whole image, then the overlapping crops of each layer, each with its layer."""
        yield (0, 0, width, height), 0
        for layer in range(1, self.settings.crop_n_layers + 1):
            per_side = 2**layer
            if per_side > min(height, width):
                raise ValueError(f"crop_n_layers: an image of {width}x{height} has no {per_side} crops along a side")
            overlap = int(self.settings.crop_overlap_ratio * min(height, width) * 2 / per_side)
            # Crops of one size cover the side together: n * size - (n - 1) * overlap >= side.
            crop_w, crop_h = (-(-(side + (per_side - 1) * overlap) // per_side) for side in (width, height))
            for row in range(per_side):
                for column in range(per_side):
                    x, y = column * (crop_w - overlap), row * (crop_h - overlap)
                    yield (x, y, min(x + crop_w, width), min(y + crop_h, height)), layer

    def _in_crop(self, image: NDArray[np.uint8], crop: Box, layer: int) -> _Found:
        x0, y0, x1, y1 = crop
        self.predictor.set_image(np.ascontiguousarray(image[y0:y1, x0:x1]))
        points = self.settings.grid(layer) * np.array([x1 - x0, y1 - y0])
        step = self.settings.points_per_batch
        batches = (points[first : first + step] for first in range(0, len(points), step))
        found = _Found.join([self._answer(batch, crop, image.shape[:2]) for batch in batches])
        return found[_nms(found.boxes, found.ious, self.settings.box_nms_thresh)]

    @torch.inference_mode()
    def _answer(self, points: NDArray[np.float64], crop: Box, image_size: tuple[int, ...]) -> _Found:
        """Masks of a batch of clicks in a crop that pass the filters."""
        settings = self.settings
        low_res, ious = self.predictor.predict_low_res(
            points[:, None], np.ones((len(points), 1), np.int32), multimask_output=settings.multimask_output
        )
        clicks = torch.from_numpy(points).to(low_res).repeat_interleave(ious.shape[1], dim=0)
        masks, quality = low_res.flatten(0, 1), ious.flatten()
        if settings.use_m2m:
            masks, quality = self._refined(masks, clicks)
        good = quality >= settings.pred_iou_thresh
        masks, quality, clicks = self._cleaned(masks[good], crop), quality[good], clicks[good]
        stabilities = stability(masks - settings.mask_threshold, settings.stability_score_offset)
        good = (stabilities >= settings.stability_score_thresh) & (masks > settings.mask_threshold).flatten(1).any(1)
        masks, quality, stabilities, clicks = masks[good], quality[good], stabilities[good], clicks[good]
        boxes = self._boxes(masks, crop)
        inside = ~_is_cut(boxes, crop, image_size)
        origin = torch.tensor(crop[:2]).to(clicks)
        crops = torch.tensor([crop], device=boxes.device).expand(len(masks), 4)
        return _Found(masks, boxes, quality, stabilities, clicks + origin, crops)[inside]

    def _refined(self, low_res: Tensor, clicks: Tensor) -> tuple[Tensor, Tensor]:
        """Answers to the same clicks with the earlier masks ``(N, 4h, 4w)`` as input, in batches of as many clicks."""
        step = self.settings.points_per_batch
        answers = [
            self.predictor.predict_low_res(
                clicks[first : first + step, None],
                np.ones((len(clicks[first : first + step]), 1), np.int32),
                mask_input=low_res[first : first + step, None],
                multimask_output=False,
            )
            for first in range(0, len(clicks), step)
        ]
        masks, ious = (torch.cat(column) for column in zip(*answers, strict=True))
        return masks[:, 0], ious[:, 0]

    def _cleaned(self, low_res: Tensor, crop: Box) -> Tensor:
        """Logits ``(N, 4h, 4w)`` without small holes and specks."""
        width, height = crop[2] - crop[0], crop[3] - crop[1]
        cells = round(self.settings.min_mask_region_area * low_res.shape[-2] * low_res.shape[-1] / (width * height))
        filled = fill_holes(low_res[:, None], max(cells, PredictorSettings.fill_hole_area))
        return remove_specks(filled, cells)[:, 0]

    def _boxes(self, low_res: Tensor, crop: Box) -> Tensor:
        """Boxes ``(N, 4)`` in the image, x1 and y1 excluded, as exact as the model image."""
        side = self.predictor.model.image_size
        x0, y0, x1, y1 = crop
        scale = low_res.new_tensor([x1 - x0, y1 - y0, x1 - x0, y1 - y0]) / side
        parts = [low_res.new_zeros(0, 4)]
        for masks in low_res.split(_MASKS_AT_ONCE):
            large = resize_logits(masks[:, None], (side, side))[:, 0] > self.settings.mask_threshold
            some = large.flatten(1).any(dim=1)  # resizing can leave nothing of a tiny mask
            boxes = low_res.new_zeros(len(large), 4)
            boxes[some] = masks_to_boxes(large[some]).to(boxes) + boxes.new_tensor([0, 0, 1, 1])
            parts.append(boxes)
        return torch.cat(parts) * scale + scale.new_tensor([x0, y0, x0, y0])

    def _record(self, found: _Found, number: int, size: tuple[int, int]) -> dict[str, Any]:
        x0, y0, x1, y1 = found.crops[number].tolist()
        logits = resize_logits(found.low_res[number][None, None], (y1 - y0, x1 - x0))[0, 0]
        mask = np.zeros(size, bool)
        mask[y0:y1, x0:x1] = (logits > self.settings.mask_threshold).cpu().numpy()
        rle = {"size": list(size), "counts": encode_mask(mask)}
        return {
            "segmentation": self._encoded(mask, rle),
            "area": int(coco_mask.area(rle)),
            "bbox": [int(value) for value in coco_mask.toBbox(rle)],
            "predicted_iou": float(found.ious[number]),
            "point_coords": [found.points[number].tolist()],
            "stability_score": float(found.stabilities[number]),
            "crop_box": [x0, y0, x1 - x0, y1 - y0],
        }

    def _encoded(self, mask: NDArray[np.bool_], rle: dict[str, Any]) -> Any:
        if self.settings.output_mode == "binary_mask":
            return mask
        size = rle["size"]
        if self.settings.output_mode == "coco_rle":
            return {"size": size, "counts": rle["counts"].decode("ascii")}
        return {"size": size, "counts": RunLengths.of_counts(rle["counts"], (size[0], size[1])).runs.tolist()}


def _is_cut(boxes: Tensor, crop: Box, image_size: tuple[int, ...]) -> Tensor:
    """Whether boxes ``(N, 4)`` reach an edge of the crop that is not one of the image: it cuts their objects off."""
    edges = boxes.new_tensor(crop)
    inside = edges != boxes.new_tensor([0, 0, image_size[1], image_size[0]])
    return (((boxes - edges).abs() <= EDGE_TOLERANCE) & inside).any(dim=1)


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    one_class = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return batched_nms(boxes.float(), scores, one_class, threshold)


def _check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected a whole number from {least} up, got {value!r}")


def _checked_grids(grids: Sequence[Any], num_layers: int) -> tuple[NDArray[np.float64], ...]:
    if len(grids) != num_layers:
        raise ValueError(f"point_grids: expected a grid for each of {num_layers} layers, got {len(grids)}")
    arrays = tuple(np.asarray(grid, dtype=np.float64) for grid in grids)
    for layer, array in enumerate(arrays):
        if array.ndim != 2 or array.shape[1] != 2 or not len(array) or not ((array >= 0) & (array <= 1)).all():
            raise ValueError(f"point_grids: layer {layer}: expected points (P, 2) in 0..1, got shape {array.shape}")
    return arrays
