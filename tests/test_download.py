"""Checkpoints from the network: over https, bounded, checked, and kept."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from i2v import download
from i2v.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from i2v.download import DownloadError, fetch

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """A server's answers, good and bad."""

    asked: list[str]
    files: dict[str, bytes]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.partition("?")[0]
        if name.startswith("/to-"):
            self.send_response(302)
            self.send_header(
                "Location", {"/to-http": "http://example.test/a", "/to-file": "file:///etc/passwd"}.get(name, "/a.pt")
            )
            self.end_headers()
            return
        content = self.files.get(name)
        self.send_response(404 if content is None else 200)
        if name != "/endless":
            self.send_header("Content-Length", str(len(content or b"") + 5 * (name == "/short")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


class Unencrypted(urllib.request.HTTPSHandler):
    """Stands in for TLS, which needs certificates; all else is as over https."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPConnection, req)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    Handler.asked = []
    Handler.files = {"/a.pt": CONTENT, "/short": CONTENT, "/endless": CONTENT, "/b.pt": CONTENT}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    opener = urllib.request.build_opener
    monkeypatch.setattr(urllib.request, "build_opener", lambda *handlers: opener(Unencrypted, *handlers))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_file_is_fetched_once_and_kept(host: str, tmp_path: Path) -> None:
    path = fetch(f"{host}/a.pt", tmp_path)
    assert path.read_bytes() == CONTENT and path.parent == tmp_path and path.name.endswith("-a.pt")
    assert fetch(f"{host}/a.pt", tmp_path) == fetch(f"{host}/a.pt#sha256={DIGEST.upper()}", tmp_path) == path
    assert Handler.asked == ["/a.pt"]
    longer = hashlib.sha512(CONTENT).hexdigest()
    assert fetch(f"{host}/a.pt#sha512={longer}", tmp_path) == path and Handler.asked == ["/a.pt"]
    assert fetch(f"{host}/to-here", tmp_path).read_bytes() == CONTENT


def test_a_kept_file_that_was_changed_is_fetched_anew(host: str, tmp_path: Path) -> None:
    path = fetch(f"{host}/a.pt", tmp_path)
    path.write_bytes(b"changed")
    assert fetch(f"{host}/a.pt#sha256={DIGEST}", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/a.pt#sha256=" + "0" * 64, rf"has the SHA-256 {DIGEST}, expected 0+"),
        ("/a.pt#sha512=" + "0" * 128, r"has the SHA-512 [0-9a-f]{128}, expected 0+"),
        ("/a.pt#sha512=" + "0" * 64, "or #sha512= and 128, at the end"),
        ("/a.pt#sha256=12", "expected #sha256= and 64 hexadecimal digits"),
        ("/a.pt#md5=12", "expected #sha256= and 64 hexadecimal digits"),
        ("/none.pt", "cannot be fetched: HTTP Error 404"),
        ("/short", r"the connection ended after 7,000 of 7,005 bytes"),
        ("/to-http", "'http://example.test/a': files are only fetched over https"),
        ("/to-file", "files are only fetched over https|cannot be fetched"),
    ],
)
def test_what_is_not_right_is_not_kept(host: str, tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        fetch(host + address, tmp_path / "kept")
    assert files(tmp_path / "kept") == []


@pytest.mark.parametrize("name", ["a.pt", "endless"])
def test_a_file_that_is_too_large_is_not_kept(host: str, tmp_path: Path, name: str) -> None:
    with pytest.raises(DownloadError, match="more than the 6,999 bytes that are allowed"):
        fetch(f"{host}/{name}", tmp_path / "kept", max_bytes=6999)
    assert files(tmp_path / "kept") == []
    assert fetch(f"{host}/{name}", tmp_path / "kept", max_bytes=7000).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "address",
    [
        "http://h/a.pt",
        "ftp://h/a.pt",
        "file:///etc/passwd",
        "HTTP://h/a.pt",
        "https:///a.pt",
        "s3://h/a",
        "https://[/a.pt",
    ],
)
def test_only_https_is_asked(address: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"only fetched over https://|is no address"):
        fetch(address, tmp_path)
    with pytest.raises(CheckpointError):
        read_checkpoint(address)


def test_names_stay_in_the_folder_and_secrets_out_of_messages(host: str, tmp_path: Path) -> None:
    port = host.rpartition(":")[2]
    Handler.files["/../../x/..%2f..%2fb.pt"] = CONTENT
    path = fetch(f"{host}/../../x/..%2f..%2fb.pt", tmp_path)
    assert path.parent == tmp_path
    assert fetch(f"{host}/a.pt?version=1", tmp_path) != fetch(f"{host}/a.pt?version=2", tmp_path)
    with pytest.raises(DownloadError) as raised:
        fetch(f"https://127.0.0.1:{port}/none.pt?key=secret", tmp_path)
    assert "secret" not in str(raised.value)


def test_a_checkpoint_can_be_an_address(host: str, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    save_checkpoint(model, tmp_path / "m.pt")
    Handler.files["/m.pt"] = (tmp_path / "m.pt").read_bytes()
    digest = hashlib.sha256(Handler.files["/m.pt"]).hexdigest()
    weights = read_checkpoint(f"{host}/m.pt#sha256={digest}")
    assert torch.equal(weights["weight"], model.weight)
    assert files(tmp_path / "cache")
    with pytest.raises(CheckpointError, match=r"expected 0{64}"):
        read_checkpoint(f"{host}/m.pt#sha256={'0' * 64}")
    assert download.MAX_BYTES >= 1 << 30
