"""Text that comes from files, made fit for a terminal: what it says is shown, and none of it is obeyed."""

from __future__ import annotations

import logging

LONGEST = 1000  # characters of one text; more could push everything else off the screen


def printable(text: object, longest: int = LONGEST) -> str:
    r"""A text as one line of characters that show themselves, shortened to about `longest` of them.

    Lines are joined. Control characters (such as the escape that moves the cursor), those that turn the direction of
    writing and those that take no room are written as `\x1b` and the like.
    """
    lines = (line.strip() for line in str(text).splitlines())
    shown = _escaped(" ".join(filter(None, lines)))
    return shown if len(shown) <= longest else f"{shown[:longest]}... ({len(shown):,} characters)"


def printable_lines(text: str) -> str:
    """The same for a longer text, such as a traceback. Lines after the first are indented: none passes for another."""
    return "\n    ".join(_escaped(line) for line in text.split("\n"))


class PrintableFormatter(logging.Formatter):
    """Formats records for a terminal or a log file, as `printable_lines`."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record, with its traceback."""
        return printable_lines(super().format(record))


def log_to_stderr(level: int, form: str) -> logging.Handler:
    """What entry points do in place of `logging.basicConfig`; an application's own set-up of logging stays."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
    return handler


def _escaped(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
