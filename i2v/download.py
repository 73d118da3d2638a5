"""Downloads over https: bounded size, optional checksum, cached."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from i2v.utils.files import digest_of, replacing

log = logging.getLogger(__name__)

MAX_BYTES = 2 << 30  # of one file: four times the largest training checkpoint
_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without data
_FRAGMENT = re.compile(r"(sha256)=([0-9a-f]{64})|(sha512)=([0-9a-f]{128})")


class DownloadError(OSError):
    """A file cannot be downloaded, or is not the expected one; the message names the file and the reason."""


@dataclass(frozen=True)
class _Checksum:
    """What a file must have: the name of an algorithm, and hexadecimal digits."""

    algorithm: str
    digest: str

    def fits(self, path: Path) -> bool:
        return digest_of(path, self.algorithm) == self.digest

    def describe(self, path: Path) -> str:
        """What another file has instead."""
        return f"SHA-{self.algorithm[3:]} {digest_of(path, self.algorithm)}, expected {self.digest}"


def fetch(url: str, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> Path:
    """Download a file, unless it is in the cache.

    Args:
        url: An https address. It may end in ``#sha256=`` and 64 hexadecimal digits, or ``#sha512=`` and 128; the file,
            cached or not, must then have this checksum.
        folder: Cache folder, by default in iopath's cache (``~/.torch/iopath_cache``, or the environment variable
            ``FVCORE_CACHE``).
        max_bytes: Largest accepted size.

    Returns:
        Path of the local copy.

    Raises:
        DownloadError: If the address is invalid, the download fails, or the checksum differs. No new file is left then.
    """
    from iopath.common.file_io import file_lock, get_cache_dir  # takes a while to import

    address, _, fragment = url.partition("#")
    name = _check(address)
    checksum = _checksum(fragment, name)
    folder = Path(get_cache_dir()) / "i2v" if folder is None else folder
    # The hash of the whole address makes the name unique; its last part makes it readable.
    kept = re.sub(r"[^\w.-]", "_", name.rpartition("/")[2], flags=re.ASCII)[-100:]
    path = folder / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{kept}"
    with file_lock(str(path)):
        if not (path.is_file() and (checksum is None or checksum.fits(path))):
            log.info("fetching %s", name)
            with replacing(path) as temporary:
                with temporary.open("wb") as file:
                    file.writelines(_received(address, name, max_bytes))
                if checksum is not None and not checksum.fits(temporary):
                    raise DownloadError(f"{name} has the {checksum.describe(temporary)}")
    return path


def _check(address: str) -> str:
    """Return the address for messages, without password and query; DownloadError unless it is https."""
    try:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname
    except ValueError as error:
        raise DownloadError(f"{address!r} is no address: {error}") from error
    if parts.scheme != "https" or not host:
        raise DownloadError(f"{address!r}: files are only fetched over https://")
    return f"https://{host}{parts.path}"


def _checksum(fragment: str, name: str) -> _Checksum | None:
    match = _FRAGMENT.fullmatch(fragment.lower())
    if match is not None:
        return _Checksum(match[1] or match[3], match[2] or match[4])
    if fragment:
        raise DownloadError(
            f"{name}: expected #sha256= and 64 hexadecimal digits, or #sha512= and 128, at the end, got "
            f"{'#' + fragment!r}"
        )
    return None


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https addresses only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request.

        Raises:
            DownloadError: If its address is not https.
        """
        _check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _received(address: str, name: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the response in blocks; DownloadError if it is too long, truncated or fails."""
    request = urllib.request.Request(address, headers={"User-Agent": "i2v"})
    received, length = 0, None
    try:
        with urllib.request.build_opener(HttpsOnly).open(request, timeout=_TIMEOUT) as response:
            announced = response.headers.get("Content-Length", "")
            length = int(announced) if announced.isdecimal() else None
            while (length or 0) <= max_bytes and received <= max_bytes and (block := response.read(_BLOCK)):
                received += len(block)
                yield block
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{name} cannot be fetched: {error}") from error
    if max(length or 0, received) > max_bytes:
        raise DownloadError(f"{name} has more than the {max_bytes:,} bytes that are allowed")
    if length is not None and received != length:
        raise DownloadError(f"{name}: the connection ended after {received:,} of {length:,} bytes")
