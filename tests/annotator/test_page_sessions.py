"""What the page says of saving and of its session, and how work is found again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from annotator_support import FIRST, SECOND, Running, until
from page_support import visiting

from i2v.annotator import sessions
from i2v.utils.files import DiskFullError


def test_the_header_says_what_is_saved_and_what_is_not_until_it_is_over(
    browser: Any, server: Running, monkeypatch: Any
) -> None:
    save = sessions.save_session
    is_full = [False]

    def on_a_full_disk(path: Path, pieces: Any) -> None:
        if is_full[0]:
            raise DiskFullError(28, "No space left on device", str(path))
        save(path, pieces)

    monkeypatch.setattr(sessions, "save_session", on_a_full_disk)
    with visiting(browser, server.address) as guest:
        saved = guest.page.locator("#saved")
        assert saved.inner_text() == ""  # there is nothing to save yet
        guest.click(FIRST.x, FIRST.y)
        guest.page.wait_for_selector("#saved:has-text('all changes saved in')")
        is_full[0] = True
        guest.click(SECOND.x, SECOND.y)
        guest.page.wait_for_selector("#saved.failed:has-text('NOT SAVED')")
        assert "the disk is full" in saved.inner_text()
        assert "Errno" not in saved.inner_text()
        # Neither the next action nor an attempt by hand hides it.
        guest.click(FIRST.x + 2, FIRST.y)
        guest.press("s")
        guest.is_told("the disk is full")
        guest.page.wait_for_timeout(700)
        assert saved.inner_text().startswith("NOT SAVED")
        is_full[0] = False
        guest.page.wait_for_selector("#saved:not(.failed):has-text('all changes saved in')")
        assert len(json.loads(server.book.file_of(1).read_text())["prompts"][0]["steps"]) == 3


def test_the_printed_address_goes_on_with_the_latest_work(browser: Any, server: Running) -> None:
    with visiting(browser, server.address) as guest:
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        with visiting(browser, server.address) as other:  # a second tab has work of its own
            assert other.page.url.endswith("?session=2")
    until(lambda: not any(session.events.num_listeners for session in server.book))
    server.book.get(1)  # the latest
    with visiting(browser, server.address) as guest:
        guest.sees(0, 1)
        assert guest.page.url.endswith("?session=1")
        guest.page.click("#sessions")
        with guest.page.context.expect_page() as opened:
            guest.page.click("#new-session")
        opened.value.wait_for_url("**/?session=3")


def test_a_session_that_made_room_is_opened_again(browser: Any, start: Callable[..., Any]) -> None:
    with start(max_sessions=1) as server:
        with visiting(browser, server.address) as guest:
            guest.click(FIRST.x, FIRST.y)
            guest.sees(0, 1)
            address = guest.page.url
            # Its tab is frozen, as browsers do: nobody listens, and another one takes its place.
            lines: list[Any] = []
            guest.page.route_web_socket(lambda url: url.endswith("/events"), lambda line: lines.append(line))
            guest.page.reload()
            until(lambda: not server.book.get(1).events.num_listeners)
            server.book._promised.clear()
            answer = guest.page.evaluate("async () => (await fetch('sessions?new', { method: 'POST' })).status")
            assert answer == 201
            assert [session.number for session in server.book] == [2]
            guest.page.unroute_all()
        server.book._promised.clear()
        # A reload of the old address and the printed one both lead to it.
        with visiting(browser, address) as guest:
            guest.sees(0, 1)
            assert len(server.book.get(1).document.prompts[1, 0]) == 1
            until(lambda: not server.book.get(1).work.busy)


def test_sessions_are_listed_with_pictures_and_files_open(browser: Any, start: Callable[..., Any]) -> None:
    with start() as server, visiting(browser, server.address) as guest:
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        guest.page.wait_for_selector("#saved:has-text('all changes saved in')")
        file = shutil.copy(server.book.file_of(1), server.out.parent / "mine.json")
    with start() as server, visiting(browser, server.address) as guest:
        page = guest.page
        assert page.url.endswith("?session=2")  # that of the earlier run is left alone
        page.click("#sessions")
        page.wait_for_selector("#session-list li:nth-child(2)")  # before it, all pictures of an empty list are there
        page.wait_for_function(
            "() => [...document.querySelectorAll('#session-list img')].every((image) => image.naturalWidth > 0)"
        )
        listed = page.locator("#session-list li").all_inner_texts()
        assert listed[0].startswith("session 1: closed, session.json of")
        assert listed[1].endswith("this one")
        with page.context.expect_page() as opened:
            page.click("#session-list a >> nth=0")
        opened.value.wait_for_selector('#stage[data-masks="0:1"]')
        assert opened.value.url.endswith("?session=1")
        # A file from elsewhere becomes a new session.
        page.set_input_files("#session-file", file)
        page.wait_for_url("**/?session=3")
        guest.sees(0, 1)
        page.click("#sessions")
        page.set_input_files("#session-file", Path(__file__))
        page.wait_for_selector("#session-file-state:has-text('not a session file')")


def test_a_page_of_an_earlier_run_says_so(browser: Any, start: Callable[..., Any]) -> None:
    with start() as server, visiting(browser, server.address) as guest:
        lines: list[Any] = []
        guest.page.route_web_socket(lambda url: url.endswith("/events"), lambda line: lines.append(connected(line)))
        guest.reload()
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        # Another run at the same port has another token.
        guest.page.route("**/sessions/1", lambda route: route.fulfill(status=403, json={"error": "wrong token"}))
        lines[0].close()
        guest.is_told("belongs to an earlier run")
        assert guest.page.locator("#saved").inner_text() == ""


def connected(line: Any) -> Any:
    line.connect_to_server()
    return line


def test_a_session_that_cannot_be_restored_is_not_written_over(browser: Any, start: Callable[..., Any]) -> None:
    with start() as server, visiting(browser, server.address) as guest:
        guest.click(FIRST.x, FIRST.y)
        guest.page.wait_for_selector("#saved:has-text('all changes saved in')")
        file = server.book.file_of(1)
    content = json.loads(file.read_text())
    content["prompts"][0]["steps"] = [{"click": [1e6, 5, 1]}]  # off the frame: the model will not have it
    file.write_text(json.dumps(content))
    before = file.read_bytes()
    with start(resume=file) as server, visiting(browser, server.address) as guest:
        guest.page.wait_for_selector("#saved.failed:has-text('could not be restored')")
        guest.click(FIRST.x, FIRST.y)
        guest.press("s")
        guest.page.wait_for_timeout(500)
        assert file.read_bytes() == before
