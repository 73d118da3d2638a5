"""Commands from the page: one JSON object each, validated before anything is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from i2v.annotator.checked_json import validate_json
from i2v.annotator.document import Box, Click, Paint
from i2v.annotator.exporter import Format
from i2v.annotator.plan import Direction, Until, plan_tracking
from i2v.annotator.session import Session
from i2v.annotator.sessions import SessionBook
from i2v.results.rle import RunLengths, encode_mask

MAX_RUNS = 200_000

FrameNumber = Annotated[int, Field(ge=0, le=10**9)]
Number = Annotated[int, Field(ge=1, le=255)]
Pixel = Annotated[float, Field(ge=0, le=1e6)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ClickCommand(_Command):
    """Click on an object, or on a new one (object null)."""

    do: Literal["click"]
    object: Number | None
    frame: FrameNumber
    x: Pixel
    y: Pixel
    positive: bool


class BoxCommand(_Command):
    """Draw a box around an object, or around a new one (object null)."""

    do: Literal["box"]
    object: Number | None
    frame: FrameNumber
    x0: Pixel
    y0: Pixel
    x1: Pixel
    y1: Pixel


class PaintCommand(_Command):
    """Paint an object's whole mask: runs of background and object in turn, in column-major order."""

    do: Literal["paint"]
    object: Number | None
    frame: FrameNumber
    runs: list[Annotated[int, Field(ge=0)]] = Field(fail_fast=True, max_length=MAX_RUNS)


class PlaceCommand(_Command):
    """Clear an object's prompts on a frame, or adopt the mask shown there as a prompt."""

    do: Literal["clear", "adopt"]
    object: Number
    frame: FrameNumber


class AddCommand(_Command):
    """Add an object."""

    do: Literal["add"]
    name: Name | None = None


class RenameCommand(_Command):
    """Rename an object."""

    do: Literal["rename"]
    object: Number
    name: Name


class ShowCommand(_Command):
    """Show or hide an object."""

    do: Literal["show"]
    object: Number
    visible: bool


class DeleteCommand(_Command):
    """Delete an object and all of its masks."""

    do: Literal["delete"]
    object: Number


class PlainCommand(_Command):
    """A command without parameters."""

    do: Literal["undo", "redo", "update", "cancel", "save"]


class TrackCommand(_Command):
    """Track from the prompted frame nearest to the shown one; objects null for all."""

    do: Literal["track"]
    frame: FrameNumber
    direction: Direction
    until: Until
    objects: list[Number] | None = Field(None, fail_fast=True)


class PrepareCommand(_Command):
    """Prepare a frame that the user has been looking at for a while."""

    do: Literal["prepare"]
    frame: FrameNumber


class ExportCommand(_Command):
    """Write the masks to files."""

    do: Literal["export"]
    formats: list[Format] = Field(fail_fast=True)


Command = Annotated[
    ClickCommand
    | BoxCommand
    | PaintCommand
    | PlaceCommand
    | AddCommand
    | RenameCommand
    | ShowCommand
    | DeleteCommand
    | PlainCommand
    | TrackCommand
    | PrepareCommand
    | ExportCommand,
    Field(discriminator="do"),
]
_COMMANDS: TypeAdapter[Any] = TypeAdapter(Command)

Reply = dict[str, Any]


def read_command(body: bytes) -> _Command:
    """Parse a command from JSON.

    Raises:
        InvalidFileError: If it is invalid (a ``ValueError``).
    """
    command: _Command = validate_json(_COMMANDS, body, "", "a command")
    return command


async def perform(command: _Command, session: Session, book: SessionBook) -> Reply:
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
    step = Click(command.x, command.y, command.positive)
    return {"object": await session.prompt(command.object, command.frame, step)}


async def _box(command: BoxCommand, session: Session, _: SessionBook) -> Reply:
    step = Box(command.x0, command.y0, command.x1, command.y1)
    return {"object": await session.prompt(command.object, command.frame, step)}


async def _paint(command: PaintCommand, session: Session, _: SessionBook) -> Reply:
    step = Paint(encode_mask(RunLengths.of_runs(command.runs, session.size).mask()))
    return {"object": await session.prompt(command.object, command.frame, step)}


async def _place(command: PlaceCommand, session: Session, _: SessionBook) -> Reply:
    if command.do == "adopt":
        await session.adopt(command.object, command.frame)
    else:
        await session.edit(lambda document: document.cleared((command.object, command.frame)))
    return {}


async def _add(command: AddCommand, session: Session, _: SessionBook) -> Reply:
    document = await session.edit(lambda document: document.with_object(command.name))
    return {"object": document.numbers[-1]}


async def _rename(command: RenameCommand, session: Session, _: SessionBook) -> Reply:
    await session.edit(lambda document: document.renamed(command.object, command.name))
    return {}


async def _show(command: ShowCommand, session: Session, _: SessionBook) -> Reply:
    session.show(command.object, command.visible)
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
        session.document.check(number)
    ranges = plan_tracking(
        command.frame,
        command.direction,
        command.until,
        session.prompted_frames,
        footage.num_available,
        command.objects,
        footage.live,
    )
    session.track(ranges)
    return {}


async def _prepare(command: PrepareCommand, session: Session, _: SessionBook) -> Reply:
    session.prepare(command.frame)
    return {}


async def _export(command: ExportCommand, session: Session, book: SessionBook) -> Reply:
    book.export(session, command.formats)
    return {}


_HANDLERS: dict[type, Callable[[Any, Session, SessionBook], Awaitable[Reply]]] = {
    ClickCommand: _click,
    BoxCommand: _box,
    PaintCommand: _paint,
    PlaceCommand: _place,
    AddCommand: _add,
    RenameCommand: _rename,
    ShowCommand: _show,
    DeleteCommand: _delete,
    PlainCommand: _plain,
    TrackCommand: _track,
    PrepareCommand: _prepare,
    ExportCommand: _export,
}
