"""A session as JSON for the page."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

import numpy as np

from i2v.annotator.document import Document, Paint, Step, step_as_json
from i2v.annotator.events import Event
from i2v.annotator.masks import StoredMask
from i2v.annotator.polygon_edits import shown_polygons
from i2v.annotator.session import Session
from i2v.annotator.session_file import ranges_of
from i2v.results.overlay import PALETTE

# One byte per frame: 0 without a mask, 1 for a mask without scores, 2..255 for confidence in 0..1.
_NO_SCORE, _LOWEST, _HIGHEST = 1, 2, 255


def snapshot(session: Session) -> dict[str, Any]:
    """Return everything but the masks: the video, the state, and a confidence strip for each object."""
    footage = session.footage
    video = {"name": footage.name, "width": footage.width, "height": footage.height, "frame_rate": footage.frame_rate}
    return {
        "session": session.number,
        "video": {**video, "frames": footage.num_available, "live": footage.live},
        "trouble": footage.replaced or "",
        "palette": ["#" + bytes(colour.tolist()).hex() for colour in PALETTE],
        "state": state(session),
        "strips": {number: _strip(session, number) for number in session.document.numbers},
        "progress": None if session.work.progress is None else vars(session.work.progress),
        "news": session.events.count,
        "epoch": session.events.epoch,
    }


def state(session: Session) -> dict[str, Any]:
    """Return objects, prompts, whether they are saved, and whether undo and redo are possible."""
    document = session.document
    return {
        "objects": [
            {
                **asdict(info),
                "outdated": ranges_of(session.store.of(info.number).outdated),
            }
            for info in document.objects
        ],
        "prompts": [
            {"object": number, "frame": frame, "steps": [_step(step) for step in steps]}
            for (number, frame), steps in document.prompts.items()
        ],
        "reviewed": ranges_of(document.reviewed),
        "next_number": _next_number(document),
        "saving": asdict(session.saving.state),
        "can_undo": bool(session.history.past),
        "can_redo": bool(session.history.future),
    }


def masks_on(session: Session, frame: int) -> dict[str, Any]:
    """Return a frame's masks as COCO's compressed run lengths, with their confidence levels."""
    entries, store = [], session.store
    for number in session.document.numbers:
        stored = store.shown(number, frame)
        if stored is not None:
            entries.append({"object": number, "counts": stored.counts.decode("ascii"), "strip": _level(stored)})
    return {"frame": frame, "masks": entries}


def polygons_on(session: Session, number: int, frame: int) -> dict[str, Any]:
    """Return an object's mask on a frame, and its polygons. Arguments and errors as for ``shown_polygons``."""
    counts, polygons = shown_polygons(session, number, frame)
    return {"mask": counts.decode("ascii"), "polygons": [polygon.tolist() for polygon in polygons]}


def fill(session: Session, event: Event) -> Event:
    """Add the current data that an event announces, and the number of events so far."""
    event = {**event, "news": session.events.count}
    if event["event"] == "listening":
        return {**event, "epoch": session.events.epoch}
    if event["event"] == "state":
        return {**event, "state": state(session)}
    if event["event"] == "masks":
        return {**event, **masks_on(session, event["frame"])}
    return event


def _next_number(document: Document) -> int | None:
    try:
        return document.free_number
    except ValueError:
        return None


def _step(step: Step) -> dict[str, Any]:
    # The mask itself is sent with the masks of its frame.
    return {"mask": True} if isinstance(step, Paint) else step_as_json(step)


def _level(stored: StoredMask) -> int:
    confidence = stored.confidence
    return _NO_SCORE if confidence is None else _LOWEST + round(confidence * (_HIGHEST - _LOWEST))


def _strip(session: Session, number: int) -> str:
    levels = np.zeros(session.footage.num_available, np.uint8)
    # In reverse, so that the layer with precedence is written last.
    for layer in reversed(session.store.of(number).layers):
        for frame, stored in layer.items():
            levels[frame] = _level(stored)
    return base64.b64encode(levels.tobytes()).decode("ascii")
