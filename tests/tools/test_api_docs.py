"""The API reference builds without warnings and has what users look for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(folder: Path, *prelude: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: it changes what it describes."""
    code = ";".join(["import sys", *prelude, "from tools.api_docs import main", "sys.exit(main(sys.argv[1:]))"])
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_pages_have_the_public_names_and_their_contracts(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="the pages are made by pdoc (extra docs)")
    finished = build(tmp_path / "docs")
    assert (finished.returncode, finished.stderr) == (0, "")
    pages = {path.relative_to(tmp_path / "docs").as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    wanted = {
        "i2v.html": ["build_i2v_video_predictor", "I2VVideoPredictor.propagate_in_video"],
        "i2v/build_i2v.html": ["build_i2v", "build_i2v_video_predictor"],
        "i2v/inference/live_session.html": ["LiveSession.step", "LiveSession.scores"],
        "i2v/video/sources.html": ["open_source"],
        "i2v/modeling/i2v_model.html": ["I2VModel.read", "I2VModel.segment"],
        "i2v/results/export.html": ["ResultFolder.add"],
    }
    for page, names in wanted.items():
        assert [name for name in names if f'id="{name}"' not in pages[page]] == []
    # Sections and double backticks have become HTML; types lead to where they are described.
    text = re.sub(r'<div class="pdoc-code.*?</div>', "", pages["i2v/inference/live_session.html"], flags=re.DOTALL)
    assert ":meth:" not in text and "``" not in text
    assert 'href="../../i2v.html#I2VVideoPredictor"' in text
    # The front page leads to every module, through the page of its package; programs are left out.
    assert 'href="i2v/inference.html"' in pages["i2v.html"]
    assert 'href="inference/live_session.html"' in pages["i2v/inference.html"]
    assert not {page for page in pages if page.startswith(("i2v/cli", "i2v/annotator", "i2v/serve"))}


def test_without_pdoc_it_says_what_to_install(tmp_path: Path) -> None:
    finished = build(tmp_path / "docs", "sys.modules['pdoc'] = None")
    assert finished.returncode == 1
    assert finished.stderr == "api_docs: error: the pages are made by pdoc: pip install pdoc (extra docs)\n"
    assert not (tmp_path / "docs").exists()
