"""Plots of benchmark results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from i2v.utils.files import replacing


def stages(report: dict[str, Any], names: Sequence[str], path: Path) -> None:
    """Plot seconds per frame of every side, stacked by stage."""
    figure, axes = _figure()
    bottoms = [0.0] * len(names)
    for row in report["rows"]:
        if row["stage"] != "frame":
            seconds = [row[f"{name} s"] for name in names]
            axes.bar(names, seconds, bottom=bottoms, label=row["stage"], width=0.6)
            bottoms = [a + b for a, b in zip(bottoms, seconds, strict=True)]
    axes.set_ylabel("seconds per frame")
    axes.set_title(f"{report['image_size']} pixels, objects: {report['objects']}, {_where(report)}", fontsize=9)
    axes.legend(fontsize=8)
    _save(figure, path)


def objects(report: dict[str, Any], names: Sequence[str], path: Path) -> None:
    """Plot seconds per frame against the number of objects."""
    figure, axes = _figure()
    for name in names:
        measured = [row for row in report["rows"] if row.get(f"{name} s")]
        axes.plot([row["objects"] for row in measured], [row[f"{name} s"] for row in measured], "o-", label=name)
    axes.set_xlabel("objects")
    axes.set_ylabel("seconds per frame")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks([row["objects"] for row in report["rows"]])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_title(f"{report['image_size']} pixels, {_where(report)}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise RuntimeError("drawing figures needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(6, 4), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _where(report: dict[str, Any]) -> str:
    about = report["machine"]
    return f"{about['threads']} threads of {about['device']}"
