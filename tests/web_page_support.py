"""A person at an exported page: a server of its folder, and what the tests do in the browser."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """What `python -m http.server` answers with, without its log."""

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder as `python -m http.server --bind 127.0.0.1` does; yields its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class Guest:
    """One tab."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._hear)
        page.goto(address)

    def _hear(self, line: Any) -> None:
        # That a file is missing is the browser's to say, and the page's to show.
        if line.type == "error" and "Failed to load resource" not in line.text:
            self.problems.append(line.text)

    def is_ready(self) -> None:
        """Wait until there are a video and a model, and nothing is being done."""
        self.page.wait_for_selector("body[data-state=ready]")

    def is_told(self, text: str) -> None:
        self.page.wait_for_selector(f"#error:has-text({json.dumps(text)})")

    def opens(self, files: Sequence[Path], frames: int) -> None:
        self.page.set_input_files("#files", [str(path) for path in files])
        self.page.wait_for_selector(f'#frame[max="{frames - 1}"]:not(:disabled)')
        self.is_ready()

    def goes_to(self, frame: int) -> None:
        self.page.locator("#frame").fill(str(frame))
        self.page.wait_for_selector(f'#stage[data-frame="{frame}"]')

    def clicks(self, x: int, y: int, objects: str, **options: Any) -> list[float]:
        """Click about at a pixel of the video, and wait until the frame has the masks of these objects, "1,2".

        Returns:
            Where that was in the video: the browser tells whole pixels of the window, in which the video is centred.
        """
        box = self.page.locator("#picture").bounding_box()
        at = [round(box["x"] + x), round(box["y"] + y)]  # videos of the tests are shown at their size
        self.page.mouse.click(*at, **options)
        self.is_ready()
        frame = self.page.locator("#frame").input_value()
        self.page.wait_for_selector(f'#stage[data-masks="{frame}:{objects}"]')
        return [at[0] - box["x"], at[1] - box["y"]]

    def tracks(self, frames: int) -> None:
        self.page.click("#track")
        self.page.wait_for_selector(f"#status:has-text('done: {frames} frames')")
        self.is_ready()

    def downloads(self) -> dict[str, Any]:
        with self.page.expect_download() as download:
            self.page.click("#download")
        found: dict[str, Any] = json.loads(Path(download.value.path()).read_text())
        return found

    def computes(self, module: str, script: str, *values: Any) -> Any:
        """What a function says of a module of the page, and of values."""
        call = "async ([name, values]) => { const module = await import(`/${name}`); return (%s)(module, ...values); }"
        return self.page.evaluate(call % script, [module, list(values)])


@contextlib.contextmanager
def visiting_page(browser: Any, address: str) -> Iterator[Guest]:
    """Open a tab of its own; at the end, nothing may have gone wrong in the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    context.set_default_timeout(60_000)
    try:
        guest = Guest(context.new_page(), address)
        yield guest
        assert guest.problems == []
    finally:
        context.close()
