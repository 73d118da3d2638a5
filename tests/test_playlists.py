"""Files under which FFmpeg would open other ones: playlists and scripts, which are refused before that."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_video_file import Clip

from i2v.video.sources import VideoFile, open_source

BESIDE = "foreign.mp4"
SCRIPTS = {
    "list.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "list.mp4": "ffconcat version 1.0\nfile '{}'\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "list.mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a video that cannot be opened without a trace: reading it sets its access time."""
    monkeypatch.chdir(tmp_path)
    Path(BESIDE).write_bytes(Clip(count=3).encoded())
    os.utime(BESIDE, (0, os.stat(BESIDE).st_mtime))
    yield tmp_path


def test_the_trace_is_there(folder: Path) -> None:
    assert VideoFile(BESIDE).num_frames == 3
    if os.stat(BESIDE).st_atime == 0:
        pytest.skip("this file system keeps no access times")


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("target", [BESIDE, f"./{BESIDE}", "{folder}/" + BESIDE, "file:{folder}/" + BESIDE])
def test_playlists_are_refused_and_what_they_name_is_not_opened(folder: Path, name: str, target: str) -> None:
    Path(name).write_text(SCRIPTS[name].format(target.format(folder=folder)))
    for given in (Path(name), Path(name).read_bytes()):
        with pytest.raises(ValueError, match="this is no video") as caught:
            open_source(given)
        assert "\n" not in str(caught.value)
    assert os.stat(BESIDE).st_atime == 0


def test_the_sentence_says_what_it_is(folder: Path) -> None:
    Path("list.mp4").write_text(SCRIPTS["list.mp4"].format(BESIDE))
    with pytest.raises(ValueError, match=r"list\.mp4: this is no video, but a playlist or script that names other"):
        open_source("list.mp4")


@pytest.mark.parametrize("name", ["concat:foreign.mp4|foreign.mp4", "subfile,,start,0,end,0,,:foreign.mp4"])
def test_protocols_in_a_name_are_names_of_files(folder: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        open_source(name)
    assert os.stat(BESIDE).st_atime == 0


@pytest.mark.skipif(sys.platform == "win32", reason="these names are no file names there")
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("it's.png", r"file 'it'\''s.png'"),
        ("it's.png", r"file it\'s.png"),
        ("a b.png", r"file a\ b.png"),
        ("a b.png", "file a b.png"),
        ("back\\slash.png", r"file 'back\slash.png'"),
        ("it's.png", "it's.png"),
    ],
)
def test_lists_of_pictures_have_ffmpegs_escapes(folder: Path, name: str, line: str) -> None:
    Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(name)
    Path("frames.ffconcat").write_text(f"ffconcat version 1.0\n{line}\nduration 0.04\n{line}\n")
    source = open_source("frames.ffconcat")
    assert [source.frame_name(i) for i in range(source.num_frames or 0)] == [name, name]
    assert source.read(1)[0, 0, 0] == 77
