"""The notebooks run from top to bottom, and what is committed of their outputs is small and free of errors."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 300_000

nbformat = pytest.importorskip("nbformat", reason="notebooks are run by nbclient (extra dev)")
nbclient = pytest.importorskip("nbclient", reason="notebooks are run by nbclient (extra dev)")


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook) -> str:
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def executed(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    # The kernel is another process: this checkout is what it is to import, with one thread as other tests.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_are_valid_and_small(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tour_of_the_predictor_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("video_predictor", monkeypatch)
    text = printed(notebook)
    assert "0 ['blob'] (1, 1, 240, 320)" in text
    assert "32 frames, mean IoU" in text
    assert "left: ['blob']" in text and "after reset: []" in text
    assert "visited: [31, 30, 29, 28] ... 0" in text
    assert "the same masks as from the recorded video: True" in text
    pictures = [output.data["image/jpeg"] for output in outputs(notebook) if "image/jpeg" in output.get("data", {})]
    assert len(pictures) == 9
    assert sum(map(len, pictures)) < 0.8 * MAX_BYTES


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tour_of_images_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("image_predictor", monkeypatch)
    text = printed(notebook)
    assert "(3, 240, 320) predicted IoUs:" in text and "(2, 1, 240, 320)" in text
    assert "[(1, 240, 320), (1, 120, 160)]" in text
    overlaps = re.search(r"two clicks: IoU ([\d.]+), box: IoU ([\d.]+)", text)
    assert overlaps is not None and min(map(float, overlaps.groups())) > 0.6
    assert re.search(r"^\d+ pixels at \[", text, re.MULTILINE)
    assert len([output for output in outputs(notebook) if "image/jpeg" in output.get("data", {})]) == 5


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_fine_tuning_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = executed("fine_tuning", monkeypatch)
    text = printed(notebook)
    assert "2 of 2 videos are used, 16 frames with masks" in text
    assert len(re.findall(r"^step \d+: loss [\d.]+$", text, re.MULTILINE)) == 2
    assert "changed: ['sam_mask_decoder']" in text
    assert re.search(r"mean IoU: 0\.\d+ before, 0\.\d+ after 2 steps", text)
    assert [output for output in outputs(notebook) if "image/jpeg" in output.get("data", {})]
