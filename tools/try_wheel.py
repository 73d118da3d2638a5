"""Try the installed i2v where no checkout is beside it: python try_wheel.py, in an empty folder.

Tracks the demo's clip, segments one of its frames, loads the small model by its name, and opens the annotator and the
service, each of which has to answer a request and to end with Ctrl-C.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

_SECONDS = 60  # that a server has to end


def main() -> int:
    """Run the checks. Returns the exit status: 0 if all is well."""
    import numpy as np
    from PIL import Image

    import i2v
    from i2v.demo import render_demo_clip
    from i2v.i2v_video_predictor import I2VVideoPredictor
    from i2v.results.export import read_label_png

    installed = Path(sysconfig.get_path("purelib")).resolve()
    if installed not in Path(i2v.__file__).resolve().parents:
        print(f"try_wheel: error: i2v is imported from {i2v.__file__}, expected below {installed}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = render_demo_clip(num_frames=2)
        Image.fromarray(clip.frames[0]).save(folder / "photo.png")
        rows, columns = np.nonzero(clip.masks[0])
        click = f"{columns.mean():.0f},{rows.mean():.0f}"
        for arguments in (["demo"], ["segment", "photo.png", "--click", click]):
            subprocess.run([sys.executable, "-m", "i2v", *arguments], cwd=folder, check=True)
        page = answer_of(["annotate", "photo_i2v/overlays", "--no-browser"], folder)
        health = answer_of(["serve", "--root", "."], folder, "/health")
        mask = read_label_png(folder / "photo_i2v" / "masks" / "photo.png") > 0
        iou = (mask & clip.masks[0]).sum() / (mask | clip.masks[0]).sum()
        frames = len(list((folder / "i2v_demo" / "masks").iterdir()))
    size = I2VVideoPredictor.from_pretrained("i2v-nano", device="cpu").image_size
    print(f"i2v {i2v.__version__}: demo {frames} frames, segmented frame IoU {iou:.2f}, i2v-nano at {size} pixels")
    print(f"annotate answers {len(page)} bytes of its page, serve {health.decode()}")
    return 0 if frames == 48 and iou > 0.6 and b"<html" in page and b'"UP"' in health else 1


def answer_of(arguments: Sequence[str], folder: Path, path: str = "") -> bytes:
    """Start a command that serves, and return what it answers.

    Args:
        arguments: Arguments of ``i2v``.
        folder: Working directory.
        path: What is added to the address that the command prints.

    Raises:
        RuntimeError: If it prints no address, or does not end well with Ctrl-C.
    """
    command = [sys.executable, "-m", "i2v", *arguments]
    with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="")
                if found := re.search(r"(?:open|on) (http://[^\s;]+)", line):
                    with urllib.request.urlopen(found[1] + path, timeout=_SECONDS) as response:
                        answer: bytes = response.read()
                    break
            else:
                raise RuntimeError(f"{command} printed no address")
            process.send_signal(signal.SIGINT)
            if process.wait(_SECONDS) not in (0, 130):
                raise RuntimeError(f"{command} ended with status {process.returncode}")
        finally:
            process.kill()
    return answer


if __name__ == "__main__":
    sys.exit(main())
