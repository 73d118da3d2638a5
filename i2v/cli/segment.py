"""`i2v segment`: objects in images, from prompts or all of them."""

from __future__ import annotations

import logging
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from i2v.automatic_mask_generator import AutomaticMaskSettings, I2VAutomaticMaskGenerator
from i2v.cli.arguments import EVERYTHING_OPTIONS, UsageError, collect_prompts
from i2v.errors import USER_ERRORS
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.prompts.frame_bounds import check_prompt
from i2v.results.export import MAX_OBJECTS, assign_labels
from i2v.results.image_results import COCO_NAME, ImageMask, ImageResultFolder
from i2v.results.overlay import Pixels, UserPrompt
from i2v.results.rle import RunLengths, encode_mask
from i2v.utils.image_file import FRAME_FORMATS, load_image, read_image_size
from i2v.utils.output_folder import default_output_folder
from i2v.video.frame_source import picture_to_rgb
from i2v.video.image_files import find_pictures

log = logging.getLogger(__name__)

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
Segmented = tuple[Pixels, list[ImageMask]]  # label map (H, W), masks


def segment(args: Namespace, build: Callable[[], I2VImagePredictor], say: Callable[..., None]) -> int:
    """Run the command.

    Args:
        args: The parsed arguments.
        build: Builds the predictor.
        say: Prints a line, by default to standard output.

    Returns:
        The exit status, 0.

    Raises:
        UsageError: If it is not said what to segment.
        Exception: One of ``i2v.errors.USER_ERRORS`` for wrong files and prompts. Finished images are kept.
    """
    settings = _everything(args)
    prompts = () if settings else collect_prompts(args.marks or (), _NOTHING)
    paths = [path for given in args.images for path in find_pictures(given)]
    _check_images(paths, prompts)
    out = args.out or (default_output_folder(args.images[0]) if len(args.images) == 1 else Path("images_i2v"))
    results = ImageResultFolder(out, paths, args.overwrite)
    labels = assign_labels(prompt.obj_id for prompt in prompts)
    predictor = build()
    started = time.perf_counter()
    try:
        for number, path in enumerate(tqdm(paths, desc="segmenting", unit=" images", disable=len(paths) == 1)):
            picture = _read(path)
            if settings:
                found = find_everything(I2VAutomaticMaskGenerator(predictor, settings), picture, path)
            else:
                found = segment_prompts(predictor, picture, prompts, labels, path)
            results.add(number, picture, *found, [(prompt, labels[prompt.obj_id]) for prompt in prompts])
    except (KeyboardInterrupt, *USER_ERRORS):
        # The finished images can be hours of work: complete their file before reporting the error.
        results.finish()
        kept = f"{results.num_images} of {len(paths)} images are kept in {out}"
        say(f"i2v: stopped: {kept if results.num_images else 'no image was finished'}", sys.stderr)
        raise
    results.finish()
    seconds = time.perf_counter() - started
    masks, images = results.num_masks, len(paths)
    say(f"{masks} mask{'s' * (masks != 1)} in {images} image{'s' * (images != 1)}, {seconds:.1f} s")
    for name in ("masks", "overlays", COCO_NAME):
        say(f"  {out / name}")
    if renamed := {obj_id: label for obj_id, label in labels.items() if obj_id != label}:
        say("labels in the masks: " + ", ".join(f"object {i} has label {label}" for i, label in renamed.items()))
    return 0


_NOTHING = "nothing to segment: prompt an object with --click or --box, or ask for --everything"


def _everything(args: Namespace) -> AutomaticMaskSettings | None:
    """Settings of the generator, or ``None`` where objects are prompted."""
    given = {name: value for name in EVERYTHING_OPTIONS if (value := getattr(args, name)) is not None}
    if not args.everything:
        if given:
            raise UsageError(f"--{next(iter(given)).replace('_', '-')} is about --everything, which is not asked for")
        return None
    if args.marks:
        raise UsageError("--everything finds objects by itself: expected no --click, --box or --object with it")
    return AutomaticMaskSettings(output_mode="coco_rle", **given)


def _check_images(paths: Sequence[str], prompts: Sequence[UserPrompt]) -> None:
    """Check that all files are pictures, and all prompts on them, before anything takes long."""
    for path in paths:
        height, width = read_image_size(path, FRAME_FORMATS)
        for prompt in prompts:
            check_prompt(prompt.clicks, prompt.box, (width, height), f"{path}, object {prompt.obj_id}")


def _read(path: str) -> NDArray[np.uint8]:
    image = load_image(path, FRAME_FORMATS)
    if _is_turned(image):
        log.warning("%s: its EXIF orientation is not applied: coordinates and masks are of the stored pixels", path)
    return picture_to_rgb(image)


def _is_turned(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) not in (0, 1)


def segment_prompts(
    predictor: I2VImagePredictor,
    picture: NDArray[np.uint8],
    prompts: Sequence[UserPrompt],
    labels: dict[Any, int],
    where: str,
) -> Segmented:
    """Segment prompted objects. A single click gives the best of three masks, all else one, as in a video.

    Args:
        predictor: The predictor.
        picture: ``(H, W, 3)`` uint8 RGB.
        prompts: The prompts, one for each object.
        labels: Label of each object.
        where: The image, for messages.

    Returns:
        Label map ``(H, W)``, where the highest logit wins, and the masks that are not empty.
    """
    predictor.set_image(picture)
    label_map = np.zeros(picture.shape[:2], np.uint8)
    highest = np.zeros(picture.shape[:2], np.float32)
    masks = []
    for prompt in prompts:
        clicks = np.array(prompt.clicks, np.float32).reshape(-1, 3)
        points, point_labels = (clicks[:, :2], clicks[:, 2]) if len(clicks) else (None, None)
        logits, iou = predictor.predict_object(points, point_labels, prompt.box)
        mask = logits > 0
        if not mask.any():
            log.warning("%s: object %s: the model finds nothing there", where, prompt.obj_id)
            continue
        label = labels[prompt.obj_id]
        label_map[logits > highest] = label
        highest = np.maximum(highest, logits)
        masks.append(ImageMask(label, _rle(mask), iou, {"object_id": prompt.obj_id}))
    return label_map, masks


def find_everything(generator: I2VAutomaticMaskGenerator, picture: NDArray[np.uint8], where: str) -> Segmented:
    """Find masks of everything.

    Args:
        generator: The generator, with ``output_mode="coco_rle"``.
        picture: ``(H, W, 3)`` uint8 RGB.
        where: The image, for messages.

    Returns:
        Label map ``(H, W)``, where smaller masks cover larger ones, and the masks, the best first.
    """
    records = generator.generate(picture)
    if len(records) > MAX_OBJECTS:
        log.warning("%s: %d masks, of which the best %d are kept", where, len(records), MAX_OBJECTS)
    masks = [
        ImageMask(
            label,
            record["segmentation"],
            record["predicted_iou"],
            {"stability_score": round(record["stability_score"], 4), "point": record["point_coords"][0]},
        )
        for label, record in enumerate(records[:MAX_OBJECTS], start=1)
    ]
    label_map = np.zeros(picture.shape[:2], np.uint8)
    runs = [(RunLengths.of_coco(mask.segmentation), mask.label) for mask in masks]
    for mask, label in sorted(runs, key=lambda run: -run[0].area):
        label_map[mask.mask()] = label
    return label_map, masks


def _rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": encode_mask(mask).decode("ascii")}
