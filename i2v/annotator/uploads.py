"""Files that a page has sent for one import, on the disk until they are read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAX_FILES = 200_000
MAX_TOTAL = 4 << 30  # bytes


@dataclass(frozen=True)
class _Piece:
    name: str
    start: int
    length: int


class Uploads:
    """The files of one batch, in a temporary file without a name. A new batch replaces the one before."""

    def __init__(self) -> None:
        """Create without files."""
        self._batch = ""
        self._pieces: list[_Piece] = []
        self._file: IO[bytes] | None = None

    def add(self, batch: str, name: str, data: bytes) -> None:
        """Keep a file.

        Args:
            batch: The batch, a text that the page has chosen.
            name: Name of the file.
            data: Its contents.

        Raises:
            OSError: If the temporary file cannot be written.
            ValueError: If the batch has too many files or bytes.
        """
        if batch != self._batch or self._file is None:
            self.clear()
            self._batch, self._file = batch, tempfile.TemporaryFile(prefix="i2v-import-")  # noqa: SIM115
        start = self._pieces[-1].start + self._pieces[-1].length if self._pieces else 0
        if len(self._pieces) >= MAX_FILES or start + len(data) > MAX_TOTAL:
            raise ValueError(f"an import: expected at most {MAX_FILES:,} files of {MAX_TOTAL >> 30} GiB together")
        self._file.seek(start)
        self._file.write(data)
        self._pieces.append(_Piece(name, start, len(data)))

    def take(self, batch: str) -> Files:
        """Return the files of a batch, which are no longer kept here.

        Raises:
            ValueError: If there are none.
        """
        if batch != self._batch or self._file is None:
            raise ValueError("there are no files to import: choose them again")
        files = Files(self._file, tuple(self._pieces))
        self._batch, self._file, self._pieces = "", None, []
        return files

    def clear(self) -> None:
        """Drop all files."""
        if self._file is not None:
            self._file.close()
        self._batch, self._file, self._pieces = "", None, []


class Files:
    """The files of a batch, to be read once in their order. A context manager that drops them."""

    def __init__(self, file: IO[bytes], pieces: tuple[_Piece, ...]) -> None:
        """Take over an open file with these pieces in it."""
        self._file, self._pieces = file, pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and contents of each file."""
        for piece in self._pieces:
            self._file.seek(piece.start)
            yield piece.name, self._file.read(piece.length)

    def close(self) -> None:
        """Drop the files."""
        self._file.close()
