"""JSON that grows by lines and is valid after each of them, so that a full disk costs the last line only."""

from __future__ import annotations

import io
import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from i2v.utils.files import StreamedFile


def compact_json(value: object) -> str:
    """Return a value as JSON in one line, without spaces. ValueError for numbers that are not finite."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


class StreamedJson(StreamedFile):
    """A JSON object whose last value is a list, to which the lines of each frame are appended."""

    _END = b"\n]}\n"

    def __init__(self, path: str | Path) -> None:
        """Open nothing yet. ``path`` is the final path."""
        super().__init__(path)
        self._file: io.FileIO | None = None
        self._size = 0  # bytes, up to the end of the last frame
        self._num_lines = 0

    @abstractmethod
    def _header(self) -> str:
        """The text before the first line, up to the opening bracket of the list."""

    def _append(self, lines: Sequence[str]) -> None:
        """Append the lines of a frame; there may be none.

        Raises:
            DiskFullError: If the disk is full. The file keeps the previous frames.
            OSError: If writing fails otherwise.
        """
        with self._writing():
            text = ""
            if self._file is None:
                self._file = io.FileIO(self._make(), "w")
                text = self._header()
            for line in lines:
                text += f",\n{line}" if self._num_lines else f"\n{line}"
                self._num_lines += 1
            self._write_after_last_frame(self._file, text.encode("ascii") + self._END)
            self._size += len(text)
            self.num_frames += 1

    def _write_after_last_frame(self, file: io.FileIO, data: bytes) -> None:
        file.seek(self._size)
        rest = memoryview(data)
        while rest:
            # On a nearly full disk, write() can take only a part.
            rest = rest[file.write(rest) or 0 :]

    def _undo_write(self) -> bool:
        if self._file is None or not self.num_frames:
            return False
        try:
            # The closing brackets were there before the failed write, so they still fit on a full disk.
            self._file.truncate(self._size)
            self._write_after_last_frame(self._file, self._END)
        except OSError:
            return False
        return True

    def _finalize(self) -> None:
        if self._file is not None:
            self._file.close()
