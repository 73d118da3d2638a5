"""Files from the network: over https, of bounded size, with a checksum where one is given, kept for the next time."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from i2v.utils.files import replacing, sha256_of

log = logging.getLogger(__name__)

MAX_BYTES = 2 << 30  # of one file: the largest states of training have a quarter of that
_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_FRAGMENT = re.compile(r"sha256=([0-9a-f]{64})")


class DownloadError(OSError):
    """A file that cannot be fetched, or is not what was asked for; the message says which and why."""


def fetch(url: str, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> Path:
    """The local copy of a file: the one that was fetched before, if there is one, else a new one.

    `url` begins with https://. With `#sha256=` and 64 hexadecimal digits at its end, the file must have that checksum,
    also if it was fetched before. Copies are kept in `folder`, by default in iopath's cache (`~/.torch/iopath_cache`,
    or where FVCORE_CACHE says). Raises DownloadError, and then leaves no new file.
    """
    from iopath.common.file_io import file_lock, get_cache_dir  # takes a while to import

    address, _, fragment = url.partition("#")
    name = _check(address)
    digest = _digest(fragment, name)
    folder = Path(get_cache_dir()) / "i2v" if folder is None else folder
    # A part of the address for people, and all of it, so that no two get the same file.
    kept = re.sub(r"[^\w.-]", "_", name.rpartition("/")[2], flags=re.ASCII)[-100:]
    path = folder / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{kept}"
    with file_lock(str(path)):
        if not (path.is_file() and digest in (None, sha256_of(path))):
            log.info("fetching %s", name)
            with replacing(path) as temporary:
                with temporary.open("wb") as file:
                    file.writelines(_received(address, name, max_bytes))
                found = sha256_of(temporary)
                if digest not in (None, found):
                    raise DownloadError(f"{name} has the SHA-256 {found}, expected {digest}")
    return path


def _check(address: str) -> str:
    """The address as it is shown: without a password or a query. DownloadError unless it is one of https."""
    try:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname
    except ValueError as error:
        raise DownloadError(f"{address!r} is no address: {error}") from error
    if parts.scheme != "https" or not host:
        raise DownloadError(f"{address!r}: files are only fetched over https://")
    return f"https://{host}{parts.path}"


def _digest(fragment: str, name: str) -> str | None:
    match = _FRAGMENT.fullmatch(fragment.lower())
    if fragment and match is None:
        raise DownloadError(f"{name}: expected #sha256= and 64 hexadecimal digits at the end, got {'#' + fragment!r}")
    return match[1] if match else None


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but to no place that anybody on the way could change."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The next request, if it is one of https; else DownloadError."""
        _check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _received(address: str, name: str, max_bytes: int) -> Iterator[bytes]:
    """What a server sends, in blocks. DownloadError if it is too much, too little or nothing."""
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
