"""Low-level video decoding with PyAV: an index of a file's frames, and a decoder that starts at any key frame."""

from __future__ import annotations

import functools
import io
import itertools
import logging
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from i2v.errors import locating
from i2v.utils.ffmpeg import file_url, stop_log
from i2v.utils.picture_size import MAX_PIXELS, check_size

log = logging.getLogger(__name__)

# Formats under which FFmpeg opens text and single pictures as if they were videos.
_NO_VIDEO_FORMATS = {"tty", "image2"}

# Playlists and scripts: reading them, FFmpeg would open other files, devices or the network.
_SCRIPTS = {
    *("concat", "hls", "applehttp", "dash", "webm_dash_manifest", "imf", "sdp", "rtp", "rtsp", "sap", "lavfi"),
    *("vobsub", "avisynth", "vapoursynth"),
}

# Metadata that is not UTF-8 is no reason to refuse a file. PyAV 19 and later ignore it anyway and drop the argument.
_TOLERANT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}

# Frames to decode onward before seeking to a closer key frame pays off.
_SEEK_GAP = 16

# Limits of the cache of decoded frames, which serves reading backwards and readers that follow each other closely.
_RECENT_BYTES = 64 << 20
_RECENT_FRAMES = 256


@dataclass(frozen=True)
class PacketIndex:
    """When each frame is shown and where decoding can start. Takes 8 bytes per frame and key frame.

    Attributes:
        times: ``(T,)`` int64, ascending: the time of each frame shown, in units of the stream's time base.
        keys: ``(K,)`` int64, ascending: the times of key frames, in the same unit.
        timed: Whether the times are usable; if not, frames are numbered by counting from the start.
        damaged: Whether the file ends early, packets are flagged as broken, or the container cannot tell.
    """

    times: np.ndarray  # (T,) int64, ascending: one for each frame shown
    keys: np.ndarray  # (K,) int64, ascending: those of packets that need no earlier ones
    timed: bool  # False: the times mean nothing, frames are numbered by counting from the start
    damaged: bool  # the file ends early, packets are flagged as broken, or nothing would tell if they were

    def number_of(self, time: int | None) -> int | None:
        """Return the index of the frame shown at a time, or ``None``."""
        if time is None:
            return None
        number = int(np.searchsorted(self.times, time))
        return number if number < len(self.times) and self.times[number] == time else None

    def key_for(self, frame: int) -> int:
        """Return the last key frame, as an index into ``keys``, from which ``frame`` can be decoded."""
        return max(int(np.searchsorted(self.keys, self.times[frame], side="right")) - 1, 0)

    def first_frame(self, key: int) -> int:
        """Return the first frame that is decoded from a key frame on."""
        return int(np.searchsorted(self.times, self.keys[key]))

    @staticmethod
    def counted(num_frames: int, damaged: bool) -> PacketIndex:
        """Create the index of a file whose frames can only be counted."""
        return PacketIndex(np.arange(num_frames), np.zeros(1, np.int64), timed=False, damaged=damaged)


class Decoder:
    """One open video file, decoded forward from a key frame. Not thread-safe."""

    def __init__(self, video: str | bytes, name: str) -> None:
        """Open the best video stream of a file.

        Args:
            video: Path or contents of the file.
            name: Name in messages.

        Raises:
            ValueError: If the file is not a readable video.
            OSError: If the file cannot be opened.
        """
        self.name = name
        self.index = PacketIndex.counted(0, damaged=False)  # see `use`
        self.position: int | None = None  # index of the frame decoded last
        self.start = 0  # the key frame at which decoding started
        self._video = video
        self._frames: Iterator[tuple[int, VideoFrame]] = iter(())
        self._recent: dict[int, VideoFrame] = {}
        self._container, self._stream = _open(video, name)

    @property
    def declared_rate(self) -> float | None:
        """Frames per second according to the header."""
        rate = self._stream.average_rate
        return float(rate) if rate else None

    @property
    def time_base(self) -> float:
        """Seconds per unit of the index's times."""
        return float(self._stream.time_base or 0)

    def scan(self) -> PacketIndex:
        """Index the file from its packets, without decoding them."""
        times, keys = array("q"), array("q")
        # Packets of a transport stream have no declared length, so truncation goes unnoticed.
        timed, damaged = True, self._container.format.name == "mpegts"
        try:
            for packet in self._packets():
                if packet.size == 0:  # the flush packet at the end
                    continue
                damaged |= packet.is_corrupt
                if packet.pts is None:
                    timed = False
                    continue
                if packet.is_keyframe:
                    keys.append(packet.pts)
                if not packet.is_discard and not _is_hidden(packet):
                    times.append(packet.pts)
        except av.FFmpegError as error:
            log.warning("%s: the file ends early: %s", self.name, error)
            damaged = True
        ordered = np.sort(np.array(times, np.int64))
        timed = timed and len(keys) > 0 and bool(np.all(np.diff(ordered) > 0))
        return PacketIndex(ordered, np.sort(np.array(keys, np.int64)), timed, damaged)

    def use(self, index: PacketIndex) -> None:
        """Number frames by this index from now on. Call ``restart`` next."""
        self.index = index
        self.position, self._frames, self._recent = None, iter(()), {}

    def restart(self, key: int) -> None:
        """Seek to a key frame, given as an index into ``keys``, or to an earlier one."""
        self.position = None
        packets, self.start = self._seek(key)
        numbered = self._numbered if self.index.timed else enumerate
        self._frames = iter(numbered(self._decoded(packets)))

    def next_frame(self) -> int | None:
        """Decode one frame and return its index, or ``None`` at the end."""
        self.position, frame = next(self._frames, (None, None))
        if self.position is not None and frame is not None:
            # Move to the end even if present: the dict's order is the order of eviction.
            self._recent.pop(self.position, None)
            self._recent[self.position] = frame
            size = max(sum(plane.buffer_size for plane in frame.planes), 1)
            while len(self._recent) > max(min(_RECENT_BYTES // size, _RECENT_FRAMES), 1):
                del self._recent[next(iter(self._recent))]
        return self.position

    def recent(self, frame: int) -> VideoFrame | None:
        """Return a recently decoded frame that is still cached, or ``None``."""
        return self._recent.get(frame)

    def reaches(self, frame: int) -> bool:
        """Whether decoding onward reaches ``frame`` sooner than starting at the key frame before it."""
        if self.position is None or self.position >= frame:
            return False
        key = self.index.first_frame(self.index.key_for(frame)) if self.index.timed else 0
        return frame - self.position <= _SEEK_GAP or key <= self.position + _SEEK_GAP

    def advance(self, frame: int) -> VideoFrame | None:
        """Decode up to ``frame`` and return it, or ``None`` if the video skips it or ends before."""
        while self.position is None or self.position < frame:
            if self.next_frame() is None:
                return None
        return self.recent(frame)

    def close(self) -> None:
        """Close the file and drop cached frames."""
        self.position, self._frames, self._recent = None, iter(()), {}
        self._container.close()

    def _packets(self) -> Iterator[Packet]:
        return self._container.demux(self._stream)

    def _seek(self, key: int) -> tuple[Iterator[Packet], int]:
        """Return the packets from a key frame on, and which one: ``key`` or an earlier one."""
        target, back = key, 1
        while self.index.timed:
            try:
                self._container.seek(int(self.index.keys[target]), stream=self._stream)
                packets = self._packets()
                landed = self._first_key(packets)
            except av.FFmpegError:
                break
            # Containers seek by decoding time or by tables of their own, and may land too late.
            if landed is not None and landed[0] <= key:
                return itertools.chain([landed[1]], packets), landed[0]
            if target == 0:
                break
            target, back = max(target - back, 0), 2 * back
        opened = _open(self._video, self.name)
        self._container.close()
        self._container, self._stream = opened
        return self._packets(), 0

    def _first_key(self, packets: Iterator[Packet]) -> tuple[int, Packet] | None:
        """Read packets up to a key frame of the index; return its place there and its packet."""
        for packet in packets:
            if packet.is_keyframe and packet.pts is not None:
                key = int(np.searchsorted(self.index.keys, packet.pts))
                known = key < len(self.index.keys) and self.index.keys[key] == packet.pts
                return (key, packet) if known else None
        return None

    def _decoded(self, packets: Iterator[Packet]) -> Iterator[VideoFrame]:
        """Decode packets to frames in presentation order, skipping what cannot be decoded."""
        if not self._stream.codec_context.is_open:
            # Decode damaged files without frame threading, where one frame's error hides the frames after it.
            self._stream.thread_type = "SLICE" if self.index.damaged else "AUTO"
        ended = False
        while not ended:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # logged when the file was scanned
                packet = None
            ended = packet is None
            try:
                frames = self._stream.decode(packet)  # None flushes the decoder
            except av.FFmpegError as error:
                log.debug("%s: a packet cannot be decoded: %s", self.name, error)
                continue
            yield from frames

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        """Number the frames in increasing order, skipping those that depend on frames before the key frame."""
        number = self.index.first_frame(self.start) - 1
        for frame in frames:
            found = self.index.number_of(frame.pts)
            if found is not None and found > number:
                number = found
                yield number, frame


def _open(video: str | bytes, name: str) -> tuple[InputContainer, VideoStream]:
    """Open the file and find its best video stream; ValueError if there is none."""
    if (len(video) if isinstance(video, bytes) else os.path.getsize(video)) == 0:
        raise ValueError(f"{name}: the file is empty")
    stop_log()
    try:
        container = av.open(
            io.BytesIO(video) if isinstance(video, bytes) else file_url(video),
            mode="r",
            options={"protocol_whitelist": "file", "format_whitelist": _whitelist()},
            **_TOLERANT,
        )
    except av.error.ArgumentError as error:  # of a format that is not on the list
        raise ValueError(
            f"{name}: this is no video, but a playlist or script that names other files, which are not opened"
        ) from error
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # such as a missing permission: the message is clear as it is
            raise
        raise ValueError(f"{name}: this is no video that can be read: {error.strerror}") from error
    form = container.format.name
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    best = container.streams.best("video")
    stream = best if best in streams else next(iter(streams), None)
    if form in _NO_VIDEO_FORMATS or form.endswith("_pipe"):
        container.close()
        raise ValueError(f"{name}: this is no video: FFmpeg reads it as {form}")
    if not isinstance(stream, VideoStream):
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        container.close()
        raise ValueError(f"{name}: there is no video in this file, only {kinds}")
    # Despite PyAV's types, a codec unknown to FFmpeg has no context.
    if getattr(stream, "codec_context", None) is None:
        container.close()
        raise ValueError(f"{name}: FFmpeg has no decoder for the video in this file")
    try:
        _bound_frames(stream, name)
    except ValueError:
        container.close()
        raise
    return container, stream


@functools.cache
def _whitelist() -> str:
    """Names of the formats that FFmpeg may read, those that it writes among them."""
    return ",".join(sorted(av.formats_available - _SCRIPTS))


def _bound_frames(stream: VideoStream, name: str) -> None:
    """Limit the frame size, here and in the decoder: a file of a few kilobytes can declare gigantic frames."""
    context = stream.codec_context
    if context.width and context.height:  # otherwise only known once a frame is decoded
        with locating(name, "its frames"):
            check_size(context.width, context.height)
    context.options = {"max_pixels": str(MAX_PIXELS)}


def _is_hidden(packet: Packet) -> bool:
    """Whether a packet is only a reference for others and shows no picture, as in VP8."""
    name = packet.stream.codec_context.name
    return name in ("vp8", "libvpx") and not bytes(packet)[0] & 0x10  # bit 4 is show_frame
