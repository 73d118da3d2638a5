"""What axe-core finds at fault with the page and its dialogs, in dark and in light: nothing.

axe-core comes from npm at the time of the test, as its 500 kB have no place in the repository. Without npm or a network
the test is skipped; `I2V_AXE=path/to/axe.min.js` runs it with a copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from annotator_support import FIRST, SECOND, Running, RunningQueue, running_queue
from page_support import Visitor, visiting

AXE = "axe-core@4.10.3"


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script."""
    known = os.environ.get("I2V_AXE")
    if known is not None:
        return Path(known).read_text(encoding="utf-8")
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if npm is None:
        pytest.skip("axe-core comes from npm, which is not here")
    got = subprocess.run([npm, "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, timeout=60)
    if got.returncode:
        pytest.skip(f"axe-core cannot be fetched: {got.stderr.strip()[-200:]}")
    (packed,) = folder.glob("*.tgz")
    with tarfile.open(packed) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode("utf-8")


def violations(visitor: Visitor, axe: str) -> list[str]:
    # Evaluated by the browser's tools, so the page's content security policy stays as it is.
    if not visitor.page.evaluate("typeof axe === 'object'"):
        visitor.page.evaluate(axe)
    found = visitor.page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [f"{v['id']}: {n['html'][:160]} {n['failureSummary']}" for v in found for n in v["nodes"]]


def open_dialogs(visitor: Visitor) -> list[str]:
    """What opens each dialog of the page."""
    return ["#help", "#export", "#sessions", "#merge", "#objects li.selected .rename"]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_on_the_page_and_in_its_dialogs(browser: Any, server: Running, axe: str, scheme: str) -> None:
    with visiting(browser, server.address, color_scheme=scheme) as guest:
        page = guest.page
        assert violations(guest, axe) == []  # without objects
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        guest.makes_object(2)
        guest.click(SECOND.x, SECOND.y)
        guest.sees(0, 1, 2)
        guest.press("a", "m")
        page.click("#timeline-details summary")
        page.wait_for_selector("#saved:has-text('all changes saved')")
        assert violations(guest, axe) == []
        guest.press("Shift+p")
        page.wait_for_selector("#hint:has-text('Drag a vertex')")
        guest.press("Tab")
        page.wait_for_selector("#hint:has-text('Vertex 1 of')")
        assert violations(guest, axe) == []
        for opener in open_dialogs(guest):
            page.click(opener)
            page.wait_for_selector("dialog[open]")
            page.wait_for_timeout(200)  # colours of buttons change little by little
            assert violations(guest, axe) == [], opener
            guest.press("Escape")
            page.wait_for_selector("dialog[open]", state="hidden")
        # An error on the page.
        page.evaluate("document.getElementById('message').textContent = 'something went wrong'")
        page.evaluate("document.getElementById('message').className = 'error'")
        assert violations(guest, axe) == []
        # It would find what there is.
        page.evaluate("document.getElementById('undo').textContent = document.getElementById('undo').title = ''")
        assert [found.partition(":")[0] for found in violations(guest, axe)] == ["button-name"]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_in_the_queue(browser: Any, clip: Path, axe: str, scheme: str) -> None:
    folder = clip.parent / "videos"
    folder.mkdir()
    clip.rename(folder / "a")
    shutil.copytree(folder / "a", folder / "b")
    server: RunningQueue
    with running_queue(folder) as server, visiting(browser, server.address, color_scheme=scheme) as guest:
        guest.press("Shift+m")
        guest.page.wait_for_selector("#video-state:has-text('done')")
        guest.page.click("#videos")
        guest.page.wait_for_selector("#videos-dialog[open]")
        guest.page.wait_for_timeout(200)
        assert violations(guest, axe) == []
