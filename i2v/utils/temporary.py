"""Hidden temporary files and folders, which become results by being renamed.

Their names mark them as ours, and a lock (flock) marks them as in use. The system releases the lock when the process
ends in any way, so neither process ids nor clocks need to be trusted. Processes on one machine, also in containers, see
each other's locks on every file system. Other machines may not see them, and some file systems have no locks: whatever
might be in use is kept until it has not changed for a week.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from pathlib import Path

_PATTERN = re.compile(r"\..+\.i2v-(?P<machine>[0-9a-f]{8})-[0-9a-f]{16}\.tmp", re.DOTALL)
_LONGEST_NAME = 200  # bytes taken from the final name: file systems allow 255, ours included
_LOCK = ".lock"  # the lock of a folder: not every system can lock a folder itself
_WEEK = 7 * 24 * 3600.0  # seconds


class Temporary:
    """A hidden file, or a folder, next to the path that it will replace.

    ``path`` can be opened, written and replaced freely. ``keep`` renames it, ``discard`` removes it. After a crash or
    SIGKILL, ``remove_leftovers`` finds what is left.

    Attributes:
        target: The final path.
        path: The temporary path, once it is created.
    """

    def __init__(self, target: Path) -> None:
        """Create nothing yet. ``target`` is the final path."""
        self.target = target
        self.path = target
        self._lock: int | None = None

    def make_file(self) -> None:
        """Create an empty file.

        Raises:
            OSError: If it cannot be created.
        """
        while self._lock is None:
            self.path = _hidden_name(self.target)
            self._lock = _make_locked(self.path)

    def make_folder(self) -> None:
        """Create an empty folder and its parents.

        Raises:
            OSError: If it cannot be created.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        while self._lock is None:
            self.path = _hidden_name(self.target)
            self.path.mkdir()
            self._lock = _make_locked(self.path / _LOCK)

    def keep(self) -> None:
        """Move to the final path, replacing a file or folder there.

        Raises:
            OSError: If it cannot be moved.
        """
        if self.path.is_dir():
            (self.path / _LOCK).unlink()
            _replace_folder(self.path, self.target)
        else:
            os.replace(self.path, self.target)
        self._release()

    def discard(self) -> None:
        """Remove it unless it was kept. Can be called at any time, repeatedly. Raises no OSError."""
        self._release()
        if self.path != self.target:
            with contextlib.suppress(OSError):
                _remove(self.path)

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_leftovers(folder: Path) -> None:
    """Remove what dead processes left in a folder, if the folder exists. Raises no OSError."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        match = _PATTERN.fullmatch(name)
        if match:
            with contextlib.suppress(OSError):
                _remove_if_dead(folder / name, match["machine"])


def _remove_if_dead(path: Path, machine: str) -> None:
    found = path.lstat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return
    lock_path = path / _LOCK if stat.S_ISDIR(found.st_mode) else path
    lock = None
    try:
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(lock_path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        is_ours = lock is not None and _try_to_lock(lock) and machine == _machine()
        if is_ours or time.time() - found.st_mtime > _WEEK:
            _remove(path)
    except BlockingIOError:
        pass  # in use
    finally:
        if lock is not None:
            os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # Remove the lock last: without it, only the folder's age would show that it is a leftover.
        for child in path.iterdir():
            if child.name != _LOCK:
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _make_locked(path: Path) -> int | None:
    """Create and lock a file; ``None`` if another process removed it as a leftover before it was locked."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _try_to_lock(lock)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _try_to_lock(file: int) -> bool:
    """Lock a file. Returns False if the file system has no locks; BlockingIOError if another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _replace_folder(source: Path, target: Path) -> None:
    """Rename a folder, moving an existing one aside first, so that at any moment it is complete or absent."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FileExistsError(errno.EEXIST, "expected a folder or nothing", str(target))
    if not target.exists():
        source.rename(target)
        return
    aside = Temporary(target)
    try:
        aside.make_folder()
        target.rename(aside.path / "replaced")
        try:
            source.rename(target)
        except BaseException:
            (aside.path / "replaced").rename(target)
            raise
    finally:
        aside.discard()


def _hidden_name(target: Path) -> Path:
    # In the same folder, so that renaming is atomic; hidden, so that it is not mistaken for a result.
    name = target.name.encode("utf-8", "ignore")[:_LONGEST_NAME].decode("utf-8", "ignore")
    return target.with_name(f".{name}.i2v-{_machine()}-{secrets.token_hex(8)}.tmp")


@functools.cache
def _machine() -> str:
    """Eight hexadecimal digits that identify this machine, since its last boot on Linux."""
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        identity = platform.node()
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
