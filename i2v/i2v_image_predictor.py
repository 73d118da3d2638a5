"""I2VImagePredictor: segments objects in single images, with the methods and shapes of SAM 2's image predictor."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from i2v.inference.crop_refinement import CropRefiner
from i2v.inference.inference_state import InferenceState
from i2v.inference.module_methods import ModuleMethods
from i2v.inference.policy import PredictorSettings
from i2v.inference.precision import Precision, default_dtype
from i2v.modeling.constants import PRIOR_LIMIT
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.structures import PADDING, FrameFeatures, FramePrediction, MaskSettings, Prompt
from i2v.prompts.image_prompts import read_prompts
from i2v.utils.masks import fill_holes, remove_specks, resize_logits
from i2v.utils.tensors import without_tensors
from i2v.video.frame_source import FrameArray, picture_to_rgb

Masks = tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]
"""Masks ``(K, H, W)``, predicted IoUs ``(K,)`` and low-res logits ``(K, 4h, 4w)``; a batch adds an axis in front."""


ObjectMask = tuple[NDArray[np.float32], float]
"""Logits ``(H, W)`` of one object and their predicted IoU."""


@dataclass(frozen=True, eq=False)
class _EncodedImage:
    """An image that was set.

    Attributes:
        features: Its features.
        picture: ``(H, W, 3)`` uint8 RGB.
    """

    features: FrameFeatures
    picture: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.picture.shape[0], self.picture.shape[1]


class I2VImagePredictor(ModuleMethods):
    """Segments objects in images from points, boxes or the masks of an earlier prediction.

    ``set_image`` encodes an image once; ``predict`` then answers any number of prompts on it. A prompt has the same
    mask as on the first frame of a video: the model sees a single image as a video that stands still.

    Attributes:
        mask_threshold: Logit above which a pixel belongs to the mask.
        max_hole_area: Largest hole that is filled, in cells of the low-res mask; 0 fills none.
        max_sprinkle_area: Largest speck that is removed, in cells of the low-res mask; 0 removes none.
    """

    def __init__(
        self,
        model: I2VModel,
        mask_threshold: float = 0.0,
        max_hole_area: float = float(PredictorSettings.fill_hole_area),
        max_sprinkle_area: float = 0.0,
        dtype: torch.dtype | None = None,
        mask_settings: MaskSettings | None = None,
        refine_prompts: bool = PredictorSettings.refine_prompts,
    ) -> None:
        """Create a predictor without an image.

        Args:
            model: The network, as ``i2v.build_i2v.build_i2v`` returns it.
            mask_threshold: Logit above which a pixel belongs to the mask.
            max_hole_area: Largest hole to fill; by default that of ``I2VVideoPredictor``.
            max_sprinkle_area: Largest speck to remove.
            dtype: Precision of the computation, by default bfloat16 on CUDA and float32 elsewhere.
            mask_settings: When a single mask counts as unstable; by default as in ``I2VVideoPredictor``.
            refine_prompts: Whether ``predict`` answers points and boxes again on a crop, see ``PredictorSettings``.
                Builders take it from the config: i2v-nano does.

        Raises:
            TypeError: If ``model`` is not a network.
            ValueError: If an area is negative or not finite.
        """
        if not isinstance(model, I2VModel):
            raise TypeError(f"model: expected an I2VModel, as build_i2v returns it, got a {type(model).__name__}")
        for name, area in (("max_hole_area", max_hole_area), ("max_sprinkle_area", max_sprinkle_area)):
            if not 0 <= area < math.inf:
                raise ValueError(f"{name}: expected a number from 0 up, got {area}")
        super().__init__(model, Precision(dtype or default_dtype(model.device)))
        self.mask_threshold = mask_threshold
        self.max_hole_area = max_hole_area
        self.max_sprinkle_area = max_sprinkle_area
        # SAM 2's argument chooses between one mask and several, whatever the prompt is.
        settings = mask_settings or MaskSettings()
        self._several = replace(
            settings, multimask_output_in_sam=True, multimask_min_pt_num=0, multimask_max_pt_num=sys.maxsize
        )
        self._single = replace(settings, multimask_output_in_sam=False)
        self._refine_prompts = refine_prompts
        self._images: tuple[_EncodedImage, ...] = ()
        self._mirrored: dict[_EncodedImage, FrameFeatures] = {}  # of the images that had a prompt to refine

    @classmethod
    def from_pretrained(cls, model_id: str | os.PathLike[str], **options: Any) -> I2VImagePredictor:
        """Build a predictor for images from a model's name.

        Args:
            model_id: See ``i2v.pretrained.find_pretrained``.
            **options: Arguments of ``i2v.build_i2v.build_i2v_image_predictor``, and where a model of the Hugging Face
                hub is looked for: ``revision``, ``cache_dir``, ``token``, ``local_files_only``.

        Raises:
            FileNotFoundError: If there is no such model.
            ValueError: If the name or an option is malformed, or the weights do not fit.
        """
        # Imported here because builders import predictors.
        from i2v.build_i2v import build_i2v_image_predictor_hf

        return build_i2v_image_predictor_hf(model_id, **options)

    def set_image(self, image: NDArray[np.uint8] | Image.Image) -> None:
        """Encode an image, which replaces the one before.

        Args:
            image: ``(H, W, 3)`` uint8 RGB, or a Pillow image.

        Raises:
            ValueError: If it is neither.
        """
        self.set_image_batch([image])

    @torch.inference_mode()
    def set_image_batch(self, image_list: Sequence[NDArray[np.uint8] | Image.Image]) -> None:
        """Encode several images, of any sizes, for ``predict_batch``.

        Args:
            image_list: Images as in ``set_image``.

        Raises:
            TypeError: If it is not a list.
            ValueError: If the list is empty or one of them is not an image; the images before stay set.
        """
        if not isinstance(image_list, Sequence | np.ndarray):
            raise TypeError(f"image_list: expected a list of images, got a {type(image_list).__name__}")
        if not len(image_list):
            raise ValueError("image_list: expected at least one image, got none")
        self._images = tuple(self._encode(image, f"image {number}") for number, image in enumerate(image_list))
        self._mirrored.clear()

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Masks:
        """Segment an object in the image, or one for each of ``B`` prompts.

        Args:
            point_coords: ``(P, 2)`` or ``(B, P, 2)``, x first, in pixels, or in 0..1 with ``normalize_coords=False``.
            point_labels: ``(P,)`` or ``(B, P)``: 1 on the object, 0 on the background.
            box: ``(4,)`` or ``(B, 4)`` as x0, y0, x1, y1, in the unit of the points.
            mask_input: ``(1, 4h, 4w)`` or ``(B, 1, 4h, 4w)`` low-res logits of an earlier prediction.
            multimask_output: Whether to return three masks for each prompt, for ambiguous ones such as a single click.
            return_logits: Whether to return logits instead of bool masks.
            normalize_coords: Whether coordinates are in pixels and still have to be divided by the image's size.

        Returns:
            Masks ``(K, H, W)`` bool (or float32 logits), predicted IoUs ``(K,)`` and low-res logits ``(K, 4h, 4w)`` for
            ``mask_input``, with ``K`` 3 or 1; with an axis ``B`` in front if there are several prompts.

        Raises:
            RuntimeError: If no image is set, or several are.
            ValueError: If the prompt is malformed or off the image.
        """
        image = self._only_image("predict")
        prompt = self._read(image, "prompt", point_coords, point_labels, box, mask_input, normalize_coords)
        return self._answer(image, prompt, multimask_output, return_logits)

    def predict_object(self, point_coords: Any = None, point_labels: Any = None, box: Any = None) -> ObjectMask:
        """Segment one object: a single click gives the best of three masks, all else one, as in a video.

        Args:
            point_coords: ``(P, 2)``, x first, in pixels, or ``None``.
            point_labels: ``(P,)``: 1 on the object, 0 on the background, or ``None``.
            box: ``(4,)`` as x0, y0, x1, y1, or ``None``.

        Returns:
            Logits ``(H, W)`` float32, positive on the object, and the predicted IoU.

        Raises:
            RuntimeError: If no image is set, or several are.
            ValueError: If the prompt is malformed or off the image.
        """
        is_ambiguous = box is None and point_coords is not None and len(point_coords) == 1
        logits, ious, _ = self.predict(
            point_coords, point_labels, box, multimask_output=is_ambiguous, return_logits=True
        )
        best = int(ious.argmax())
        return logits[best], float(ious[best])

    def predict_batch(
        self,
        point_coords_batch: Sequence[Any] | None = None,
        point_labels_batch: Sequence[Any] | None = None,
        box_batch: Sequence[Any] | None = None,
        mask_input_batch: Sequence[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[NDArray[Any]], list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Segment objects in all images of ``set_image_batch``.

        Args:
            point_coords_batch: One entry for each image, as in ``predict``; ``None`` for no points.
            point_labels_batch: As ``point_coords_batch``.
            box_batch: As ``point_coords_batch``.
            mask_input_batch: As ``point_coords_batch``.
            multimask_output: See ``predict``.
            return_logits: See ``predict``.
            normalize_coords: See ``predict``.

        Returns:
            Lists of masks, predicted IoUs and low-res logits, with one entry for each image.

        Raises:
            RuntimeError: If no image is set.
            ValueError: If a batch has another length, or a prompt is malformed.
        """
        if not self._images:
            raise RuntimeError("no image is set; expected set_image_batch(...) before predict_batch")
        batches = {
            "point_coords_batch": point_coords_batch,
            "point_labels_batch": point_labels_batch,
            "box_batch": box_batch,
            "mask_input_batch": mask_input_batch,
        }
        for name, batch in batches.items():
            if batch is not None and len(batch) != len(self._images):
                raise ValueError(f"{name}: expected one entry for each of {len(self._images)} images, got {len(batch)}")
        answers = []
        for number, image in enumerate(self._images):
            given = (None if batch is None else batch[number] for batch in batches.values())
            prompt = self._read(image, f"image {number}", *given, normalize_coords)
            answers.append(self._answer(image, prompt, multimask_output, return_logits))
        masks, ious, low_res = (list(column) for column in zip(*answers, strict=True))
        return masks, ious, low_res

    def get_image_embedding(self) -> Tensor:
        """Return the features ``(1, C, h, w)`` of the image.

        Raises:
            RuntimeError: If no image is set.
        """
        if not self._images:
            raise RuntimeError("no image is set; expected set_image(...) before get_image_embedding")
        return self._images[0].features.vision

    def reset_predictor(self) -> None:
        """Forget all images."""
        self._images = ()
        self._mirrored.clear()

    def predict_low_res(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        normalize_coords: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Like ``predict``, but at the model's own resolution, on its device, not refined and without filling holes.

        Returns:
            Low-res logits ``(B, K, 4h, 4w)`` and predicted IoUs ``(B, K)``, both float32.

        Raises:
            RuntimeError: If no image is set, or several are.
            ValueError: If the prompt is malformed or off the image.
        """
        image = self._only_image("predict_low_res")
        prompt = self._read(image, "prompt", point_coords, point_labels, box, mask_input, normalize_coords)
        prediction = self._predict(image, prompt, multimask_output)
        return prediction.candidates.float(), prediction.ious.float()

    def _adopt(self, precision: Precision) -> None:
        super()._adopt(precision)
        self.reset_predictor()  # features of the device and precision before

    def _only_image(self, method: str) -> _EncodedImage:
        if len(self._images) != 1:
            found = "no image is set" if not self._images else f"{len(self._images)} images are set: use predict_batch"
            raise RuntimeError(f"{found}; expected set_image(...) before {method}")
        return self._images[0]

    def _encode(self, image: NDArray[np.uint8] | Image.Image, where: str) -> _EncodedImage:
        pixels = picture_to_rgb(image) if isinstance(image, Image.Image) else check_image(image, where)
        # A video of one frame: so the image is resized, normalized and encoded as a video's first frame.
        state = InferenceState(FrameArray(pixels[None], where), self.model)
        with closing(state), self._precision.on(self.device):
            features = state.features(0, self._precision)
        return _EncodedImage(features, pixels.copy())  # the caller's array may change

    def _read(self, image: _EncodedImage, where: str, *given: Any) -> Prompt:
        point_coords, point_labels, box, mask_input, in_pixels = given
        prompt = read_prompts(
            point_coords,
            point_labels,
            box,
            mask_input,
            size=image.size,
            image_size=self.model.image_size,
            normalized=not in_pixels,
            where=where,
        )
        return prompt.to(self.device)

    @torch.inference_mode()
    def _predict(self, image: _EncodedImage, prompt: Prompt, multimask_output: bool) -> FramePrediction:
        with self._precision.on(self.device):
            context = self.model.condition(image.features, None)
            return self.model.segment(context, prompt, self._several if multimask_output else self._single)

    def _refine(
        self, image: _EncodedImage, prompt: Prompt, prediction: FramePrediction, multimask_output: bool
    ) -> tuple[Tensor, Tensor]:
        """Candidates ``(B, K, 4h, 4w)`` and predicted IoUs ``(B, K)``, each object's chosen mask refined."""
        predictions = prediction.split()
        if self._refine_prompts:
            refiner = CropRefiner(self.model, self._several if multimask_output else self._single)

            def mirrored() -> FrameFeatures:
                if image not in self._mirrored:
                    self._mirrored[image] = refiner.mirrored_features(image.picture)
                return self._mirrored[image]

            with self._precision.on(self.device):
                predictions = [
                    found if _has_no_points(own) else refiner.refine(image.picture, own, found, mirrored)
                    for own, found in zip(prompt.split(), predictions, strict=True)
                ]
        candidates, ious = ([getattr(p, name).float() for p in predictions] for name in ("candidates", "ious"))
        return torch.cat(candidates), torch.cat(ious)

    @torch.inference_mode()
    def _answer(self, image: _EncodedImage, prompt: Prompt, multimask_output: bool, return_logits: bool) -> Masks:
        prediction = self._predict(image, prompt, multimask_output)
        candidates, ious = self._refine(image, prompt, prediction, multimask_output)
        flat = candidates.flatten(0, 1)[:, None]
        cleaned = remove_specks(fill_holes(flat, int(self.max_hole_area)), int(self.max_sprinkle_area))
        masks = resize_logits(cleaned, image.size)[:, 0].unflatten(0, candidates.shape[:2])
        if not return_logits:
            masks = masks > self.mask_threshold
        low_res = candidates.clamp(-PRIOR_LIMIT, PRIOR_LIMIT)
        found = tuple(x.cpu().numpy() for x in (masks, ious, low_res))
        first, second, third = (x[0] if len(candidates) == 1 else x for x in found)
        return first, second, third


def _has_no_points(prompt: Prompt) -> bool:
    return prompt.labels is None or bool(torch.all(prompt.labels == PADDING))


def check_image(image: Any, where: str) -> NDArray[np.uint8]:
    """Return an image that is an array ``(H, W, 3)`` of uint8, as one.

    Args:
        image: What was given.
        where: Prefix of the message.

    Raises:
        ValueError: If it is anything else.
    """
    pixels = np.asarray(without_tensors(image, where))
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(
            f"{where}: expected a Pillow image or an array (H, W, 3) of uint8, got shape {pixels.shape} of "
            f"{pixels.dtype}"
        )
    return pixels
