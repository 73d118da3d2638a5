"""Text from files is shown, and not obeyed."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import TINY

from i2v.checkpoint import save_checkpoint
from i2v.cli.main import main
from i2v.utils.terminal import PrintableFormatter, printable

CLEAR = "\x1b[2J\x1b[1;1H"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ü and 猫  twice", "plain text, ü and 猫  twice"),
        (f"{CLEAR}gone", r"\x1b[2J\x1b[1;1Hgone"),
        ("one\nfits: yes\r\n  two", "one fits: yes two"),
        ("a\rb\x0bc\x85d\u2028e", "a b c d e"),
        ("a\tb\x08c\x7f\x9b", r"a\tb\x08c\x7f\x9b"),
        ("a\u202eb\u2066c\u200bd\ufeff\U000e0041", r"a\u202eb\u2066c\u200bd\ufeff\U000e0041"),
        ("bad \udcff name", r"bad \udcff name"),
        ("x" * 2000, f"{'x' * 1000}... (2,000 characters)"),
        (Path("a\x1b"), r"a\x1b"),
        (5, "5"),
    ],
)
def test_a_text_is_one_line_that_shows_itself(text: object, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_logged_lines_cannot_pass_for_others(caplog: pytest.LogCaptureFixture) -> None:
    formatter = PrintableFormatter("%(levelname)s: %(message)s")
    try:
        raise ValueError(f"{CLEAR}\nINFO: all is well")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 0, "%s\nINFO: done", (CLEAR,), sys.exc_info())
    first, *others = formatter.format(record).split("\n")
    assert first == r"ERROR: \x1b[2J\x1b[1;1H"
    assert others and all(line.startswith("    ") and line.isprintable() for line in others)


def test_a_checkpoint_cannot_forge_what_info_says(tmp_path: Path, capsys: Any) -> None:
    forged = {
        "fits": "i2v-infer: yes; all entries fit",
        "sha256": "0" * 64,
        "fits        i2v-infer: yes; all entries fit": "",
        f"epoch{CLEAR}": "1",
        "note": f"{CLEAR}\nfits        i2v-infer: yes\u202e",
        "wide": f"a{' ' * 200}fits        i2v-infer: yes",
        "long": "y" * 5000,
        "epoch": 7,
    }
    weights = {**torch.nn.Linear(2, 2).state_dict(), f"{CLEAR}\nfits   yes": torch.zeros(1)}
    torch.save({"model": weights, **forged, f"{CLEAR}state": {}}, tmp_path / "m.pt")
    assert main(["info", str(tmp_path / "m.pt"), "--config", str(TINY)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() and len(line) < 1300 for line in lines)
    (fits,) = [line for line in lines if line.startswith("fits")]
    assert " no; " in fits
    assert len([line for line in lines if line.startswith("sha256")]) == 1
    assert f"'sha256'    {'0' * 64}" in lines
    assert "'fits'      i2v-infer: yes; all entries fit" in lines
    assert "epoch       7" in lines
    assert "wide        a fits i2v-infer: yes" in lines


def test_errors_show_names_of_files_and_entries(tmp_path: Path, capsys: Any) -> None:
    save_checkpoint(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    evil = tmp_path / f"{CLEAR}\ni2v: all is well.pt"
    torch.save({f"{CLEAR}\nfits": torch.zeros(1)}, evil)
    assert main(["info", str(evil)]) == 1
    assert main(["-v", "info", str(evil)]) in (1, 2)
    assert main(["info", str(evil), "-v"]) == 1
    err = capsys.readouterr().err
    assert "\x1b" not in err and not any(line.startswith("i2v: all is well") for line in err.splitlines())
