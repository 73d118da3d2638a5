"""Whole numbers on command lines, as argparse's ``type=``."""

from __future__ import annotations

import argparse


def whole_number(text: str, least: int | None = None, most: int | None = None) -> int:
    """Read a whole number; both bounds are allowed.

    Raises:
        argparse.ArgumentTypeError: If it is none, or out of its bounds.
    """
    expected = "a whole number" + ("" if least is None else f" from {least} {'up' if most is None else f'to {most}'}")
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None
    if (least is not None and value < least) or (most is not None and value > most):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def count(text: str) -> int:
    """Read a whole number from 1 up; raises as ``whole_number``."""
    return whole_number(text, 1)


def amount(text: str) -> int:
    """Read a whole number from 0 up; raises as ``whole_number``."""
    return whole_number(text, 0)


def percent(text: str) -> int:
    """Read a whole number from 1 to 100; raises as ``whole_number``."""
    return whole_number(text, 1, 100)
