"""Live cameras: frames are recorded to a folder as they arrive, and read from there like any video."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image

from i2v.annotator.footage import Footage, to_jpeg
from i2v.utils.ffmpeg import stop_log
from i2v.utils.files import replacing
from i2v.utils.image_file import load_image
from i2v.utils.output_folder import own_folder
from i2v.video.frame_source import Frame, FrameSource, rgb_array

log = logging.getLogger(__name__)

FRAME_RATE = 10.0  # recorded frames per second: what a small model can keep up with
MAX_FRAMES = 36_000  # an hour
QUALITY = 95
# FFmpeg's format and name of the n-th camera on each system.
_DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}


def open_camera(device: str) -> Iterator[Frame]:
    """Open a camera.

    Args:
        device: Number or name of the camera.

    Returns:
        Its pictures ``(H, W, 3)`` uint8 RGB, until it ends.

    Raises:
        ValueError: If the camera cannot be opened.
    """
    format_name, pattern = _DEVICES.get(sys.platform, _DEVICES["linux"])
    name = pattern.format(device) if device.isdigit() else device
    stop_log()
    try:
        container: Any = av.open(name, format=format_name)
    except (FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"camera {device}: cannot be opened as {name} ({format_name}): {error}") from error
    return _pictures(container)


def _pictures(container: Any) -> Iterator[Frame]:
    with container:
        for picture in container.decode(video=0):
            yield picture.to_ndarray(format="rgb24")


class Recording(Footage):
    """Records frames of a camera as JPEG files.

    A background thread records from ``start`` on. An error of the camera ends the recording and is stored in
    ``trouble``. The model reads the recorded files, so results can be reproduced from the folder.
    """

    def __init__(
        self,
        frames: Iterator[Frame],
        folder: Path,
        frame_rate: float = FRAME_RATE,
        max_frames: int = MAX_FRAMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait for the first frame.

        Args:
            frames: Pictures of the camera.
            folder: Folder of the recording, new or empty.
            frame_rate: Most frames to record per second.
            max_frames: Most frames to record in total.
            clock: Returns the time in seconds.

        Raises:
            ValueError: If no frame arrives, or the folder is a symbolic link.
            FileExistsError: If the folder is not empty.
        """
        self.name = folder.name
        self.folder = folder
        self.frame_rate = frame_rate
        self.trouble = None
        self._frames, self._max_frames, self._clock = frames, max_frames, clock
        if any(own_folder(folder).iterdir()):
            raise FileExistsError(f"{folder} contains an earlier recording: use another --out")
        first = next(frames, None)
        if first is None:
            raise ValueError(f"{folder.name}: the camera delivered no frame")
        self._arrived, self._finished = 0, False
        self._stop = threading.Event()
        self.height, self.width = rgb_array(first, folder.name).shape[:2]
        self._keep(first)
        self._thread = threading.Thread(target=self._record, name="i2v-camera", daemon=True)

    @property
    def num_available(self) -> int:
        return self._arrived

    @property
    def live(self) -> bool:
        return not self._finished

    def start(self) -> None:
        """Start recording."""
        self._thread.start()

    def path(self, frame: int) -> Path:
        """Return the path of a frame.

        Raises:
            IndexError: If it has not arrived.
        """
        if not 0 <= frame < self._arrived:
            raise IndexError(f"{self.name}: frame {frame} has not arrived: {self._arrived} frames so far")
        return self.folder / f"{frame:06d}.jpg"

    def open(self) -> FrameSource:
        return _RecordedFrames(self)

    def jpeg(self, frame: int) -> bytes:
        return self.path(frame).read_bytes()

    def close(self) -> None:
        """Stop recording; the thread ends with the frame that the camera is delivering."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        self._finished = True

    def _record(self) -> None:
        due = self._clock()
        try:
            for picture in self._frames:
                if self._stop.is_set() or self._arrived >= self._max_frames:
                    break
                if self._clock() >= due:
                    self._keep(picture)
                    due = max(due + 1 / (self.frame_rate or FRAME_RATE), self._clock() - 1)
        except (FFmpegError, OSError, ValueError, TypeError) as error:
            self.trouble = f"the camera stopped: {error}"
            log.warning("%s: %s", self.name, self.trouble)
        finally:
            self._finished = True

    def _keep(self, picture: Frame) -> None:
        pixels = rgb_array(picture, f"{self.name}: frame {self._arrived}")
        if pixels.shape[:2] != (self.height, self.width):
            raise ValueError(f"frame {self._arrived} is {pixels.shape[1]}x{pixels.shape[0]}, unlike those before it")
        with replacing(self.folder / f"{self._arrived:06d}.jpg", one_of_many=True) as temporary:
            temporary.write_bytes(to_jpeg(Image.fromarray(np.ascontiguousarray(pixels)), QUALITY))
        self._arrived += 1


class _RecordedFrames(FrameSource):
    """A recording as the model reads it: a live source until the recording ends."""

    def __init__(self, recording: Recording) -> None:
        self.name = recording.name
        self.height, self.width, self.frame_rate = recording.height, recording.width, recording.frame_rate
        self._recording = recording

    @property
    def num_frames(self) -> int | None:
        return None if self._recording.live else self._recording.num_available

    def read(self, index: int) -> np.ndarray:
        self._check_index(index)
        return np.asarray(load_image(self._recording.path(index)).convert("RGB"))
