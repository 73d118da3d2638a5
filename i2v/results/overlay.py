"""Visualization of masks: palette, overlay pictures, overlay video and contact sheet."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from i2v.utils.ffmpeg import file_url, stop_log
from i2v.utils.files import StreamedFile, replacing

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

DEFAULT_FRAME_RATE = 24.0
SHEET_FRAMES = 12
CRF = 20
"""Video quality: H.264's constant rate factor, lower is better. Six more halve the size."""
COARSE_CRF = 32
TICKS_PER_SECOND = 90_000
"""Unit of the times of frames that do not come at a constant rate."""
# Above this many pixels the encoder's lookahead is off: it buffers a dozen frames, which is 1.5 GB at 8K.
LARGE_PICTURE = 4096 * 2304
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class UserPrompt:
    """A user's prompt for one object on one frame: clicks and a box, or a mask file.

    Attributes:
        obj_id: The object's id.
        frame: Index of the frame.
        clicks: (x, y, label) in pixels; label 1 is on the object, 0 on the background.
        box: (x0, y0, x1, y1) in pixels.
        mask: Path of the mask file.
    """

    obj_id: Hashable
    frame: int
    clicks: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: Path | None = None


def _make_palette() -> Pixels:
    # The DAVIS and PASCAL VOC palette, its first colours replaced by the seven colour-blind-safe ones of Okabe and Ito
    # and their light and dark versions.
    index = np.arange(256)
    bits = [[((index >> (3 * k + channel)) & 1) << (7 - k) for k in range(3)] for channel in range(3)]
    colours = np.array(bits).sum(axis=1).T
    names = ["d55e00", "56b4e9", "f0e442", "009e73", "cc79a7", "0072b2", "e69f00"]
    okabe_ito = np.array([list(bytes.fromhex(name)) for name in names])
    colours[1:22] = np.concatenate([okabe_ito, (okabe_ito + 255) // 2, okabe_ito * 3 // 5])
    return colours.astype(np.uint8)


PALETTE: Pixels = _make_palette()
"""RGB colour of each label, ``(256, 3)``; label 0 is the background, black."""


def blend_overlay(picture: Pixels, labels: Pixels, opacity: float = 0.5) -> Pixels:
    """Paint the objects of a label map over a picture, with opaque outlines on their inside.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        labels: ``(H, W)`` uint8.
        opacity: Opacity of the colours in 0..1.

    Returns:
        ``(H, W, 3)`` uint8, a copy.

    Raises:
        ValueError: If the sizes differ.
    """
    if picture.shape[:2] != labels.shape:
        raise ValueError(f"expected a mask of {_size(picture)} pixels like the frame, got {_size(labels)}")
    image = Image.fromarray(picture)
    canvas = image.copy()
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=len(PALETTE))[1:]) + 1:
        # Lookup and masked paste in Pillow are several times faster than blending and indexing in NumPy.
        canvas.paste(image.point(_tints(int(label), opacity)), mask=Image.fromarray(labels == label))
    painted = np.array(canvas)
    edge = _outline(labels, thickness=max(1, round(min(labels.shape) / 240)))
    painted[edge] = PALETTE[labels[edge]]
    return painted


@functools.lru_cache(maxsize=len(PALETTE))
def _tints(label: int, opacity: float) -> list[int]:
    """Return the lookup table of the blend with a label's colour: 256 values each for red, green and blue."""
    blended = (1 - opacity) * np.arange(256) + opacity * PALETTE[label][:, None]
    return np.rint(blended).astype(np.uint8).ravel().tolist()


def _outline(labels: Pixels, thickness: int) -> NDArray[np.bool_]:
    # Object pixels within `thickness` pixels of another label along an axis. The frame's border is not an edge.
    edge = np.zeros(labels.shape, bool)
    for area, mark in ((labels, edge), (labels.T, edge.T)):
        for step in range(1, thickness + 1):
            differs = area[:-step] != area[step:]
            mark[:-step] |= differs
            mark[step:] |= differs
    return edge & (labels > 0)


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


class VideoWriter(StreamedFile):
    """Writes an MP4 that browsers play: H.264, yuv420p, index at the front. Frames are encoded as they come.

    Frames come at a constant rate, or each at its time. Subclasses write other formats.
    """

    container = "mp4"
    container_options: ClassVar[dict[str, str]] = {"movflags": "+faststart"}

    def __init__(self, path: str | Path, frame_rate: float | None = None, crf: int = CRF) -> None:
        """Open nothing yet.

        Args:
            path: Path of the MP4.
            frame_rate: Frames per second, by default 24.
            crf: H.264's constant rate factor; lower is better, and six more halve the size.

        Raises:
            ValueError: If the frame rate is not in (0, 1000].
        """
        super().__init__(path)
        rate = DEFAULT_FRAME_RATE if frame_rate is None else float(frame_rate)
        if not 0 < rate <= 1000:
            raise ValueError(f"{self.path}: expected a frame rate above 0 and up to 1000 Hz, got {rate:g}")
        # 1001 represents NTSC rates such as 30000/1001 exactly; the fallback codec has 16-bit time bases.
        self._rate = Fraction(rate).limit_denominator(min(1001, int(65535 / rate)))
        self._crf = crf
        self._shape: tuple[int, ...] | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._first_time: float | None = None
        self._last_tick = -1

    def write(self, picture: Pixels, time: float | None = None) -> None:
        """Append a frame.

        Args:
            picture: ``(H, W, 3)`` uint8 RGB, all of one size; writers of other formats can take RGBA.
            time: When it is shown in seconds, later than the frame before. The first frame is shown at the start of
                the file. Either all frames have a time, or none, and then they come at the frame rate.

        Raises:
            OSError: If writing fails, for example a DiskFullError. No file will be created.
            ValueError: If the size differs from the first frame's, or the encoder does not support it (over 16384
                pixels a side, for example), or the time is missing or given only here.
        """
        if self.num_frames and (time is None) != (self._first_time is None):
            raise ValueError(f"{self.path}: frame {self.num_frames}: expected a time for all frames or for none")
        if self._shape not in (None, picture.shape):
            got, expected = picture.shape, self._shape
            raise ValueError(f"{self.path}: frame {self.num_frames} has shape {got}, those before it {expected}")
        self._shape = picture.shape
        if time is not None and self._first_time is None:
            self._first_time = time
        image = self._video_frame(picture)
        image.pts = self._tick(time)
        with self._writing():
            container, stream = self._opened(image.width, image.height)
            try:
                container.mux(stream.encode(image))
            except av.FFmpegError as error:
                self._failed = True
                if isinstance(error, OSError):  # for example on a full disk
                    raise
                size = f"{image.width}x{image.height}"
                raise ValueError(f"{self.path}: the encoder takes no frames of {size} pixels: {error}") from error
            self.num_frames += 1

    def _tick(self, time: float | None) -> int:
        """The time of the next frame in units of the stream's time base."""
        tick = self.num_frames
        if time is not None and self._first_time is not None:
            tick = round((time - self._first_time) * TICKS_PER_SECOND)
        self._last_tick = max(tick, self._last_tick + 1)
        return self._last_tick

    def _opened(self, width: int, height: int) -> tuple[OutputContainer, VideoStream]:
        if self._container is None or self._stream is None:
            url = file_url(self._make())
            stop_log()
            self._container = av.open(url, "w", format=self.container, options=self.container_options)
            self._stream = self._add_stream(self._container, self._rate, width, height)
            if self._first_time is not None:
                self._stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
        return self._container, self._stream

    def _add_stream(self, container: OutputContainer, rate: Fraction, width: int, height: int) -> VideoStream:
        return _add_h264(container, rate, width, height, self._crf)

    def _video_frame(self, picture: Pixels) -> av.VideoFrame:
        image = av.VideoFrame.from_ndarray(pad_to_even(picture), format="rgb24")
        return image.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)

    def _finalize(self) -> None:
        if self._container is not None and self._stream is not None:
            try:
                # FFmpeg crashes on further packets if the header could not be written.
                if not self._failed:
                    self._container.mux(self._stream.encode(None))
            finally:
                # The file will be discarded, so errors about its incomplete state do not matter.
                with contextlib.suppress(av.FFmpegError) if self._failed else contextlib.nullcontext():
                    self._container.close()


def pad_to_even(picture: Pixels) -> Pixels:
    """Repeat the last row and column of ``(H, W, C)`` where a side is odd: chroma is stored for 2 x 2 pixels."""
    height, width = picture.shape[:2]
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _add_h264(container: OutputContainer, rate: Fraction, width: int, height: int, crf: int) -> VideoStream:
    if "libx264" in av.codecs_available:
        options = {"preset": "veryfast", "crf": str(crf)}
        if width * height > LARGE_PICTURE:
            options["tune"] = "zerolatency"
        stream = container.add_stream("libx264", rate=rate, options=options)
    else:
        log.warning("this PyAV has no libx264: writing MPEG-4, which some browsers do not play")
        stream = container.add_stream("mpeg4", rate=rate)
        stream.bit_rate = max(400_000, int(width * height * rate / 4 * 2 ** ((CRF - crf) / 6)))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    tag_colours(stream)
    return stream


def tag_colours(stream: VideoStream) -> None:
    """Say that a stream is BT.709 of limited range: players guess the colour space of untagged files by their size."""
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1


def spread_frames(frames: Sequence[int], count: int = SHEET_FRAMES, keep: Iterable[int] = ()) -> list[int]:
    """Choose frames for a contact sheet, evenly spread.

    Args:
        frames: Frame indices in ascending order.
        count: Most frames to choose.
        keep: Frames to prefer, such as prompted ones.

    Returns:
        Up to ``count`` of the frames, in ascending order.
    """
    if len(frames) <= count:
        return list(frames)
    chosen = {frames[round(i * (len(frames) - 1) / (count - 1))] for i in range(count)}
    kept = sorted(set(keep) & set(frames))[:count]
    for frame in kept:
        if frame not in chosen:
            # A preferred frame replaces its nearest neighbour, so the frames stay evenly spread.
            chosen.remove(min(chosen.difference(kept), key=lambda other: abs(other - frame)))
            chosen.add(frame)
    return sorted(chosen)


class ContactSheet:
    """A page of thumbnails with frame indices and the user's prompts. Keeps only the page in memory."""

    _SIDE, _GAP, _BAR, _MIN_WIDTH = 320, 6, 20, 130

    def __init__(self, frames: Sequence[int], prompts: Iterable[UserPrompt], labels: Mapping[Hashable, int]) -> None:
        """Create an empty sheet.

        Args:
            frames: Frames to show, in order.
            prompts: The user's prompts.
            labels: Label, and thereby colour, of each prompted object.
        """
        self._cells = {frame: cell for cell, frame in enumerate(frames)}
        self._prompts = tuple(prompts)
        self._labels = dict(labels)
        self._page: Image.Image | None = None
        self._columns = 1

    def add(self, frame: int, picture: Pixels) -> None:
        """Add a frame to the page; frames that were not chosen are ignored.

        Args:
            frame: Index of the frame.
            picture: ``(H, W, 3)`` uint8 RGB.
        """
        if frame not in self._cells:
            return
        height, width = picture.shape[:2]
        scale = self._SIDE / max(height, width)
        thumb = Image.fromarray(picture).resize((max(1, round(width * scale)), max(1, round(height * scale))))
        prompts = [prompt for prompt in self._prompts if prompt.frame == frame]
        for prompt in prompts:
            draw_prompt(thumb, prompt, scale, tuple(PALETTE[self._labels[prompt.obj_id]].tolist()))
        self._place(frame, thumb, f"frame {frame}" + (" - prompt" if prompts else ""))

    def _place(self, frame: int, thumb: Image.Image, text: str) -> None:
        # Leave room for the caption of a very narrow picture.
        cell_width = max(thumb.width, self._MIN_WIDTH) + self._GAP
        cell_height = thumb.height + self._BAR + self._GAP
        if self._page is None:
            self._columns = _num_columns(len(self._cells), cell_width / cell_height)
            rows = math.ceil(len(self._cells) / self._columns)
            size = (self._columns * cell_width + self._GAP, rows * cell_height + self._GAP)
            self._page = Image.new("RGB", size, (24, 24, 24))
        row, column = divmod(self._cells[frame], self._columns)
        left, top = column * cell_width + self._GAP, row * cell_height + self._GAP
        font = ImageFont.load_default(size=14)
        ImageDraw.Draw(self._page).text((left, top), text, fill=(255, 255, 255), font=font)
        self._page.paste(thumb, (left, top + self._BAR))

    def save(self, path: str | Path) -> None:
        """Write the page as PNG, atomically. Writes nothing if no frame was added."""
        if self._page is not None:
            with replacing(path) as temporary:
                self._page.save(temporary, format="PNG")


def _num_columns(count: int, cell_aspect: float) -> int:
    # The page should fit a screen (16:10) and leave few cells empty, for landscape and portrait videos alike.
    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(cell_aspect * columns / rows / 1.6)) + (rows * columns - count) / count

    return min(range(1, count + 1), key=cost)


def draw_prompt(thumb: Image.Image, prompt: UserPrompt, scale: float, colour: tuple[int, ...]) -> None:
    """Draw the box and the clicks of a prompt on a picture of a frame.

    Args:
        thumb: The picture, changed in place.
        prompt: The prompt, in pixels of the frame.
        scale: Pixels of the picture in one of the frame.
        colour: RGB of the object.
    """
    draw = ImageDraw.Draw(thumb)
    if prompt.box is not None:
        corners = [value * scale for value in prompt.box]
        draw.rectangle(corners, outline=(255, 255, 255), width=4)
        draw.rectangle(corners, outline=colour, width=2)
    for x, y, label in prompt.clicks:
        # Plus and minus signs tell object from background clicks, not colour alone.
        x, y, arm = (x + 0.5) * scale, (y + 0.5) * scale, 4
        disc, sign = (colour, (255, 255, 255)) if label else ((255, 255, 255), (0, 0, 0))
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=disc, outline=sign, width=1)
        draw.line((x - arm, y, x + arm, y), fill=sign, width=2)
        if label:
            draw.line((x, y - arm, x, y + arm), fill=sign, width=2)
