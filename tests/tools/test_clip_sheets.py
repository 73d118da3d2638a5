"""The sheet of clips shows what is tracked from one click on each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_support import write_mp4
from support import make_predictor

from tools.clip_sheets import CLICKS, NUM_FRAMES, TILE_HEIGHT, TILE_WIDTH, TITLE_HEIGHT, Click, draw_sheet, main

ROW = TITLE_HEIGHT + TILE_HEIGHT


def test_each_clip_has_a_row_of_its_frames(tmp_path: Path) -> None:
    for name, num_frames in (("a", 12), ("b", 3)):
        write_mp4(tmp_path / f"{name}.mp4", num_frames)
    clicks = [Click("a", "disc", 20, 18), Click("b", "disc", 20, 18)]

    sheet = np.asarray(draw_sheet(make_predictor(), tmp_path, clicks))

    assert sheet.shape == (2 * ROW, NUM_FRAMES * TILE_WIDTH, 3)
    tiles = sheet[TITLE_HEIGHT:ROW].reshape(TILE_HEIGHT, NUM_FRAMES, TILE_WIDTH, 3)
    assert all(tiles[:, number].std() > 5 for number in range(NUM_FRAMES)), "six of the twelve frames"
    assert not sheet[ROW + TITLE_HEIGHT :, 3 * TILE_WIDTH :].any(), "a clip of three frames has three"


def test_missing_clips_are_named_before_anything_is_tracked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "sheet.jpg"
    assert main(["--videos", str(tmp_path), "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert all(f"{click.clip}.mp4" in error for click in CLICKS) and not output.exists()
    assert len({click.clip for click in CLICKS}) == 15
