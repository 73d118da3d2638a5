"""Score the first masks from a box and from one click on photos: mean IoU over objects.

python tools/photo_scores.py --photos DIR [DIR ...] [--config i2v-nano-infer --checkpoint FILE] [--json FILE]

A folder contains JPEGImages/NAME.jpg and Annotations/NAME.png. The box is the bounding box; the click is the pixel of
the object that is farthest from its boundary. Objects below --min_area of the photo are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

if not __package__:
    # A script has only its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.build_i2v import build_i2v_video_predictor
from i2v.cli.arguments import add_trust_option
from i2v.errors import USER_ERRORS, describe_error
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.prompts.sampling import box_points, point_from_error_center
from i2v.utils.command import as_command
from i2v.utils.files import replacing
from i2v.utils.iou import mask_iou
from train.dataset.photo_library import annotated_photos


def score_object(predictor: I2VVideoPredictor, photo: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compute the IoU of the mask that each prompt gives for an object.

    Args:
        predictor: The predictor.
        photo: RGB ``(H, W, 3)`` uint8.
        mask: Ground truth ``(H, W)`` bool.

    Returns:
        IoU (0..1) by prompt.
    """
    batch = torch.from_numpy(mask)[None, None]
    corners, _ = box_points(batch, noise=0.0)
    click, _ = point_from_error_center(batch, torch.zeros_like(batch))
    prompts: dict[str, dict[str, Any]] = {
        "box": {"box": corners.flatten().tolist()},
        "click": {"points": click[0].tolist(), "labels": [1]},
    }
    ious = {}
    with predictor.init_state(photo[None]) as state:
        for number, (name, prompt) in enumerate(prompts.items()):
            _, ids, logits = predictor.add_new_points_or_box(state, 0, number, **prompt)
            found = (logits[ids.index(number), 0] > 0).cpu().numpy()
            ious[name] = mask_iou(found, mask)
    return ious


def score(predictor: I2VVideoPredictor, folders: Sequence[Path], min_area: float) -> list[dict[str, Any]]:
    """Score all objects that cover at least ``min_area`` (0..1) of their photo; returns one row per object.

    Raises:
        ValueError: If there is no such object, or a file is invalid.
    """
    photos = [(folder, photo) for folder in folders for photo in annotated_photos(folder)]
    rows = []
    for folder, photo in tqdm(photos, unit=" photos", disable=None):
        for label, mask in photo.masks().items():
            if mask.mean() >= min_area:
                scores = score_object(predictor, np.array(photo.pixels), mask)
                rows.append({"photo": f"{folder.name}/{photo.name}", "label": label} | scores)
    if not rows:
        raise ValueError(f"no object covers {min_area:.1%} of its photo or more")
    return rows


@as_command("photo_scores")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--config", default="i2v-nano-infer")
    parser.add_argument("--checkpoint", default="checkpoints/i2v-nano.pt")
    parser.add_argument("--min_area", type=float, default=0.01, help="fraction of the photo (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores of all objects here")
    add_trust_option(parser)
    args = parser.parse_args(argv)
    try:
        predictor = build_i2v_video_predictor(args.config, args.checkpoint, trust_config=args.trust_config)
        rows = score(predictor, args.photos, args.min_area)
    except USER_ERRORS as error:
        print(f"photo_scores: error: {describe_error(error)}", file=sys.stderr)
        return 1
    means = {prompt: float(np.mean([row[prompt] for row in rows])) for prompt in ("box", "click")}
    print(f"{len(rows)} objects, mean IoU: box {means['box']:.3f}, click {means['click']:.3f}")
    if args.json:
        with replacing(args.json) as path:
            path.write_text(json.dumps({"means": means, "objects": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
