"""Making untrusted text safe to print: control characters are shown, not executed."""

from __future__ import annotations

import logging

LONGEST = 1000  # characters of one text; a longer one could scroll everything else off the screen


def printable(text: object, longest: int = LONGEST) -> str:
    r"""Make a text safe to print on one line.

    Lines are joined. Control characters (such as escape sequences), characters that change the text direction and
    zero-width characters are shown as ``\x1b`` and the like.

    Args:
        text: Any object; its ``str`` is used.
        longest: Length in characters to shorten it to, not counting a note about the original length.
    """
    lines = (line.strip() for line in str(text).splitlines())
    shown = _escaped(" ".join(filter(None, lines)))
    return shown if len(shown) <= longest else f"{shown[:longest]}... ({len(shown):,} characters)"


def printable_lines(text: str) -> str:
    """Like ``printable`` for a multi-line text, such as a traceback. Lines after the first are indented.

    So no line of untrusted text looks like a message of ours.
    """
    return "\n    ".join(_escaped(line) for line in text.split("\n"))


class PrintableFormatter(logging.Formatter):
    """Formats log records for terminals and log files with ``printable_lines``."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record with its traceback."""
        return printable_lines(super().format(record))


def log_to_stderr(level: int, form: str) -> logging.Handler:
    """Set up logging for an entry point, unless the application already has. Replaces ``logging.basicConfig``.

    Args:
        level: Level of the root logger.
        form: Format of records, as in ``logging.Formatter``.

    Returns:
        The handler.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
    return handler


def _escaped(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
