"""Track one click on the main object of each clip of a folder, and draw all of them on one sheet.

python tools/clip_sheets.py --videos DIR --output sheet.jpg [--config NAME --checkpoint FILE]

The clips are those of the galleries of SAM 2 and EdgeTAM, at 1280x720; what is clicked on their first frames is in
``CLICKS``. Nothing is scored: somebody has to look at the sheet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

if not __package__:
    # Run as a script, this file sees only its own folder.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.build_i2v import build_i2v_video_predictor
from i2v.cli.arguments import add_trust_option
from i2v.errors import USER_ERRORS, describe_error
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.pretrained import choose_model
from i2v.results.overlay import PALETTE, UserPrompt, blend_overlay, draw_prompt, spread_frames
from i2v.utils.command import as_command
from i2v.utils.files import replacing
from i2v.video.sources import open_source

NUM_FRAMES = 6  # of each clip on the sheet: the first, the last, and others at equal distances
TILE_WIDTH, TILE_HEIGHT, TITLE_HEIGHT = 256, 144, 14


@dataclass(frozen=True)
class Click:
    """What is clicked on the first frame of a clip: an object by its name, and a pixel."""

    clip: str
    thing: str
    x: int
    y: int


CLICKS = (
    Click("01_dog", "dog", 625, 425),
    Click("02_cups", "middle cup", 652, 418),
    Click("02_hummingbird", "hummingbird", 545, 235),
    Click("03_blocks", "block with the U", 817, 254),
    Click("03_skateboarder", "skateboarder", 271, 185),
    Click("04_coffee", "kettle", 571, 492),
    Click("05_default_juggle", "man", 714, 246),
    Click("05_landing_dog_soccer", "dog", 948, 303),
    Click("06_pingpong", "player", 960, 332),
    Click("07_snowboarder", "snowboarder", 320, 222),
    Click("08_driving", "car ahead", 556, 532),
    Click("10_cloth_magic", "cloth", 665, 578),
    Click("11_polevault", "athlete", 315, 473),
    Click("13_butterfly", "chrysalis", 546, 340),
    Click("14_social_dog_training", "dog", 849, 369),
)


def track(predictor: I2VVideoPredictor, video: Path, click: Click) -> Iterator[NDArray[np.uint8]]:
    """Track a click through a clip.

    Yields:
        The frames ``(H, W, 3)`` that are drawn, with the mask on them.
    """
    with open_source(video) as source, predictor.init_state(video) as state:
        if not source.num_frames:
            raise ValueError(f"{video}: the number of frames is not known")
        shown = spread_frames(range(source.num_frames), NUM_FRAMES)
        predictor.add_new_points_or_box(state, 0, 1, points=[[click.x, click.y]], labels=[1])
        for frame, _, logits in predictor.propagate_in_video(state):
            if frame in shown:
                yield blend_overlay(source.read(frame), (logits[0, 0] > 0).cpu().numpy().astype(np.uint8))


def draw_row(click: Click, frames: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Frames of a clip beside each other, below its name, with the click on the first."""
    row = Image.new("RGB", (NUM_FRAMES * TILE_WIDTH, TITLE_HEIGHT + TILE_HEIGHT))
    ImageDraw.Draw(row).text((3, 1), f"{click.clip}: {click.thing}", fill="white")
    for number, frame in enumerate(frames):
        tile = Image.fromarray(frame).resize((TILE_WIDTH, TILE_HEIGHT), Image.Resampling.LANCZOS)
        if number == 0:
            prompt = UserPrompt(obj_id=1, frame=0, clicks=((click.x, click.y, 1),))
            draw_prompt(tile, prompt, TILE_WIDTH / frame.shape[1], tuple(PALETTE[1].tolist()))
        row.paste(tile, (number * TILE_WIDTH, TITLE_HEIGHT))
    return row


def draw_sheet(predictor: I2VVideoPredictor, videos: Path, clicks: Sequence[Click] = CLICKS) -> Image.Image:
    """Track all clicks and draw the sheet.

    Raises:
        FileNotFoundError: If a clip is missing; nothing has been tracked then.
    """
    paths = [videos / f"{click.clip}.mp4" for click in clicks]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"clips that are missing: {', '.join(missing)}")
    rows = [
        draw_row(click, list(track(predictor, path, click)))
        for click, path in zip(tqdm(clicks, unit=" clips", disable=None), paths, strict=True)
    ]
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    for number, row in enumerate(rows):
        sheet.paste(row, (0, number * row.height))
    return sheet


@as_command("clip_sheets")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 when done, 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the sheet, a JPEG or PNG file")
    parser.add_argument("--config", help="default: that of the checkpoint")
    parser.add_argument("--checkpoint", help="default: i2v-nano")
    add_trust_option(parser)
    args = parser.parse_args(argv)
    try:
        model = choose_model(args.config, args.checkpoint)
        predictor = build_i2v_video_predictor(model.config, model.checkpoint, trust_config=args.trust_config)
        sheet = draw_sheet(predictor, args.videos)
        with replacing(args.output) as path:
            sheet.save(path, format="PNG" if args.output.suffix.lower() == ".png" else "JPEG")
    except USER_ERRORS as error:
        print(f"clip_sheets: error: {describe_error(error)}", file=sys.stderr)
        return 1
    print(f"{len(CLICKS)} clips on {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
