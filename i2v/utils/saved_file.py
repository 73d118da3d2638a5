"""Files of `torch.save`, looked at before they are unpickled: small ones must not take gigabytes or minutes."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

MAX_PICKLE = 4 << 20
"""Bytes of what a file says beside the numbers of its tensors: a thousand tensors take a tenth of a megabyte."""

MAX_OPERATIONS = 1_000_000
"""Of the pickles of a file of before PyTorch 1.6; a thousand tensors take some twenty thousand."""

_NUM_PICKLES = 5  # of such a file, before the numbers: magic number, protocol, system, content, names of storages


def check_archive(path: Path) -> None:
    """ValueError for an archive that unpacks to more than it is, or whose pickle is large; BadZipFile if it is none."""
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
    """ValueError for pickles of very many operations, or those that end too early."""
    operations = 0
    with path.open("rb") as file:
        for _ in range(_NUM_PICKLES):
            for _ in pickletools.genops(file):
                operations += 1
                if operations > MAX_OPERATIONS:
                    raise ValueError(f"its pickles have more than {MAX_OPERATIONS:,} operations")
