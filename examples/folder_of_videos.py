"""Track the object in the middle of the first frame through every video of a folder, as the command line does."""

import argparse
import sys
from pathlib import Path

from i2v.cli.main import main
from i2v.video.sources import open_source

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--suffixes", nargs="+", default=[".mp4", ".mov", ".mkv", ".webm"])
parser.add_argument("--out", type=Path, default=Path("tracked"))
args = parser.parse_args()

failed = []
for video in sorted(path for path in args.folder.iterdir() if path.suffix.lower() in args.suffixes):
    with open_source(video) as source:
        click = f"{source.width / 2},{source.height / 2}"
    # A video that fails leaves the others alone; one that is done is not done again.
    if not (args.out / video.stem / "contact_sheet.png").exists():
        status = main(["track", str(video), "--click", click, "--out", str(args.out / video.stem), "--overwrite"])
        failed += [video.name] if status else []
sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
