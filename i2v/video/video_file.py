"""Video files as frame sources: exact frame indices, random access, bounded memory."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import struct
import threading
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from i2v.utils.process_local import ProcessLocal
from i2v.video.frame_source import FrameSource
from i2v.video.video_decoder import Decoder, PacketIndex

log = logging.getLogger(__name__)

# Frames decoded on opening to check that their times agree with the packets'.
_PROBE = 8

# Two, so that two readers at different places of the video do not seek back and forth.
_MAX_DECODERS = 2

# The first two columns of a display matrix, row by row: the directions of the picture's x and y axes on the screen.
Axes = tuple[int, int, int, int]
_UPRIGHT: Axes = (1, 0, 0, 1)


class _Decoders:
    """Decoders of one file, and who may use them: a process has its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.most_recent: list[Decoder] = []  # the one used last comes first


class VideoFile(FrameSource):
    """The frames of a video file in any container and codec that FFmpeg decodes.

    Frame ``i`` is the ``i``-th frame that decoding the whole file gives, whatever the header says about count and rate.
    Opening scans the packets once without decoding them. Sequential reads decode onward; a random read starts at the
    key frame before. Up to two decoders each cache up to 64 MiB of recent frames, so reading backwards does not decode
    from a key frame for every frame.

    Rotation and mirroring in the display matrix are applied, rounded to right angles. Pixels are taken as square, and
    interlaced video is not deinterlaced.

    It can be pickled and used in forked processes: each opens the path, or the bytes, for itself.
    """

    def __init__(self, video: str | os.PathLike[str] | bytes) -> None:
        """Open a video file.

        Args:
            video: Path or contents of the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a readable video.
        """
        given = video if isinstance(video, bytes) else os.fspath(video)
        self.name = "bytes" if isinstance(given, bytes) else given
        if isinstance(given, str) and not os.path.isfile(given):
            raise FileNotFoundError(f"{self.name}: there is no such video file")
        # It may be opened again from another working directory, in another process.
        self._video = given if isinstance(given, bytes) else os.path.abspath(given)
        self._closed = False
        self._opened: ProcessLocal[_Decoders] = ProcessLocal(_Decoders)
        with contextlib.ExitStack() as undo:
            decoder = Decoder(self._video, self.name)
            undo.callback(decoder.close)
            self._index, first = _survey(decoder)
            self._opened.get().most_recent = [decoder]
            self._axes = _display_axes(first)
            self._stored_size = (first.height, first.width)
            self.height, self.width = self._rgb(first, 0).shape[:2]
            self.frame_rate = _frame_rate(decoder, self._index)
            self._time_base = decoder.time_base
            undo.pop_all()

    @property
    def num_frames(self) -> int:
        return len(self._index.times)

    def frame_time(self, index: int) -> float | None:
        self._check_index(index)
        if not self._index.timed:
            return None
        return float(self._index.times[index] - self._index.times[0]) * self._time_base

    def read(self, index: int) -> np.ndarray:
        """Read a frame, see ``FrameSource.read``. Raises RuntimeError once the video is closed."""
        self._check_index(index)
        with self._opened.get().lock:
            if self._closed:
                raise RuntimeError(f"{self.name}: frame {index} was requested after the video was closed")
            frame = self._find(index)
            if frame is None and not self._index.damaged:
                log.warning("%s: damaged at frame %d", self.name, index)
                self._index = dataclasses.replace(self._index, damaged=True)
                self._close_decoders()  # new ones decode without frame threading, which loses less around the damage
                frame = self._find(index)
            if frame is None:
                raise ValueError(f"{self.name}: frame {index} cannot be decoded: the file is damaged there")
            return self._rgb(frame, index)

    def close(self) -> None:
        """Close the file, waiting for a frame that is being decoded."""
        with self._opened.get().lock:
            self._closed = True
            self._close_decoders()

    def _close_decoders(self) -> None:
        opened = self._opened.get()
        for decoder in opened.most_recent:
            decoder.close()
        opened.most_recent = []

    @property
    def _decoders(self) -> list[Decoder]:
        return self._opened.get().most_recent

    def _find(self, index: int) -> VideoFrame | None:
        """Return the decoded frame from a cache, by decoding onward or from a key frame; ``None`` if there is none."""
        for decoder in self._decoders:
            frame = decoder.recent(index)
            if frame is not None:
                return frame
        key = self._index.key_for(index)
        decoder = self._decoder_for(index, key)
        frame = decoder.advance(index)
        if frame is None and decoder.start == key > 0:
            # Some streams need more than one group of pictures to recover after a seek.
            decoder.restart(key - 1)
            frame = decoder.advance(index)
        return frame

    def _decoder_for(self, index: int, key: int) -> Decoder:
        """Return a decoder positioned to reach the frame, and mark it as the last one used."""
        opened = self._opened.get()
        chosen = next((decoder for decoder in opened.most_recent if decoder.reaches(index)), None)
        if chosen is None:
            if len(opened.most_recent) < _MAX_DECODERS:
                chosen = Decoder(self._video, self.name)
                chosen.use(self._index)
            else:
                chosen = opened.most_recent[-1]
            chosen.restart(key)
        opened.most_recent = [chosen] + [decoder for decoder in opened.most_recent if decoder is not chosen]
        return chosen

    def _rgb(self, frame: VideoFrame, index: int) -> np.ndarray:
        if (frame.height, frame.width) != self._stored_size:
            height, width = self._stored_size
            raise ValueError(
                f"{self.name}: frame {index} is {frame.width}x{frame.height}, "
                f"expected {width}x{height} like the first: videos that change their size are not supported"
            )
        return turned(frame.to_ndarray(format="rgb24"), self._axes)


def turned(image: np.ndarray, axes: Axes) -> np.ndarray:
    """Rotate by right angles and mirror a picture as a display matrix says.

    Args:
        image: ``(H, W, 3)``.
        axes: First two columns of the matrix, row by row.

    Returns:
        ``(H, W, 3)`` or, turned by a quarter, ``(W, H, 3)``; contiguous.
    """
    right_x, right_y, down_x, down_y = axes  # screen directions of a step to the right and of a step down
    if abs(right_x) + abs(down_y) >= abs(right_y) + abs(down_x):
        mirror_x, mirror_y = right_x < 0, down_y < 0
    else:
        image = image.transpose(1, 0, 2)
        mirror_x, mirror_y = down_x < 0, right_y < 0
    return np.ascontiguousarray(image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])


def _display_axes(frame: VideoFrame) -> Axes:
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _UPRIGHT
    matrix = struct.unpack("=9i", data)
    return matrix[0], matrix[1], matrix[3], matrix[4]


def _survey(decoder: Decoder) -> tuple[PacketIndex, VideoFrame]:
    """Index the file, check the index by decoding a few frames, and return it with the first frame."""
    index = decoder.scan()
    decoder.use(index)
    head: list[int] = []
    if index.timed:
        decoder.restart(0)
        while len(head) < _PROBE and (number := decoder.next_frame()) is not None:
            head.append(number)
        # A clip cut out of a recording may start with frames that refer to missing ones and are never shown.
        if head and head == list(range(head[0], head[0] + len(head))):
            index = dataclasses.replace(index, times=index.times[head[0] :])
            if index.damaged or len(head) < _PROBE:
                index = _without_broken_end(decoder, index)
        else:
            log.info("%s: the times of its packets mean nothing: counting the frames", decoder.name)
            index = dataclasses.replace(index, timed=False)
    if not index.timed:
        index = _counted(decoder, index)
    decoder.use(index)
    decoder.restart(0)
    first = decoder.advance(0) if len(index.times) else None
    if first is None:
        raise ValueError(f"{decoder.name}: not one frame of this video can be decoded")
    return index, first


def _without_broken_end(decoder: Decoder, index: PacketIndex) -> PacketIndex:
    """Drop frames from the index that the file's end declares but does not decode to."""
    decoder.use(index)
    key, back = len(index.keys) - 1, 1
    while True:
        first = index.first_frame(key)
        decoder.restart(max(key - 1, 0))  # as in `_find`, for streams that need two groups to recover
        shown = []
        while (number := decoder.next_frame()) is not None:
            shown += [number] if number >= first else []
        if shown:
            times = np.concatenate([index.times[:first], index.times[shown]])
            return dataclasses.replace(index, times=times)
        if key == 0:
            return index
        key, back = max(key - back, 0), 2 * back


def _counted(decoder: Decoder, index: PacketIndex) -> PacketIndex:
    """Index a file without usable times by decoding all of it."""
    decoder.use(PacketIndex.counted(0, index.damaged))
    decoder.restart(0)
    count = 0
    while decoder.next_frame() is not None:
        count += 1
    return PacketIndex.counted(count, index.damaged)


def _frame_rate(decoder: Decoder, index: PacketIndex) -> float | None:
    """Return the frames per second of the header, unless the frames' times contradict it."""
    declared = decoder.declared_rate
    span = float(index.times[-1] - index.times[0]) * decoder.time_base if index.timed else 0.0
    if span <= 0:
        return declared
    measured = (len(index.times) - 1) / span
    # Times rounded to milliseconds and the last frame's duration cause small differences.
    return declared if declared and abs(declared - measured) <= 0.05 * measured else measured
