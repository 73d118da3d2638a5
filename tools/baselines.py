"""Predict the masks of a benchmark without a trained tracker: baselines that any model has to beat.

python tools/baselines.py copy --data_root DIR --output DIR
python tools/baselines.py flow --data_root DIR --output DIR

copy: the object's first mask on every frame. flow: the mask warped from frame to frame by OpenCV's DIS optical flow.
flow-fine: the same with flow at full resolution. label-propagation: labels of the most similar locations of earlier
frames, by features of EfficientNet-Lite0 (ImageNet weights, extra train). Score the masks with
sav_dataset/sav_evaluator.py.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

if not __package__:
    # A script has only its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.errors import USER_ERRORS, describe_error
from i2v.results.export import write_label_png
from i2v.utils.command import as_command
from i2v.utils.output_folder import child
from i2v.video.sources import FrameSource, open_source
from sav_dataset.utils.datasets import LAYOUTS, Dataset, open_dataset
from test_pvs.mask_writer import mask_folder
from test_pvs.prompts import Target
from test_pvs.targets import Annotations, FrameList, read_targets
from test_pvs.tracking import check_targets
from tools.label_propagation import LabelPropagation

SoftMasks = NDArray[np.float32]
Picture = NDArray[np.uint8]

Carry = Callable[[SoftMasks, Picture, Picture], SoftMasks]
"""Propagates soft masks ``(N, H, W)`` in 0..1 from a frame ``(H, W, 3)`` uint8 to the next one."""

NUM_WRITERS = 2  # threads that compress PNGs
DATASETS = tuple(name for name, layout in LAYOUTS.items() if not layout.object_folders)


def keep(masks: SoftMasks, previous: Picture, frame: Picture) -> SoftMasks:
    """Return the masks unchanged."""
    return masks


class FlowWarp:
    """Warps masks along DIS optical flow.

    Backward flow, from the new frame to the previous one, gives the source of every new pixel. The mask is sampled
    there bilinearly and stays soft: thresholding it on every frame fits worse. What enters the picture is background.
    """

    def __init__(self, preset: str, finest_scale: int | None = None, refine: bool = True) -> None:
        """Create the flow estimator.

        Args:
            preset: OpenCV's ultrafast, fast or medium.
            finest_scale: How often the picture is halved at the finest scale of the search, 0 for full resolution;
                ``None`` for the preset's.
            refine: Whether to use the preset's variational refinement.

        Raises:
            RuntimeError: If OpenCV is not installed.
        """
        try:
            self._cv2: Any = importlib.import_module("cv2")
        except ImportError as error:
            raise RuntimeError("optical flow needs OpenCV: pip install opencv-python-headless (extra dev)") from error
        cv2 = self._cv2
        self._flow = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
        if finest_scale is not None:
            self._flow.setFinestScale(finest_scale)
        if not refine:
            self._flow.setVariationalRefinementIterations(0)

    def __call__(self, masks: SoftMasks, previous: Picture, frame: Picture) -> SoftMasks:
        cv2 = self._cv2
        before, now = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (previous, frame))
        flow = self._flow.calc(now, before, None)
        rows, columns = np.indices(now.shape, np.float32)
        x, y = columns + flow[..., 0], rows + flow[..., 1]
        # Outside the picture masks are 0, the default of BORDER_CONSTANT.
        warped = [cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) for mask in masks]
        return np.stack(warped)


# The presets search at a quarter or half of the resolution, which is coarse for videos of 270 rows; refinement smooths
# motion across object boundaries. See docs/results.md for figures.
BASELINES: dict[str, Callable[[], Carry]] = {
    "copy": lambda: keep,
    "flow": lambda: FlowWarp("ultrafast"),
    "flow-fine": lambda: FlowWarp("medium", finest_scale=0, refine=False),
    "label-propagation": LabelPropagation,
}


def follow(source: FrameSource, targets: Sequence[Target], carry: Carry) -> Iterator[Picture]:
    """Propagate the objects of a video from their ground truth, which replaces other objects there.

    A pixel belongs to the object whose soft mask is above 0.5.

    Args:
        source: The video.
        targets: The objects.
        carry: Propagates masks to the next frame.

    Yields:
        Label image ``(H, W)`` uint8 of every frame.

    Raises:
        ValueError: If a mask has another size than the video.
        IndexError: If the video does not have a target's frame.
    """
    check_targets(source, targets)
    labels = np.array([int(target.obj) for target in targets], np.uint8)
    masks = np.zeros((len(targets), source.height, source.width), np.float32)
    frame = source.read(0)
    for t in range(source.num_frames or 0):
        if t > 0:
            previous, frame = frame, source.read(t)
            masks = carry(masks, previous, frame)
        for number, target in enumerate(targets):
            if target.frame == t:
                masks = np.where(target.mask, np.float32(0), masks)
                masks[number] += target.mask
        # Soft masks sum to at most 1 per pixel, so at most one object is above 0.5.
        yield np.where(masks.max(axis=0) > 0.5, labels[masks.argmax(axis=0)], np.uint8(0))


def predict_video(
    dataset: Dataset, video: str, carry: Carry, output: Path, threads: ThreadPoolExecutor, overwrite: bool = False
) -> None:
    """Write the label images of a video to a folder, which appears once it is complete.

    Args:
        dataset: The benchmark.
        video: Name of the video.
        carry: Propagates masks to the next frame.
        output: Where the folder is created.
        threads: Where masks are written.
        overwrite: Whether to replace an existing folder.

    Raises:
        ValueError: If no object is annotated, and as :func:`mask_folder`.
        FileExistsError: As :func:`mask_folder`.
    """
    annotations = Annotations(dataset.annotations / video, single_object=dataset.layout.single_object)
    with (
        mask_folder(output, video, write_label_png, threads, overwrite) as folder,
        open_source(dataset.frames(video)) as source,
    ):
        frames = FrameList.of(source)
        targets = read_targets(annotations, frames)
        if not targets:
            raise ValueError(f"{annotations.folder}: no object is annotated")
        for name, labels in zip(frames.names, follow(source, targets, carry), strict=True):
            folder.put(f"{name}.png", labels)


def predict(dataset: Dataset, baseline: str, output: Path, overwrite: bool = False) -> None:
    """Write the masks of a baseline for all videos of a benchmark.

    Args:
        dataset: The benchmark, one with label images.
        baseline: One of ``BASELINES``.
        output: Where the videos' folders are created.
        overwrite: Whether to predict existing masks again.

    Raises:
        ValueError: If the baseline is unknown, the benchmark has no label images, or a file of it is invalid.
        RuntimeError: If OpenCV is needed and not installed.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline: expected one of {', '.join(BASELINES)}, got {baseline!r}")
    if dataset.layout.object_folders:
        raise ValueError(f"dataset: expected one of {', '.join(DATASETS)}, got {dataset.name!r}")
    make_carry = BASELINES[baseline]
    make_carry()  # a missing package is reported before anything is written
    pending = [video for video in dataset.videos if overwrite or not child(output, video).is_dir()]
    with ThreadPoolExecutor(NUM_WRITERS) as threads:
        for video in tqdm(pending, desc=baseline, unit=" videos"):
            predict_video(dataset, video, make_carry(), output, threads, overwrite)


def make_parser() -> argparse.ArgumentParser:
    """Build the command line parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", choices=BASELINES)
    parser.add_argument("--dataset", choices=DATASETS, default="davis2017", help="benchmark (default: %(default)s)")
    parser.add_argument("--data_root", type=Path, required=True, help="folder of the benchmark")
    parser.add_argument("--video_list", type=Path, help="only the videos of this list")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks")
    parser.add_argument("--overwrite", action="store_true", help="predict existing masks again")
    return parser


@as_command("baselines", "the same command resumes from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed, 130 interrupted."""
    args = make_parser().parse_args(argv)
    try:
        dataset = open_dataset(args.dataset, args.data_root, video_list=args.video_list)
        predict(dataset, args.baseline, args.output, args.overwrite)
    except USER_ERRORS as error:
        print(f"baselines: error: {describe_error(error)}", file=sys.stderr)
        return 1
    print(f"{len(dataset.videos)} videos in {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
