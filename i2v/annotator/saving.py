"""Whether a session's changes are in its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from i2v.annotator.events import EventHub


@dataclass(frozen=True)
class SaveState:
    """What a page says about saving.

    Attributes:
        state: "new" without any change yet; "unsaved" for a moment after a change; "saved"; or "failed", until a later
            try succeeds.
        path: The file, once it was saved.
        message: Why saving failed.
    """

    state: Literal["new", "unsaved", "saved", "failed"] = "new"
    path: str = ""
    message: str = ""


class Saving:
    """Counts a session's changes and those that are saved, and announces what the pages shall say of that.

    Attributes:
        num_changes: Number of changes to what the session's file contains.
        not_before: Earliest time of the next automatic save, in seconds of ``time.monotonic``.
        state: What a page says.
    """

    def __init__(self, events: EventHub) -> None:
        """Start without changes. New states are published to ``events``."""
        self.num_changes = 0
        self.not_before = 0.0
        self.state = SaveState()
        self._num_saved = 0
        self._blocked = ""
        self._events = events

    @property
    def is_due(self) -> bool:
        """Whether there are changes that are not saved, and can be."""
        return self.num_changes > self._num_saved and not self._blocked

    def check(self) -> None:
        """Raise a ValueError if the session must not be saved."""
        if self._blocked:
            raise ValueError(self._blocked)

    def block(self, message: str) -> None:
        """Save no more: the file holds something else that must stay."""
        self._blocked = message
        self.failed(message)

    def changed(self) -> bool:
        """Count a change. Returns whether the state is another one now; the caller announces it."""
        self.num_changes += 1
        if self.state.state not in ("new", "saved"):
            return False
        self.state = SaveState("unsaved", self.state.path)
        return True

    def saved(self, num_changes: int, path: Path) -> None:
        """Note that the first ``num_changes`` changes are saved."""
        self._num_saved = num_changes
        self.state = SaveState("unsaved" if self.is_due else "saved", str(path))
        self.announce()

    def failed(self, message: str) -> bool:
        """Note that saving failed. Returns whether this is news."""
        if self.state.state == "failed" and self.state.message == message:
            return False
        self.state = SaveState("failed", self.state.path, message)
        self.announce()
        return True

    def announce(self) -> None:
        """Tell the pages."""
        self._events.publish("saving", saving=asdict(self.state))
