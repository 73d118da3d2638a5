"""Objects in single images."""

from __future__ import annotations

import hashlib

from i2v.annotator.turns import ModelTurns, Urgency
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.rle import Mask
from i2v.serve.limits import Limits
from i2v.serve.masks import arguments_of
from i2v.serve.pictures import Picture
from i2v.serve.schemas import Marks


class ImageSegmenter:
    """Segments objects in images. The latest image stays encoded, as clicks on one come in a row."""

    def __init__(self, predictor: I2VImagePredictor, turns: ModelTurns, limits: Limits) -> None:
        """Create without an image.

        Args:
            predictor: The predictor, for this alone.
            turns: Access to the model's thread.
            limits: The service's limits.
        """
        self._predictor, self._turns, self._limits = predictor, turns, limits
        self._encoded = b""

    async def segment(self, picture: Picture, marks: Marks) -> tuple[Mask, float]:
        """Segment an object.

        Args:
            picture: ``(H, W, 3)`` uint8 RGB.
            marks: Points, a box, or both.

        Returns:
            The mask ``(H, W)`` and its predicted IoU.

        Raises:
            HTTPException: If memory is short.
            ValueError: If the prompt is malformed or off the image.
        """
        return await self._turns.run(Urgency.ANSWER, self._segment, picture, marks)

    def _segment(self, picture: Picture, marks: Marks) -> tuple[Mask, float]:
        self._limits.check_memory()
        digest = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).digest()
        if digest != self._encoded:
            self._encoded = b""
            self._predictor.set_image(picture)
            self._encoded = digest
        given = arguments_of(marks)
        logits, iou = self._predictor.predict_object(given["points"], given["labels"], given["box"])
        return logits > 0, iou


def image_predictor_of(predictor: I2VVideoPredictor) -> I2VImagePredictor:
    """Create a predictor for images that shares the network of one for videos, and answers as it does."""
    settings = predictor.settings
    return I2VImagePredictor(
        predictor.model,
        max_hole_area=float(settings.fill_hole_area),
        dtype=predictor.dtype,
        mask_settings=predictor.policy.masks,
        refine_prompts=settings.refine_prompts,
    )
