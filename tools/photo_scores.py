"""Score the first answer to a box and to one click on photos with masks: mean IoU over objects.

python tools/photo_scores.py --photos DIR [DIR ...] [--config i2v-nano-infer --checkpoint FILE] [--json FILE]

A folder holds JPEGImages/NAME.jpg and Annotations/NAME.png. The box is the tight one; the click is the pixel of the
object that is farthest from its end. Objects below --min_area of the photo are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

if not __package__:
    # Run as a script, this file sees only its own folder.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.build_i2v import build_i2v_video_predictor
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.prompting import box_points, point_from_error_center
from i2v.utils.files import replacing


def annotated_photos(folders: Sequence[Path]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, pixels (H,W,3) and labels (H,W) of all photos. ValueError for folders without any."""
    for folder in folders:
        paths = sorted((folder / "JPEGImages").glob("*.jpg"))
        if not paths:
            raise ValueError(f"{folder}: expected photos in JPEGImages/*.jpg, got none")
        for path in paths:
            with Image.open(path) as photo, Image.open(folder / "Annotations" / f"{path.stem}.png") as labels:
                yield f"{folder.name}/{path.stem}", np.array(photo.convert("RGB")), np.array(labels)


def score_object(predictor: I2VVideoPredictor, photo: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """IoU of the first answer to each prompt for an object."""
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
            ious[name] = float((found & mask).sum() / (found | mask).sum())
    return ious


def score(predictor: I2VVideoPredictor, folders: Sequence[Path], min_area: float) -> list[dict[str, Any]]:
    """One row for each object of at least ``min_area`` of its photo."""
    rows = []
    for name, photo, labels in tqdm(list(annotated_photos(folders)), unit=" photos", disable=None):
        for label in (int(value) for value in np.unique(labels) if value not in (0, 255)):
            mask = labels == label
            if mask.mean() >= min_area:
                rows.append({"photo": name, "label": label} | score_object(predictor, photo, mask))
    if not rows:
        raise ValueError(f"no object has {min_area:.1%} of its photo or more")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--config", default="i2v-nano-infer")
    parser.add_argument("--checkpoint", default="checkpoints/i2v-nano.pt")
    parser.add_argument("--min_area", type=float, default=0.01, help="part of the photo (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores of all objects here, too")
    args = parser.parse_args(argv)
    try:
        predictor = build_i2v_video_predictor(args.config, args.checkpoint)
        rows = score(predictor, args.photos, args.min_area)
    except (ValueError, OSError) as error:
        print(f"photo_scores: error: {error}", file=sys.stderr)
        return 1
    means = {prompt: float(np.mean([row[prompt] for row in rows])) for prompt in ("box", "click")}
    print(f"{len(rows)} objects, mean IoU: box {means['box']:.3f}, click {means['click']:.3f}")
    if args.json:
        with replacing(args.json) as path:
            path.write_text(json.dumps({"means": means, "objects": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
