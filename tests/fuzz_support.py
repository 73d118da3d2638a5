"""Fuzzing of what reads files: hypothesis makes them, and a target says how they are read and what may be raised.

`make test` reads some of every target, the same ones each time; `make fuzz` other ones for FUZZ_SECONDS in all. Files
that once broke a reader lie in tests/fuzz/corpus, in a folder named after the target, and are read each time.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from i2v.errors import InvalidFileError

ROOT = Path(__file__).parents[1]
CORPUS = Path(__file__).parent / "fuzz" / "corpus"
# Of a long run: the file that is being read, which is left there if that ends the process.
LAST_FILES = ROOT / "build" / "fuzz"

MAX_SECONDS, MAX_MEGABYTES = 30, 2000

short = settings(
    max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
long = settings(short, max_examples=500, derandomize=False)


@dataclass
class Figures:
    """What the files of a target have cost so far."""

    files: int = 0
    refused: int = 0
    slowest: float = 0.0

    def describe(self, name: str, seconds: float) -> str:
        """A line for the report."""
        return (
            f"{name}: {self.files:,} files in {seconds:.0f} s, {self.refused:,} of them refused, "
            f"the slowest in {self.slowest:.2f} s, peak memory of the process {peak_megabytes()} MB"
        )


@dataclass(frozen=True)
class Target:
    """A reader: ``read`` gets the bytes of a file and an empty folder, and raises one of ``refusals`` or nothing.

    ``files`` makes the bytes. Whatever ``read`` writes has to be in the folder.
    """

    name: str
    files: st.SearchStrategy[bytes]
    read: Callable[[bytes, Path], object]
    refusals: tuple[type[Exception], ...] = (InvalidFileError,)
    figures: Figures = field(default_factory=Figures, compare=False)

    def __str__(self) -> str:
        return self.name

    def kept(self) -> list[Path]:
        """The files of the corpus."""
        folder = CORPUS / self.name
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def check(self, data: bytes, folder: Path) -> None:
        """Read a file. Fails on other exceptions, on long waits, much memory, and files elsewhere."""
        with tempfile.TemporaryDirectory(dir=folder) as own:
            place = Path(own, "inside")
            place.mkdir()
            self._check(data, place)

    def _check(self, data: bytes, place: Path) -> None:
        start = time.perf_counter()
        try:
            self.read(data, place)
        except self.refusals as error:
            self.figures.refused += 1
            assert "\n" not in str(error) and len(str(error)) < 3000, f"no sentence: {str(error)[:3000]}"
        seconds = time.perf_counter() - start
        self.figures.files += 1
        self.figures.slowest = max(self.figures.slowest, seconds)
        assert seconds < MAX_SECONDS, f"it took {seconds:.1f} s"
        assert peak_megabytes() < MAX_MEGABYTES, f"the process took {peak_megabytes()} MB"
        assert [path.name for path in place.parent.iterdir()] == ["inside"], "it wrote outside of its folder"


def fuzz(target: Target, folder: Path, seconds: float = 0.0) -> None:
    """Read the kept files of a target and some made ones; more, for so many ``seconds``, if that is asked for."""
    for path in target.kept():
        target.check(path.read_bytes(), folder)
    if not seconds:
        short(given(target.files)(lambda data: target.check(data, folder)))()
        return
    LAST_FILES.mkdir(parents=True, exist_ok=True)
    last = LAST_FILES / target.name

    def check_recorded(data: bytes) -> None:
        if time.monotonic() < end:
            last.write_bytes(data)
            target.check(data, folder)

    start = time.monotonic()
    end, number = start + seconds, int.from_bytes(os.urandom(4), "big")
    while time.monotonic() < end:
        number += 1
        seed(number)(long(given(target.files)(check_recorded)))()
    last.unlink(missing_ok=True)
    sys.stdout.write(target.figures.describe(target.name, time.monotonic() - start))


def peak_megabytes() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
