"""The documentation as a site: pages are gathered with what they link to, and links that lead nowhere are errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tools.docs_site import gather, notebook_page, render

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in the place of the checkout, with the pages gathered and a page in the place of the API reference."""
    pages = tmp_path / "build" / "site"
    gather(ROOT, pages)
    (pages / "reference").mkdir()
    (pages / "reference" / "i2v.html").write_text("<html></html>")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_all_pages_and_what_they_show_are_gathered(site: Path) -> None:
    pages = site / "build" / "site"
    for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        assert (pages / path.relative_to(ROOT)).is_file()
    assert (pages / "assets" / "demo.png").read_bytes() == (ROOT / "assets" / "demo.png").read_bytes()
    assert "(notebooks/video_predictor.md)" in (pages / "README.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert (pages / "notebooks" / f"{path.stem}.md").read_text().startswith("# ")


def test_the_site_has_no_loose_ends(site: Path) -> None:
    pytest.importorskip("material", reason="the site is made by MkDocs (extra docs)")
    assert render(site) == []
    assert (site / "build" / "docs" / "docs" / "serve.html").is_file()
    assert "googleapis" not in (site / "build" / "docs" / "index.html").read_text()
    for page in (site / "build" / "docs" / "docs").glob("*.html"):  # all blocks of code are taken for such
        assert "```" not in page.read_text() and "notest" not in page.read_text(), page
    with (site / "build" / "site" / "docs" / "models.md").open("a") as page:
        page.write("\n[a](missing.md) [b](serve.md#missing)\n")
    problems = render(site)
    assert len(problems) == 2 and "missing.md" in problems[0] and "#missing" in problems[1]


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["x = 1"], "outputs": []},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert notebook_page(path) == "# Title\ntext\n\n```python\nx = 1\n```\n"
