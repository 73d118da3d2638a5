"""Commands from the page: one JSON object each, validated before anything is done."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from i2v.annotator.checked_json import validate_json
from i2v.annotator.exporter import Format
from i2v.annotator.plan import Direction, Until
from i2v.annotator.polygon_edits import MAX_EDGE, MAX_POLYGONS

MAX_RUNS = 200_000

FrameNumber = Annotated[int, Field(ge=0, le=10**9)]
Number = Annotated[int, Field(ge=1, le=255)]
Pixel = Annotated[float, Field(ge=0, le=1e6)]
BoxSide = Annotated[float, Field(ge=-1e6, le=1e6)]  # a box may exceed the frame, to which it is clipped
Batch = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]


class CommandModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class PromptCommand(CommandModel):
    """A prompt for an object, or for a new one: object null for the next free number, or ``new`` for this number."""

    object: Number | None
    new: bool = False
    frame: FrameNumber


class ClickCommand(PromptCommand):
    """Click on an object or beside it."""

    do: Literal["click"]
    x: Pixel
    y: Pixel
    positive: bool


class BoxCommand(PromptCommand):
    """Draw a box around an object."""

    do: Literal["box"]
    x0: BoxSide
    y0: BoxSide
    x1: BoxSide
    y1: BoxSide


class PaintCommand(PromptCommand):
    """Paint an object's mask: runs of background and object in turn, in column-major order.

    They are the whole mask, or pixels that are added to the mask that is shown, or taken from it.
    """

    do: Literal["paint"]
    mode: Literal["replace", "add", "erase"] = "replace"
    runs: list[Annotated[int, Field(ge=0, le=10**9)]] = Field(fail_fast=True, max_length=MAX_RUNS)


class PolygonChange(CommandModel):
    """The new vertices of one of a mask's polygons, each x and y."""

    polygon: Annotated[int, Field(ge=0, lt=MAX_POLYGONS)]
    vertices: list[tuple[Pixel, Pixel]] = Field(fail_fast=True, min_length=3, max_length=MAX_EDGE)


class PolygonsCommand(CommandModel):
    """Change polygons of the mask of an object on a frame, which is given as compressed run lengths."""

    do: Literal["polygons"]
    object: Number
    frame: FrameNumber
    mask: str
    changes: list[PolygonChange] = Field(fail_fast=True, min_length=1, max_length=MAX_POLYGONS)


class PlaceCommand(CommandModel):
    """Clear an object's prompts on a frame, or adopt the mask shown there as a prompt."""

    do: Literal["clear", "adopt"]
    object: Number
    frame: FrameNumber


class AddCommand(CommandModel):
    """Add an object, with this number or the next free one."""

    do: Literal["add"]
    object: Number | None = None
    name: Name | None = None


class RenameCommand(CommandModel):
    """Rename an object."""

    do: Literal["rename"]
    object: Number
    name: Name


class ClassifyCommand(CommandModel):
    """Set an object's class; empty for none."""

    do: Literal["classify"]
    object: Number
    category: Annotated[str, StringConstraints(strip_whitespace=True, max_length=80)]


class LockCommand(CommandModel):
    """Lock an object, so that nothing changes it, or unlock it."""

    do: Literal["lock"]
    object: Number
    locked: bool


class ShowCommand(CommandModel):
    """Show or hide an object."""

    do: Literal["show"]
    object: Number
    visible: bool


class DeleteCommand(CommandModel):
    """Delete an object and all of its masks."""

    do: Literal["delete"]
    object: Number


class PlainCommand(CommandModel):
    """A command without parameters."""

    do: Literal["undo", "redo", "update", "cancel", "save"]


class TrackCommand(CommandModel):
    """Track from the prompted frame nearest to the shown one; objects null for all."""

    do: Literal["track"]
    frame: FrameNumber
    direction: Direction
    until: Until
    objects: list[Number] | None = Field(None, fail_fast=True, min_length=1)
    first: FrameNumber = 0
    last: FrameNumber | None = None


class ReviewCommand(CommandModel):
    """Accept a range of frames as reviewed, so that tracking leaves their masks alone, or take that back."""

    do: Literal["review"]
    first: FrameNumber
    last: FrameNumber
    accepted: bool


class RangeCommand(CommandModel):
    """Say that an object is out of view on a range of frames, or clear its masks and prompts there."""

    do: Literal["absent", "clear_masks"]
    object: Number
    first: FrameNumber
    last: FrameNumber


class CopyCommand(CommandModel):
    """Copy an object's mask to another frame, as a prompt there."""

    do: Literal["copy"]
    object: Number
    frame: FrameNumber
    to: FrameNumber


class MergeCommand(CommandModel):
    """Merge an object into another one."""

    do: Literal["merge"]
    object: Number
    into: Number


class SplitCommand(CommandModel):
    """Make another object of an object from a frame on."""

    do: Literal["split"]
    object: Number
    frame: FrameNumber


class PrepareCommand(CommandModel):
    """Prepare a frame that the user has been looking at for a while."""

    do: Literal["prepare"]
    frame: FrameNumber


class ImportCommand(CommandModel):
    """Import the files of a batch that were uploaded; a mask without a number is that of ``object``."""

    do: Literal["import"]
    batch: Batch
    object: Number


class ExportCommand(CommandModel):
    """Write the masks to files."""

    do: Literal["export"]
    formats: list[Format] = Field(fail_fast=True)
    first: FrameNumber = 0
    last: FrameNumber | None = None
    with_hidden: bool = True


Command = Annotated[
    ClickCommand
    | BoxCommand
    | PaintCommand
    | PolygonsCommand
    | PlaceCommand
    | AddCommand
    | RenameCommand
    | ClassifyCommand
    | LockCommand
    | ShowCommand
    | DeleteCommand
    | PlainCommand
    | TrackCommand
    | ReviewCommand
    | RangeCommand
    | CopyCommand
    | MergeCommand
    | SplitCommand
    | PrepareCommand
    | ImportCommand
    | ExportCommand,
    Field(discriminator="do"),
]
_COMMANDS: TypeAdapter[Any] = TypeAdapter(Command)


def read_command(body: bytes) -> CommandModel:
    """Parse a command from JSON.

    Raises:
        InvalidFileError: If it is invalid (a ``ValueError``).
    """
    command: CommandModel = validate_json(_COMMANDS, body, "", "a command")
    return command
