"""Requests and answers of the service's own endpoints. The OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from i2v.results.rle import MAX_CODE

MAX_POINTS = 256
MAX_FRAMES = 10**9
_IMAGE_CHARACTERS = 64 << 20

Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
ObjectNumber = Annotated[int, Field(ge=1, le=1_000_000)]
FrameIndex = Annotated[int, Field(ge=0, lt=MAX_FRAMES)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
ImageText = Annotated[str, StringConstraints(min_length=1, max_length=_IMAGE_CHARACTERS)]
Box = Annotated[list[Coordinate], Field(min_length=4, max_length=4, description="x0, y0, x1, y1 in pixels")]
Counts = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CODE)]


class RequestModel(BaseModel):
    """What a client sends: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class AnswerModel(BaseModel):
    """What the service answers."""

    model_config = ConfigDict(frozen=True)


class ErrorAnswer(AnswerModel):
    """Why a request was refused, in one sentence."""

    error: str


class Point(RequestModel):
    """A click, in pixels."""

    x: Coordinate
    y: Coordinate
    positive: bool = Field(True, description="on the object, or on the background")


class Rle(RequestModel):
    """A mask as COCO RLE with compressed run lengths."""

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="height, width")]
    counts: Counts


class OpenRequest(RequestModel):
    """Open a video file or a folder of frames below a folder that the service's user has allowed."""

    path: PathText = Field(description="absolute, or relative to one of the allowed folders")


class Marks(RequestModel):
    """Points, a box, or both."""

    points: list[Point] = Field(default=[], max_length=MAX_POINTS)
    box: Box | None = None


class PromptRequest(Marks):
    """Prompt an object on a frame: with points, a box or both, or with a mask. It replaces its prompt on the frame."""

    object: ObjectNumber
    frame: FrameIndex
    mask: Rle | None = None

    @model_validator(mode="after")
    def _check(self) -> PromptRequest:
        if (self.mask is None) == (not self.points and self.box is None):
            raise ValueError("expected points, a box or both, or else a mask")
        return self


class TrackRequest(RequestModel):
    """Track objects from a frame on."""

    start: FrameIndex | None = Field(None, description="by default the first prompted frame")
    frames: Annotated[int, Field(ge=1, lt=MAX_FRAMES)] | None = Field(
        None, description="how many, the first one included; by default all to the end of the video"
    )
    reverse: bool = False
    objects: list[ObjectNumber] | None = Field(
        default=None, min_length=1, max_length=1000, description="by default all"
    )


class ImageRequest(Marks):
    """Segment an object in an image, which is sent with the request or is below an allowed folder."""

    image: ImageText | None = Field(None, description="the image file in base64, or as a data URI")
    path: PathText | None = None

    @model_validator(mode="after")
    def _check(self) -> ImageRequest:
        if (self.image is None) == (self.path is None):
            raise ValueError("expected either image or path")
        if not self.points and self.box is None:
            raise ValueError("expected points, a box or both")
        return self


class MaskAnswer(AnswerModel):
    """A mask as COCO RLE, with what the model says of it."""

    size: list[int] = Field(description="height, width")
    counts: str
    area: int = Field(description="pixels")
    box: list[int] | None = Field(description="x0, y0, x1, y1 in pixels, the last ones excluded; null if it is empty")
    iou: float | None = Field(description="predicted IoU, 0 to 1")


class ObjectAnswer(MaskAnswer):
    """The mask of an object on a frame."""

    object: int
    object_score: float | None = Field(description="logit, positive where the object is in view")


class FrameAnswer(AnswerModel):
    """The masks on a frame."""

    frame: int
    masks: list[ObjectAnswer]


class EndAnswer(AnswerModel):
    """The last line of a complete stream."""

    done: Literal[True] = True
    frames: int


class StreamLine(AnswerModel):
    """A line of a stream: a frame, or at last the number of frames or an error."""

    frame: int | None = None
    masks: list[ObjectAnswer] | None = None
    done: bool | None = None
    frames: int | None = None
    error: str | None = None


class SessionAnswer(AnswerModel):
    """An open session."""

    session: str
    video: str = Field(description="name of the video")
    width: int
    height: int
    frames: int
    frame_rate: float | None
    objects: list[int]
    tracking: bool


class SessionList(AnswerModel):
    """All open sessions."""

    sessions: list[SessionAnswer]


class LooseModel(BaseModel):
    """What a labelling tool sends: it may say more than is asked for, and numbers as texts."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


Anything = dict[str, Any]
