"""Reports of scores: the published table, CSV, JSON, and pictures of the worst objects."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from i2v.utils.files import replacing
from i2v.utils.output_folder import child, clear_files, own_folder
from sav_dataset.utils.contact_sheet import ObjectPictures, draw_object
from sav_dataset.utils.scores import ObjectScore, Scores, overall

StrPath = str | os.PathLike[str]

GLOBAL = "Global score"


def published_table(scores: Scores) -> str:
    """Format scores like SA-V's evaluator: comma-separated columns of fixed width, percent with one decimal."""
    rows = [(GLOBAL, "", scores.jf, scores.j, scores.f)]
    rows += [(s.video, s.obj.zfill(3), s.jf, s.j, s.f) for s in scores.objects]
    width = max(len(row[0]) for row in rows)
    lines = [f"{'sequence':<{width}},obj, {'J&F':>4}, {'J':>4}, {'F':>4}"]
    lines += [f"{name:<{width}},{obj:>3}, {jf:4.1f}, {j:4.1f}, {f:4.1f}" for name, obj, jf, j, f in rows]
    return "\n".join(lines) + "\n"


def group_table(parts: Mapping[str, Scores]) -> str:
    """Format the scores of seen and unseen objects, and the mean of their measures, which YouTube-VOS calls G."""
    width = max(map(len, parts))
    lines = [
        f"{name:<{width}}  J: {part.j:.1f}  F: {part.f:.1f}  ({len(part.objects)} objects)"
        for name, part in parts.items()
    ]
    return "\n".join([*lines, f"mean of these: {overall(parts.values()):.1f}"])


@dataclass(frozen=True)
class ReportContents:
    """Contents of a report.

    Attributes:
        scores: Scores of all objects.
        parts: Scores of seen and unseen objects, if these are known.
        facts: How the scores were made, as JSON values.
    """

    scores: Scores
    parts: Mapping[str, Scores]
    facts: Mapping[str, Any]


def write_text(path: StrPath, text: str) -> None:
    """Write a text file, atomically; its folder is created if there is none."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_report(
    folder: StrPath, contents: ReportContents, pictures: ObjectPictures | None, num_worst: int = 10
) -> None:
    """Write report.json, objects.csv and videos.csv, worst first, and worst/ with pictures of the worst objects.

    Args:
        folder: Folder of the report, created if needed.
        contents: What to write.
        pictures: Where to find frames and masks; ``None`` draws no pictures.
        num_worst: Number of objects with pictures.

    Raises:
        ValueError: If a folder is a symbolic link, or a name leads out of it.
    """
    folder = own_folder(Path(folder))
    worst = contents.scores.worst_first()
    write_text(folder / "report.json", json.dumps(_as_json(contents, worst), indent=1, allow_nan=False) + "\n")
    _write_csv(folder / "objects.csv", ("video", "object", "J&F", "J", "F", "frames", "worst frame"), map(_row, worst))
    videos = sorted(contents.scores.by_video().items(), key=lambda item: item[1].jf)
    rows = [(name, len(part.objects), part.jf, part.j, part.f) for name, part in videos]
    _write_csv(folder / "videos.csv", ("video", "objects", "J&F", "J", "F"), rows)
    if pictures is not None:
        _write_pictures(folder / "worst", worst[:num_worst], pictures)


def _as_json(contents: ReportContents, worst: Sequence[ObjectScore]) -> dict[str, Any]:
    scores = contents.scores
    videos = sorted(scores.by_video().items(), key=lambda item: item[1].jf)
    return {
        **contents.facts,
        "num_videos": len(videos),
        "num_objects": len(scores.objects),
        **averages(scores),
        "parts": {name: averages(part) for name, part in contents.parts.items()},
        "warnings": list(scores.warnings),
        "videos": [{"video": name, **averages(part)} for name, part in videos],
        "objects": [
            {"video": s.video, "object": s.obj, **averages(s), "frames": [asdict(frame) for frame in s.frames]}
            for s in worst
        ],
    }


def averages(scores: Scores | ObjectScore) -> dict[str, float]:
    """J&F, J and F in percent, by name in tables and JSON."""
    return {"J&F": scores.jf, "J": scores.j, "F": scores.f}


def _row(score: ObjectScore) -> tuple[Any, ...]:
    worst_frame = min(score.frames, key=lambda frame: frame.j + frame.f)
    return score.video, score.obj, score.jf, score.j, score.f, len(score.frames), worst_frame.frame


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _write_pictures(folder: Path, worst: Sequence[ObjectScore], pictures: ObjectPictures) -> None:
    clear_files(own_folder(folder), r"\d\d+_.*\.png")
    for place, score in enumerate(worst, start=1):
        with replacing(child(folder, f"{place:02d}_{score.video}_{score.obj}.png")) as temporary:
            draw_object(score, pictures).save(temporary, format="PNG")
