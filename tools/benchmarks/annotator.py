"""The annotator as seen by its user: latency from click to mask, tracking and memory, measured in the browser."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2v.cli.arguments import add_trust_option
from tools.benchmarks import machine
from tools.benchmarks.command_line import model_options
from tools.benchmarks.memory import write_clip

# Resolves to the milliseconds from the next pointer press to the picture with the first mask, and to that with the mask
# as the model has refined it, which may be the same.
_NEXT_ANSWER = """() => { window.answer = new Promise((resolve) => {
    const stage = document.getElementById("stage");
    stage.addEventListener("pointerdown", () => {
        const pressed = performance.now();
        let first = null;
        const observer = new MutationObserver((changes) => {
            const isLast = changes.some((change) => change.attributeName === "data-news");
            if (isLast) observer.disconnect();
            requestAnimationFrame(() => {
                first ??= performance.now() - pressed;
                if (isLast) resolve([first, performance.now() - pressed]);
            });
        });
        observer.observe(stage, { attributeFilter: ["data-previews", "data-news"] });
    }, { once: true, capture: true });
}); }"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", type=Path, help="default: a rendered clip of 1280 x 720 pixels")
    parser.add_argument("--config")
    add_trust_option(parser)
    parser.add_argument("--checkpoint")
    parser.add_argument("--device")
    parser.add_argument("--clicks", type=int, default=12, help="clicks of each kind; 0 measures memory only")
    parser.add_argument("--objects", type=int, nargs="*", default=[], help="also click and track this many objects")
    parser.add_argument("--minutes", type=float, default=0, help="duration of simulated use, to measure memory")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between the steps of simulated use")


def run(args: argparse.Namespace) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        video = args.video
        if video is None:
            video = Path(folder) / "clip.mp4"
            write_clip(video, 120, 720, 1280)
        with _served(args, video, Path(folder) / "out") as (process, address), _page(address) as page:
            if args.clicks:
                rows += _latency(page, args.clicks)
                rows += _tracking(page)
                rows += _many(page, args.objects, args.clicks)
            rows += _use(page, process, args.minutes, args.pause)
    import torch

    return {"rows": rows, "video": str(args.video or "rendered"), "machine": machine.describe(torch.device("cpu"))}


@contextlib.contextmanager
def _served(args: argparse.Namespace, video: Path, out: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "i2v", "annotate", str(video), "--no-browser", "--out", str(out)]
    command += model_options(args)
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, env={**os.environ}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = next(filter(None, (re.search(r"open (http\S+)", line) for line in process.stdout)), None)
            if found is None:
                raise RuntimeError("i2v annotate did not start")
            yield process, found[1]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@contextlib.contextmanager
def _page(address: str) -> Iterator[Any]:
    # Imported here, because only this benchmark needs it (extra dev).
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("there is no browser: apt-get install chromium")
    with sync_playwright() as tools, tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.wait_for_selector("body[data-connected=true] #stage[data-frame]")
        yield page


def _place(page: Any, i: int) -> tuple[float, float]:
    """Window coordinates of the i-th click, spread over the middle of the picture."""
    box = page.locator("#picture").bounding_box()
    across, down = (0.618 * i) % 1, (0.382 * i) % 1
    return box["x"] + box["width"] * (0.25 + 0.5 * across), box["y"] + box["height"] * (0.25 + 0.5 * down)


@dataclass(frozen=True)
class _Answer:
    """Milliseconds from a click until its first mask is on the screen, and until the refined one is."""

    first: float
    refined: float


def _click(page: Any, i: int) -> _Answer:
    page.evaluate(_NEXT_ANSWER)
    page.mouse.click(*_place(page, i))
    return _Answer(*page.evaluate("window.answer"))


def _rows(what: str, answers: Sequence[_Answer]) -> list[dict[str, Any]]:
    rows = []
    for kind, times in (("first mask", [a.first for a in answers]), ("refined", [a.refined for a in answers])):
        median, worst = round(statistics.median(times)), round(max(times))
        rows.append({"what": f"{what}: {kind}", "median": median, "worst": worst, "unit": "ms"})
    return rows


def _undo(page: Any) -> None:
    """Undo all clicks."""
    import playwright.sync_api

    while page.locator("#undo").is_enabled():
        # The page is updated over another connection, which may disable the button at this moment.
        with contextlib.suppress(playwright.sync_api.TimeoutError), page.expect_response("**/commands"):
            page.click("#undo", timeout=2000)
        # Its update must not be mistaken for the result of the next click.
        page.wait_for_timeout(200)


def _scrub(page: Any, frame: int) -> None:
    page.locator("#scrub").fill(str(frame))
    page.wait_for_selector(f'#stage[data-frame="{frame}"]')


def _num_frames(page: Any) -> int:
    return int(page.get_attribute("#scrub", "max")) + 1


def _latency(page: Any, count: int) -> list[dict[str, Any]]:
    frames = _num_frames(page)
    _click(page, 0)  # warm-up
    _undo(page)
    same, looked, fresh = [], [], []
    for i in range(count):
        same.append(_click(page, i))
    _undo(page)
    for i in range(count):
        _scrub(page, (7 * i + 3) % frames)
        time.sleep(1.5)
        looked.append(_click(page, i))
        _undo(page)
        _scrub(page, (7 * i + 3 + frames // 2) % frames)
        fresh.append(_click(page, i))
        _undo(page)
    return [
        *_rows("more clicks on a frame", same),
        *_rows("first click on a frame that was looked at", looked),
        *_rows("click at once after a jump", fresh),
    ]


def _tracking(page: Any, most: int = 48) -> list[dict[str, Any]]:
    rows = []
    for objects in (1, 2):
        _scrub(page, 0)  # where watching has led, a short video has no frame left to track
        if objects == 2:
            page.keyboard.press("n")
            page.wait_for_selector(f"#objects li:nth-child({objects})")
        _click(page, objects)
        page.keyboard.press("f")
        start = time.perf_counter()
        page.wait_for_selector("#cancel:not(:disabled)")
        done = 0
        while page.locator("#cancel").is_enabled() and done < most:
            found = re.search(r": (\d+)", page.locator("#progress-text").inner_text())
            done = int(found[1]) if found else done
            time.sleep(0.05)
        rate = done / (time.perf_counter() - start)
        if done == 0:
            raise RuntimeError(f"nothing was tracked: {page.locator('#message').inner_text()}")
        page.keyboard.press("Escape")
        page.wait_for_selector("#cancel:disabled")
        rows.append(
            {"what": f"tracking, {objects} object(s)", "median": round(rate, 2), "worst": "", "unit": "frames/s"}
        )
    return rows


def _many(page: Any, counts: Sequence[int], clicks: int, seconds: float = 20) -> list[dict[str, Any]]:
    """Click and track among many objects, up to each count in turn. Tracking is measured for some seconds."""
    rows: list[dict[str, Any]] = []
    _scrub(page, 0)
    _undo(page)
    made = 0
    for count in sorted(counts):
        for _ in range(count - made):
            page.keyboard.press("n")
            page.wait_for_selector(f"#objects li.selected:nth-child({made + 1})")
            _click(page, made)
            made += 1
        rows += _rows(f"click among {count} objects", [_click(page, i + 1) for i in range(clicks)])
        page.keyboard.press("f")
        start, done = time.perf_counter(), 0
        page.wait_for_selector("#cancel:not(:disabled)")
        while page.locator("#cancel").is_enabled() and time.perf_counter() - start < seconds:
            found = re.search(r": (\d+)", page.locator("#progress-text").inner_text())
            done = int(found[1]) if found else done
            time.sleep(0.05)
        rate = round(done / (time.perf_counter() - start), 2)
        page.keyboard.press("Escape")
        page.wait_for_selector("#cancel:disabled")
        rows.append({"what": f"tracking {count} objects", "median": rate, "worst": "", "unit": "frames/s"})
        _scrub(page, 0)
    return rows


def _use(page: Any, process: subprocess.Popen[str], minutes: float, pause: float) -> list[dict[str, Any]]:
    """Simulate use for some minutes: scrub, click, track, play and undo, over and over; reports memory."""
    rows, start, cycle, told = [], time.monotonic(), 0, -1.0
    session = page.context.new_cdp_session(page)
    while minutes and (elapsed := (time.monotonic() - start) / 60) < minutes:
        _cycle(page, cycle, pause)
        cycle += 1
        # Caches fill up in the first minute.
        if elapsed - told >= minutes / 12 and elapsed > min(1, minutes / 12):
            told = elapsed
            session.send("HeapProfiler.collectGarbage")
            heap = session.send("Runtime.getHeapUsage")["usedSize"] / 2**20
            what = f"memory after {elapsed:.1f} minutes, {cycle} rounds"
            rows.append(
                {
                    "what": what,
                    "median": round(machine.resident_megabytes(process.pid)),
                    "worst": round(heap, 1),
                    "unit": "MB, JS",
                }
            )
    return rows


def _cycle(page: Any, i: int, pause: float) -> None:
    frames = _num_frames(page)
    _scrub(page, (13 * i) % frames)
    time.sleep(pause)
    _click(page, i)
    page.keyboard.press("f" if i % 2 else "d")
    time.sleep(5 * pause)
    page.keyboard.press("Escape")
    page.wait_for_selector("#cancel:disabled")
    page.keyboard.press("Space")
    time.sleep(5 * pause)
    if page.get_attribute("#play", "aria-pressed") == "true":  # it stops by itself at the end
        page.click("#play")
    _undo(page)
    page.wait_for_selector("#objects:empty", state="attached")
