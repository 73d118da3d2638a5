"""Who uses the model when, and news for slow listeners."""

from __future__ import annotations

import asyncio
import threading

import pytest
from annotator_support import run_async

from i2v.annotator.events import MAX_PENDING, EventHub
from i2v.annotator.turns import ModelTurns, Urgency
from i2v.annotator.work import Outcome, Work


def test_the_most_urgent_goes_first_and_one_at_a_time() -> None:
    order: list[str] = []
    hold = threading.Event()

    async def scenario() -> None:
        turns = ModelTurns()
        calls = [(Urgency.TRACK, "a"), (Urgency.PREPARE, "b"), (Urgency.ANSWER, "c"), (Urgency.ANSWER, "d")]
        first = asyncio.create_task(turns.run(Urgency.TRACK, hold.wait, 5))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(turns.run(urgency, order.append, name)) for urgency, name in calls]
        await asyncio.sleep(0.01)
        assert order == []
        hold.set()
        await asyncio.gather(first, *others)
        turns.close()

    run_async(scenario())
    assert order == ["c", "d", "b", "a"]


def test_a_cancelled_or_failed_caller_does_not_stop_the_others() -> None:
    hold = threading.Event()

    async def scenario() -> str:
        turns = ModelTurns()
        running = asyncio.create_task(turns.run(Urgency.TRACK, hold.wait, 5))
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(turns.run(Urgency.ANSWER, lambda: "never"))
        fails = asyncio.create_task(turns.run(Urgency.PREPARE, lambda: 1 / 0))
        last = asyncio.create_task(turns.run(Urgency.TRACK, lambda: "done"))
        await asyncio.sleep(0.01)
        running.cancel()
        waiting.cancel()
        # What runs cannot be stopped: nobody else may use the model before it has ended.
        await asyncio.sleep(0.05)
        assert not last.done()
        hold.set()
        with pytest.raises(ZeroDivisionError):
            await fails
        result = await last
        turns.close()
        return result

    assert run_async(scenario()) == "done"


def test_a_caller_cancelled_as_its_turn_comes_passes_it_on() -> None:
    async def scenario() -> None:
        turns = ModelTurns()
        hold = threading.Event()
        running = asyncio.create_task(turns.run(Urgency.TRACK, hold.wait, 5))
        await asyncio.sleep(0.01)
        chosen = asyncio.create_task(turns.run(Urgency.ANSWER, lambda: "chosen"))
        after = asyncio.create_task(turns.run(Urgency.TRACK, lambda: "after"))
        await asyncio.sleep(0.01)
        turns._pass_on()  # gives the turn to `chosen`, which is cancelled before it notices
        chosen.cancel()
        hold.set()
        await running
        assert await asyncio.wait_for(after, 5) == "after"
        turns.close()

    run_async(scenario())


def test_a_slow_listener_is_told_to_fetch_everything() -> None:
    async def scenario() -> None:
        hub = EventHub()
        with hub.listening() as queue:
            for frame in range(MAX_PENDING + 5):
                hub.publish("masks", frame=frame)
            assert queue.qsize() == 6
            assert queue.get_nowait() == {"event": "refetch"}
            assert queue.get_nowait() == {"event": "masks", "frame": MAX_PENDING}
        hub.publish("state")
        assert queue.qsize() == 4

    run_async(scenario())


def test_work_ends_with_its_error_told_and_the_next_can_begin() -> None:
    async def scenario() -> list[dict]:
        hub = EventHub()
        work = Work(hub)

        async def fail() -> None:
            raise ValueError("frame 3:\nis damaged")

        async def wait() -> None:
            await asyncio.sleep(60)

        with hub.listening() as queue:
            work.start("track", fail, 5)
            while work.busy:
                await asyncio.sleep(0.01)
            work.start("export", wait)
            with pytest.raises(RuntimeError, match="another job is running"):
                work.start("track", wait)
            work.advance(3)
            await work.cancel()
            assert not work.busy
            return [queue.get_nowait() for _ in range(queue.qsize())]

    events = run_async(scenario())
    assert {"event": "error", "message": "frame 3: is damaged"} in events
    progress = [event["progress"] for event in events if event["event"] == "progress"]
    assert [p and (p["task"], p["done"], p["total"]) for p in progress] == [
        ("track", 0, 5),
        None,
        ("export", 0, None),
        ("export", 3, None),
        None,
    ]


def test_what_a_job_has_achieved_is_told_when_the_next_can_begin() -> None:
    async def scenario() -> list[tuple[dict, bool]]:
        hub = EventHub()
        work = Work(hub)

        async def count() -> Outcome:
            return Outcome("counted", {"objects": 3})

        with hub.listening() as queue:
            work.start("count", count)
            events = []
            while not events or events[-1][0]["event"] != "counted":
                events.append((await queue.get(), work.busy))
            return events

    events = run_async(scenario())
    assert [event["event"] for event, _ in events] == ["progress", "progress", "counted"]
    assert events[1][0]["progress"] is None
    assert events[2] == ({"event": "counted", "objects": 3}, False)
