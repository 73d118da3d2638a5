"""CropRefiner: answers a prompt again on the mirrored frame and on a crop, and averages the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.inference.crop_box import OUTSIDE_LOGIT, CropBox
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.structures import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    PADDING,
    FrameFeatures,
    FramePrediction,
    MaskSettings,
    Prompt,
)
from i2v.utils.masks import resize_logits
from i2v.video.frame_loader import normalize, to_model_size


class Crop(CropBox):
    """A crop for the model in PyTorch."""

    def prompt(self, prompt: Prompt, image_size: int) -> Prompt:
        """Return a prompt of points as one for the crop, which fills the model image."""
        assert prompt.points is not None
        cell = image_size / self.grid
        corner = prompt.points.new_tensor((self.left, self.top)) * cell
        prior = prompt.prior
        if prior is not None:
            prior = F.interpolate(self.of(prior), prior.shape[-2:], mode="bilinear", align_corners=False)
        return replace(prompt, points=(prompt.points - corner) * (self.grid / self.side), prior=prior)

    def paste(self, logits: Tensor) -> Tensor:
        """Return logits ``(1, 1, grid, grid)`` of the crop as logits of the frame, of the same shape."""
        small = F.interpolate(logits, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)
        frame = torch.full_like(logits, OUTSIDE_LOGIT)
        self.of(frame).copy_(small)
        return frame


class CropRefiner:
    """Answers a prompt again, on the mirrored frame and on a crop around the first answers, and averages the logits.

    Small objects gain most: in the model image they have few pixels, in the crop as many as the video has. Only frames
    without memory can be refined, because memories know whole frames as they are.
    """

    def __init__(self, model: I2VModel, masks: MaskSettings) -> None:
        self._model = model
        self._masks = masks

    def mirrored_features(self, picture: np.ndarray) -> FrameFeatures:
        """Features of the mirrored frame ``(H, W, 3)`` uint8, which all prompts on it share."""
        return self._encode(picture, Crop.whole(self._model.image_size), (True,))

    def refine(
        self,
        picture: np.ndarray,
        prompt: Prompt,
        prediction: FramePrediction,
        mirrored: Callable[[], FrameFeatures],
    ) -> FramePrediction:
        """Refine the prediction for one object.

        Args:
            picture: The frame ``(H, W, 3)`` uint8.
            prompt: Points, or a box as points.
            prediction: The answer from the whole frame.
            mirrored: Gives ``mirrored_features`` of the frame.

        Returns:
            The prediction with another chosen mask; the same prediction if the object is absent.
        """
        if float(prediction.object_score) <= 0:
            return prediction
        answers = [prediction.low_res, *self._answers(mirrored(), Crop.whole(self._model.image_size), prompt, (True,))]
        crop = self._crop(prompt, torch.cat(answers).mean(dim=(0, 1)) > 0)
        if crop is not None:
            both = (False, True)
            answers += self._answers(self._encode(picture, crop, both), crop, prompt, both)
        return self._with_mask(prediction, torch.cat(answers).mean(dim=0, keepdim=True))

    def _answers(self, features: FrameFeatures, crop: Crop, prompt: Prompt, mirrored: tuple[bool, ...]) -> list[Tensor]:
        """Low-res logits ``(1, 1, 4h, 4w)`` from a crop as it is or mirrored, where the object is found at all."""
        model = self._model
        context = model.condition(features, None)
        closer = crop.prompt(prompt, model.image_size)
        prompts = [_mirror_image(closer, model.image_size) if mirror else closer for mirror in mirrored]
        found = model.segment(context, Prompt.batch(prompts), self._masks).split()
        return [
            crop.paste(answer.low_res.flip(-1) if mirror else answer.low_res)
            for mirror, answer in zip(mirrored, found, strict=True)
            if float(answer.object_score) > 0
        ]

    def _crop(self, prompt: Prompt, mask: Tensor) -> Crop | None:
        """Return the crop with a mask ``(4h, 4w)`` and all points, or ``None`` if there is nothing to gain."""
        assert prompt.points is not None and prompt.labels is not None
        if not mask.any():
            return None
        grid = mask.shape[-1]
        points = prompt.points[0][prompt.labels[0] != PADDING] * (grid / self._model.image_size)
        cells = mask.nonzero().flip(1).to(points)  # columns and rows
        low = torch.cat((points, cells)).amin(dim=0)
        high = torch.cat((points, cells + 1)).amax(dim=0)
        return Crop.around(low, high, grid)

    def _encode(self, picture: np.ndarray, crop: Crop, mirrored: tuple[bool, ...]) -> FrameFeatures:
        """Encode a crop, each time with itself for the frames before it, as a video begins."""
        model = self._model
        height, width = picture.shape[:2]
        pixels = to_model_size(picture, model.image_size, crop.pixels(width, height))
        frame = normalize(pixels.to(model.device))[None]
        frames = torch.cat([frame.flip(-1) if mirror else frame for mirror in mirrored])
        return model.encode_frames(frames, [model.stem_features(frames)] * model.window_length)

    def _with_mask(self, prediction: FramePrediction, low_res: Tensor) -> FramePrediction:
        """Return a prediction with other logits for its chosen mask."""
        side = self._model.image_size
        is_chosen = torch.arange(prediction.ious.shape[1], device=low_res.device) == prediction.ious.argmax(dim=1)
        candidates = torch.where(is_chosen[:, None, None], low_res, prediction.candidates)
        return replace(
            prediction, candidates=candidates, low_res=low_res, high_res=resize_logits(low_res, (side, side))
        )


def _mirror_image(prompt: Prompt, image_size: int) -> Prompt:
    """Return a prompt of points as one for the mirror image."""
    assert prompt.points is not None and prompt.labels is not None
    x, y = prompt.points.unbind(dim=-1)
    x = image_size - x
    # The left corner of a box becomes its right one.
    left, right = prompt.labels == BOX_TOP_LEFT, prompt.labels == BOX_BOTTOM_RIGHT
    x = x.masked_scatter(left, x[right]).masked_scatter(right, x[left])
    prior = None if prompt.prior is None else prompt.prior.flip(-1)
    return replace(prompt, points=torch.stack((x, y), dim=-1), prior=prior)
