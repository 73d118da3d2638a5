"""Tables of the scores of several methods on the same videos, as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sav_dataset.utils.report import averages, write_text
from sav_dataset.utils.scores import Scores

MEASURES = ("J&F", "J", "F")


@dataclass(frozen=True)
class Results:
    """Scores of several methods.

    Attributes:
        methods: Scores by method.
        facts: How, when and with what they were made, as JSON values.
    """

    methods: Mapping[str, Scores]
    facts: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return everything in full precision, in percent."""
        methods = [
            {
                "method": name,
                **averages(scores),
                "videos": [{"video": video, **averages(part)} for video, part in scores.by_video().items()],
            }
            for name, scores in self.methods.items()
        ]
        return {**self.facts, "methods": methods}

    def as_markdown(self) -> str:
        """Format the means over all objects, then a table of videos and methods per measure, then the facts."""
        summary = [(name, *averages(scores).values()) for name, scores in self.methods.items()]
        parts = [_table(("method", *MEASURES), summary)]
        for measure in MEASURES:
            parts.append(f"{measure} by video:")
            parts.append(_table(("video", *self.methods), self._by_video(measure)))
        facts = [f"- {key}: {_shown(value)}" for key, value in self.facts.items() if value]
        return "\n\n".join([*parts, "\n".join(facts)]) + "\n"

    def _by_video(self, measure: str) -> list[tuple[Any, ...]]:
        columns = [scores.by_video() for scores in self.methods.values()]
        videos = sorted({video for column in columns for video in column})
        rows = [(v, *(averages(column[v])[measure] if v in column else None for column in columns)) for v in videos]
        return [*rows, ("**all objects**", *(averages(scores)[measure] for scores in self.methods.values()))]

    def save(self, folder: Path) -> None:
        """Write results.md and results.json."""
        write_text(folder / "results.md", self.as_markdown())
        write_text(folder / "results.json", json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n")


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Format a Markdown table; numbers have one decimal and are right-aligned."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    # None: the video has no scored object for this method.
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _shown(value: Any) -> str:
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else f"`{value}`"
