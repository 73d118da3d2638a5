"""Small files that would take gigabytes or minutes: what each takes, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_MEGABYTES, MAX_SECONDS = 700, 20  # beyond what the process has before

# Reads the attack of a name, and prints the megabytes and seconds that it took, and the error.
READER = """
import io, json, resource, struct, sys, time, zlib
from pathlib import Path
from PIL import Image
from fuzz_files import png_chunk
from i2v.errors import InvalidFileError
from i2v.utils.image_file import decode_image
from i2v.annotator.importer import Target, read_masks
from i2v.annotator.commands import read_command
from sav_dataset.utils.mask_info import read_mask_info
from sav_dataset.utils.sav_utils import read_annotation

def file(name, data):
    path = Path(sys.argv[2]) / name
    path.write_bytes(data)
    return path

def png(width, height):
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(width)) for _ in range(height)) + packer.flush()
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\\x89PNG\\r\\n\\x1a\\n" + header + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")

def jpeg(repeats):
    buffer = io.BytesIO()
    Image.new("RGB", (7680, 4320)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rindex(b"\\xff\\xda") : -2] * repeats + data[-2:]

def imported(text):
    return lambda: read_masks("m.json", text.encode(), Target((48, 64), 10, 1))

NPY = b"\\x93NUMPY\\x01\\0\\x76\\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\\n"
PAINT = b'{"do":"paint","object":1,"frame":0,"runs":['
ATTACKS = {
    "import of empty frames": imported('{"frames":[' + ",".join(["{}"] * 300_000) + "]}"),
    "import of many objects": imported('{"frames":[' + ",".join(['{"frame":1,"objects":[]}'] * 990_000) + "]}"),
    "import that is nested": imported("[" * 60_000_000),
    "import of other things": imported('{"frames":[],"x":[' + ",".join(["[]"] * 1_900_000) + "]}"),
    "command of wrong runs": lambda: read_command(PAINT + b"-1," * 600_000 + b"-1]}"),
    "header of .npy": lambda: read_mask_info(file("a.npy", b"\\x93NUMPY\\x02\\0\\xff\\xff\\xff\\xff{")),
    "bytes of a pickle": lambda: read_mask_info(file("a.npy", NPY + b"\\x80\\x04\\x8e\\0\\0\\0\\0\\1\\0\\0\\0.")),
    "memo of a pickle": lambda: read_mask_info(file("a.npy", NPY + b"\\x80\\x04Nr\\xff\\xff\\xff\\x7f.")),
    "operations of a pickle": lambda: read_mask_info(file("a.npy", NPY + b"\\x80\\x04" + b"}" * 50_000_000)),
    "annotation of many frames": lambda: read_annotation(file("a.json", b'{"masklet":[' + b"[]," * 2_500_000)),
    "huge PNG": lambda: decode_image(png(12_000, 4_000), "a.png"),
    "scans of a JPEG": lambda: decode_image(jpeg(5000), "a.jpg"),
}

attack = ATTACKS[sys.argv[1]]
before, start, error = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), ""
try:
    attack()
except InvalidFileError as refused:
    error = str(refused)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([(after - before) // 1024, time.process_time() - start, error]))
"""


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ("import of empty frames", "not a file of masks: frames.0.frame: Field required"),
        ("import of many objects", "there is no mask in it"),
        ("import that is nested", "more than 32 levels of nesting"),
        ("import of other things", "there is no mask in it"),
        ("command of wrong runs", "not a command: paint.runs.0"),
        ("header of .npy", "the header of this .npy file cannot be read"),
        ("bytes of a pickle", "it ends too early"),
        ("memo of a pickle", "expected an array"),
        ("operations of a pickle", "more than 1,000,000 opcodes"),
        ("annotation of many frames", "more than 2,000,000 objects and lists"),
        ("huge PNG", "a picture of 12000x4000 pixels"),
        ("scans of a JPEG", "more than 64 scans"),
    ],
)
def test_a_small_file_takes_little(tmp_path: Path, attack: str, message: str) -> None:
    command = [sys.executable, "-c", READER, attack, str(tmp_path)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    megabytes, seconds, error = json.loads(finished.stdout)
    assert message in error
    assert megabytes < MAX_MEGABYTES and seconds < MAX_SECONDS, (megabytes, seconds)
