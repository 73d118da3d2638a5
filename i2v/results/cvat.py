"""CVAT's XML for videos, version 1.1: a track per object, with a polygon on every frame that has a mask."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from i2v.errors import brief
from i2v.results.instances import Dataset
from i2v.results.polygons import joined_polygon, polygons_of
from i2v.results.rle import RunLengths
from i2v.results.youtube_vis import Track
from i2v.utils.files import replacing
from i2v.utils.output_folder import is_showable

CVAT_NAME = "cvat.xml"


def write_cvat(path: Path, dataset: Dataset, video: str, num_frames: int, tracks: Iterable[Track]) -> None:
    """Write a file of CVAT, atomically. Masks are complete, also where they overlap.

    Every polygon is a keyframe, and where masks end the track is outside: CVAT draws nothing between them. Parts and
    holes of a mask are joined by lines that are run along twice, as a track of CVAT has one polygon per frame.

    Args:
        path: Path of the file.
        dataset: Size and categories.
        video: Name of the video.
        num_frames: Number of frames of the video.
        tracks: The objects. A track's ``group_id`` is its number.

    Raises:
        OSError: If the file cannot be written, for example a DiskFullError.
        ValueError: If a name has characters that XML cannot have.
    """
    for name in (video, *dataset.categories):
        if not is_showable(name):
            raise ValueError(f"the name {brief(name)}: expected no control characters, which XML cannot have")
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(_head(dataset, video, num_frames))
        places = count()
        for track in tracks:
            shapes = [shape for shape in _shapes(track, dataset, num_frames) if shape]
            if shapes:
                label = quoteattr(dataset.categories[dataset.category_id(track.category) - 1])
                group = f'group_id="{track.number}"'
                file.write(f'  <track id="{next(places)}" label={label} source="semi-auto" {group}>\n')
                file.writelines(shapes)
                file.write("  </track>\n")
        file.write("</annotations>\n")


def _head(dataset: Dataset, video: str, num_frames: int) -> str:
    height, width = dataset.size
    labels = "".join(
        f"        <label><name>{escape(name)}</name><type>polygon</type><attributes></attributes></label>\n"
        for name in dataset.categories
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <name>{escape(video)}</name>
      <size>{num_frames}</size>
      <mode>interpolation</mode>
      <start_frame>0</start_frame>
      <stop_frame>{num_frames - 1}</stop_frame>
      <labels>
{labels}      </labels>
      <original_size>
        <width>{width}</width>
        <height>{height}</height>
      </original_size>
    </task>
  </meta>
"""


def _shapes(track: Track, dataset: Dataset, num_frames: int) -> Iterable[str]:
    points = ""  # of the polygon that is in view
    for frame in range(num_frames):
        counts = track.masks.get(frame)
        polygons = [] if counts is None else polygons_of(RunLengths.of_counts(counts, dataset.size).mask())
        if polygons:
            points = ";".join(f"{x:g},{y:g}" for x, y in joined_polygon(polygons).tolist())
            yield _polygon(frame, points, outside=False)
        elif points:
            yield _polygon(frame, points, outside=True)
            points = ""


def _polygon(frame: int, points: str, outside: bool) -> str:
    state = f'keyframe="1" outside="{int(outside)}" occluded="0" z_order="0"'
    return f'    <polygon frame="{frame}" {state} points="{points}"/>\n'
