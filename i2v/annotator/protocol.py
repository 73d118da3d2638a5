"""What the commands from the page do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from i2v.annotator.commands import (
    AddCommand,
    BoxCommand,
    ClassifyCommand,
    ClickCommand,
    CommandModel,
    CopyCommand,
    DeleteCommand,
    ExportCommand,
    ImportCommand,
    LockCommand,
    MergeCommand,
    PaintCommand,
    PlaceCommand,
    PlainCommand,
    PolygonsCommand,
    PrepareCommand,
    PromptCommand,
    RangeCommand,
    RenameCommand,
    ReviewCommand,
    ShowCommand,
    SplitCommand,
    TrackCommand,
)
from i2v.annotator.document import Box, Click, Paint, Step, Stroke
from i2v.annotator.exporter import ExportRequest, start_export
from i2v.annotator.importer import start_import
from i2v.annotator.plan import clipped, plan_tracking, within
from i2v.annotator.polygon_edits import redraw
from i2v.annotator.session import Session
from i2v.annotator.sessions import SessionBook
from i2v.results.rle import RunLengths, encode_mask

Reply = dict[str, Any]


async def perform(command: CommandModel, session: Session, book: SessionBook) -> Reply:
    """Execute a command.

    Args:
        command: The command.
        session: The session it is for.
        book: All sessions.

    Returns:
        The response, as JSON.

    Raises:
        ValueError: If the command does not apply.
        IndexError: If there is no such frame.
        RuntimeError: If another job is running.
        OSError: If a file cannot be read or written.
    """
    handler: Callable[[Any, Session, SessionBook], Awaitable[Reply]] = _HANDLERS[type(command)]
    return await handler(command, session, book)


async def _click(command: ClickCommand, session: Session, _: SessionBook) -> Reply:
    return await _prompt(command, session, Click(command.x, command.y, command.positive))


async def _box(command: BoxCommand, session: Session, _: SessionBook) -> Reply:
    return await _prompt(command, session, Box(command.x0, command.y0, command.x1, command.y1))


async def _paint(command: PaintCommand, session: Session, _: SessionBook) -> Reply:
    mask = RunLengths.of_runs(command.runs, session.size).mask()
    whole = command.mode == "replace"
    return await _prompt(command, session, Paint(encode_mask(mask)) if whole else Stroke(mask, command.mode == "erase"))


async def _prompt(command: PromptCommand, session: Session, step: Step | Stroke) -> Reply:
    return {"object": await session.prompt(command.object, command.frame, step, command.new)}


async def _polygons(command: PolygonsCommand, session: Session, _: SessionBook) -> Reply:
    changes = {change.polygon: np.array(change.vertices, dtype=np.float64) for change in command.changes}
    if len(changes) < len(command.changes):
        raise ValueError("polygons: expected each of them once")
    await redraw(session, command.object, command.frame, command.mask, changes)
    return {}


async def _place(command: PlaceCommand, session: Session, _: SessionBook) -> Reply:
    if command.do == "adopt":
        await session.adopt(command.object, command.frame)
    else:
        await session.take_back(command.object, command.frame)
    return {}


async def _add(command: AddCommand, session: Session, _: SessionBook) -> Reply:
    document = await session.edit(lambda document: document.with_object(command.name, command.object))
    return {"object": document.numbers[-1]}


async def _rename(command: RenameCommand, session: Session, _: SessionBook) -> Reply:
    await session.edit(lambda document: document.renamed(command.object, command.name))
    return {}


async def _classify(command: ClassifyCommand, session: Session, _: SessionBook) -> Reply:
    await session.edit(lambda document: document.classified(command.object, command.category))
    return {}


async def _lock(command: LockCommand, session: Session, _: SessionBook) -> Reply:
    await session.edit(lambda document: document.with_lock(command.object, command.locked))
    return {}


async def _show(command: ShowCommand, session: Session, _: SessionBook) -> Reply:
    await session.edit(lambda document: document.shown(command.object, command.visible))
    return {}


async def _delete(command: DeleteCommand, session: Session, _: SessionBook) -> Reply:
    await session.edit(lambda document: document.without_object(command.object))
    return {}


async def _plain(command: PlainCommand, session: Session, book: SessionBook) -> Reply:
    if command.do == "undo":
        await session.undo()
    elif command.do == "redo":
        await session.redo()
    elif command.do == "update":
        session.update()
    elif command.do == "cancel":
        await session.work.cancel()
    else:
        return {"path": str(await book.save(session))}
    return {}


async def _track(command: TrackCommand, session: Session, _: SessionBook) -> Reply:
    footage = session.footage
    for number in command.objects or ():
        session.document.check_unlocked(number)
    objects = command.objects or session.unlocked
    if objects == []:
        raise ValueError("nothing to track: all objects are locked")
    prompts = within(session.prompted_frames, command.first, command.last)
    ranges = plan_tracking(
        command.frame,
        command.direction,
        command.until,
        prompts,
        footage.num_available,
        objects,
        footage.live,
    )
    session.track(clipped(ranges, command.first, command.last))
    return {}


async def _review(command: ReviewCommand, session: Session, _: SessionBook) -> Reply:
    frames = _frames(command.first, command.last, session)
    await session.edit(lambda document: document.with_reviewed(frames, command.accepted))
    return {}


async def _range(command: RangeCommand, session: Session, _: SessionBook) -> Reply:
    _frames(command.first, command.last, session)
    change = session.mark_absent if command.do == "absent" else session.clear_masks
    await change(command.object, command.first, command.last)
    return {}


async def _copy(command: CopyCommand, session: Session, _: SessionBook) -> Reply:
    await session.adopt(command.object, command.frame, command.to)
    return {}


def _frames(first: int, last: int, session: Session) -> range:
    count = session.footage.num_available
    if not first <= last < count:
        raise ValueError(f"frames: expected a range in 0 to {count - 1}, got {first} to {last}")
    return range(first, last + 1)


async def _merge(command: MergeCommand, session: Session, _: SessionBook) -> Reply:
    await session.merge(command.object, command.into)
    return {}


async def _split(command: SplitCommand, session: Session, _: SessionBook) -> Reply:
    return {"object": await session.split(command.object, command.frame)}


async def _prepare(command: PrepareCommand, session: Session, _: SessionBook) -> Reply:
    session.prepare(command.frame)
    return {}


async def _import(command: ImportCommand, session: Session, _: SessionBook) -> Reply:
    start_import(session, session.uploads.take(command.batch), command.object)
    return {}


async def _export(command: ExportCommand, session: Session, book: SessionBook) -> Reply:
    request = ExportRequest(frozenset(command.formats), command.first, command.last, command.with_hidden)
    start_export(session, book.export_folder(session), request)
    return {}


_HANDLERS: dict[type, Callable[[Any, Session, SessionBook], Awaitable[Reply]]] = {
    ClickCommand: _click,
    BoxCommand: _box,
    PaintCommand: _paint,
    PolygonsCommand: _polygons,
    PlaceCommand: _place,
    AddCommand: _add,
    RenameCommand: _rename,
    ClassifyCommand: _classify,
    LockCommand: _lock,
    ShowCommand: _show,
    DeleteCommand: _delete,
    PlainCommand: _plain,
    TrackCommand: _track,
    ReviewCommand: _review,
    RangeCommand: _range,
    CopyCommand: _copy,
    MergeCommand: _merge,
    SplitCommand: _split,
    PrepareCommand: _prepare,
    ImportCommand: _import,
    ExportCommand: _export,
}
