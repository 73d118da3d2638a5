"""Answers to prompts on a frame without memory, as ``I2VModel.segment`` and ``CropRefiner`` give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from i2v.inference.crop_box import OUTSIDE_LOGIT, CropBox
from i2v.modeling.constants import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    MASK_PROMPT_BIAS,
    MASK_PROMPT_SCALE,
    PADDING,
    PRIOR_LIMIT,
)
from i2v.onnx_runtime.frame_encoder import to_model_pixels
from i2v.onnx_runtime.mask_arrays import Floats, fill_holes, resize
from i2v.onnx_runtime.network import DecoderPrompts, FrameFeatures, OnnxNetwork, Predictions


@dataclass(frozen=True, eq=False)
class PointPrompt:
    """Points on one object, box corners among them.

    Attributes:
        points: ``(P, 2)``, x first, in pixels of the model image.
        labels: ``(P,)`` point labels.
        prior: Logits ``(4h, 4w)`` of an earlier mask that the points correct.
    """

    points: Floats
    labels: NDArray[np.int32]
    prior: Floats | None = None

    def mirrored(self, image_size: int) -> PointPrompt:
        """Return the prompt for the mirror image."""
        points = np.stack((image_size - self.points[:, 0], self.points[:, 1]), axis=1).astype(np.float32)
        # The left corner of a box becomes its right one.
        left, right = self.labels == BOX_TOP_LEFT, self.labels == BOX_BOTTOM_RIGHT
        points[left, 0], points[right, 0] = points[right, 0], points[left, 0]
        return PointPrompt(points, self.labels, None if self.prior is None else self.prior[:, ::-1])


class Crop(CropBox):
    """A crop for the model in ONNX."""

    def prompt(self, prompt: PointPrompt, image_size: int) -> PointPrompt:
        """Return a prompt as one for the crop, which fills the model image."""
        corner = np.array((self.left, self.top), np.float32) * np.float32(image_size / self.grid)
        points = (prompt.points - corner) * np.float32(self.grid / self.side)
        prior = None if prompt.prior is None else resize(self.of(prompt.prior), prompt.prior.shape)
        return PointPrompt(points, prompt.labels, prior)

    def paste(self, logits: Floats) -> Floats:
        """Return logits ``(grid, grid)`` of the crop as logits of the frame, of the same shape."""
        frame = np.full_like(logits, OUTSIDE_LOGIT)
        self.of(frame)[:] = resize(logits, (self.side, self.side), antialias=True)
        return frame


class PromptAnswerer:
    """Answers prompts for one object at a time."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network
        self._sizes, self._rules = network.description.sizes, network.description.prompts
        constants, side = network.description.constants, self._sizes.image_size // 4
        self._no_memory = np.array(constants.no_memory, np.float32)[:, None, None]
        self._no_object_pointer = np.array(constants.no_object_pointer, np.float32)[None]
        prompt = np.array(constants.no_memory_prompt, np.float32)
        self._memory_prompts = np.tile(prompt, (1, self._sizes.num_queries, 1))
        self._mask_kernel = np.array(constants.mask_kernel, np.float32).reshape(4, 4)
        self._mask_bias = np.float32(constants.mask_bias)
        self._no_prior = np.zeros((side, side), np.float32)

    def points(
        self,
        picture: NDArray[np.uint8],
        features: FrameFeatures,
        prompt: PointPrompt,
        on_first_answer: Callable[[Predictions], None] | None = None,
    ) -> Predictions:
        """Answer points on a frame.

        Args:
            picture: The frame ``(H, W, 3)`` RGB.
            features: Its features.
            prompt: The points. A prior is clamped as everywhere.
            on_first_answer: Called with the mask before it is refined, if the model refines prompts.

        Returns:
            The mask of one object, with small holes filled.
        """
        if prompt.prior is not None:
            prompt = replace(prompt, prior=prompt.prior.clip(-PRIOR_LIMIT, PRIOR_LIMIT))
        answer = self._segment(features, prompt)
        if self._rules.refine and on_first_answer is not None:
            on_first_answer(self._filled(answer))
        if self._rules.refine and answer.object_score.item() > 0:
            answer = self._refine(picture, prompt, answer)
        return self._filled(answer)

    def mask(self, features: FrameFeatures, mask: Floats) -> Predictions:
        """Answer a mask ``(S, S)`` of zeros and ones on a frame: the mask itself, with small holes filled."""
        side = self._sizes.image_size // 4
        cells = mask.reshape(side, 4, side, 4)
        prior = np.einsum("iajb,ab->ij", cells, self._mask_kernel) + self._mask_bias
        nothing = PointPrompt(np.zeros((1, 2), np.float32), np.array([PADDING], np.int32), prior)
        decoded = self._decode(features.vision, features, nothing, multimask=False)
        present = bool(mask.any())
        logits = np.float32(MASK_PROMPT_SCALE) * mask + np.float32(MASK_PROMPT_BIAS)
        return self._filled(
            Predictions(
                low_res=resize(logits, (side, side), antialias=True)[None, None],
                iou=np.ones((1, 1), np.float32),
                # An empty mask says that the object is out of view, whatever score the decoder gives it.
                pointer=decoded.pointer if present else self._no_object_pointer,
                object_score=np.array([[MASK_PROMPT_SCALE * present + MASK_PROMPT_BIAS]], np.float32),
            )
        )

    def _segment(self, features: FrameFeatures, prompt: PointPrompt) -> Predictions:
        multimask = self._rules.multimask and (
            self._rules.multimask_min_points <= len(prompt.points) <= self._rules.multimask_max_points
        )
        return self._decode(features.vision + self._no_memory, features, prompt, multimask)

    def _decode(self, image: Floats, features: FrameFeatures, prompt: PointPrompt, multimask: bool) -> Predictions:
        prompts = DecoderPrompts(
            points=prompt.points[None],
            labels=prompt.labels[None].astype(np.int64),
            prior=np.ascontiguousarray(self._no_prior if prompt.prior is None else prompt.prior)[None, None],
            has_prior=np.array([prompt.prior is not None]),
            multimask=np.array([multimask]),
        )
        return self._network.decode(image, self._memory_prompts, prompts, features.high_res)

    def _filled(self, answer: Predictions) -> Predictions:
        return replace(answer, low_res=fill_holes(answer.low_res, self._rules.fill_hole_area))

    def _refine(self, picture: NDArray[np.uint8], prompt: PointPrompt, answer: Predictions) -> Predictions:
        """Average with the answers on the mirrored frame, and on a crop around both and its mirror image."""
        whole = Crop.whole(self._sizes.image_size)
        answers = [answer.low_res[0, 0], *self._answers(picture, whole, prompt, (True,))]
        crop = self._crop(prompt, np.stack(answers).mean(axis=0) > 0)
        if crop is not None:
            answers += self._answers(picture, crop, prompt, (False, True))
        return replace(answer, low_res=np.stack(answers).mean(axis=0)[None, None])

    def _answers(
        self, picture: NDArray[np.uint8], crop: Crop, prompt: PointPrompt, mirrored: tuple[bool, ...]
    ) -> Iterator[Floats]:
        """Logits ``(4h, 4w)`` from a crop as it is or mirrored, where the object is found at all."""
        size = self._sizes.image_size
        pixels = to_model_pixels(picture, size, crop.pixels(picture.shape[1], picture.shape[0]))
        closer = crop.prompt(prompt, size)
        for mirror in mirrored:
            seen = np.ascontiguousarray(pixels[..., ::-1]) if mirror else pixels
            # With itself for the frames before it, as a video begins.
            features = self._network.encode(seen, [self._network.stem(seen)] * self._sizes.window_length)
            found = self._segment(features, closer.mirrored(size) if mirror else closer)
            if found.object_score.item() > 0:
                logits = found.low_res[0, 0]
                yield crop.paste(logits[:, ::-1] if mirror else logits)

    def _crop(self, prompt: PointPrompt, mask: NDArray[np.bool_]) -> Crop | None:
        """Return the crop with a mask ``(4h, 4w)`` and all points, or ``None`` if there is nothing to gain."""
        if not mask.any():
            return None
        grid = mask.shape[0]
        points = prompt.points[prompt.labels != PADDING] * np.float32(grid / self._sizes.image_size)
        cells = np.argwhere(mask)[:, ::-1].astype(np.float32)  # columns and rows
        low = np.concatenate((points, cells)).min(axis=0)
        high = np.concatenate((points, cells + 1)).max(axis=0)
        return Crop.around(low, high, grid)
