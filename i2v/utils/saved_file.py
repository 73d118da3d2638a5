"""Checks on ``torch.save`` files before unpickling: a small file must not take gigabytes or minutes."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

MAX_PICKLE = 4 << 20
"""Bytes of the pickle, without tensor data: a thousand tensors take a tenth of a megabyte."""

MAX_OPERATIONS = 1_000_000
"""Pickle operations in a file from before PyTorch 1.6; a thousand tensors take about twenty thousand."""

_NUM_PICKLES = 5  # in such a file, before tensor data: magic number, protocol, system, content, storage keys


def check_archive(path: Path) -> None:
    """Check a zip archive of ``torch.save``.

    Raises:
        ValueError: If it unpacks to more bytes than it has, or its pickle is too large.
        BadZipFile: If it is not a zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename} is compressed, which torch.save never does")
        if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE:
            raise ValueError(f"{entry.filename} has {entry.file_size:,} bytes, expected at most {MAX_PICKLE:,}")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("it says that it holds more bytes than it has")


def check_pickles(path: Path) -> None:
    """Check a ``torch.save`` file from before PyTorch 1.6.

    Raises:
        ValueError: If its pickles are truncated or have too many operations.
    """
    operations = 0
    with path.open("rb") as file:
        for _ in range(_NUM_PICKLES):
            for _ in pickletools.genops(file):
                operations += 1
                if operations > MAX_OPERATIONS:
                    raise ValueError(f"its pickles have more than {MAX_OPERATIONS:,} operations")
