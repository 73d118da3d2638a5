"""The list of sessions, open and saved, with a picture of each."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from i2v.annotator.document import Document
from i2v.annotator.footage import to_jpeg
from i2v.annotator.masks import MaskStore, ObjectMasks
from i2v.annotator.session_file import read_session
from i2v.annotator.sessions import SessionBook
from i2v.results.overlay import blend_overlay

WIDTH = 160  # pixels of a picture
_LARGEST_READ = 32 << 20  # bytes of a session file that is read for a picture


def listing(book: SessionBook) -> list[dict[str, Any]]:
    """Return number, objects, tabs and time of the last change of all sessions, by number.

    Sessions that are only in a file have ``open`` false; the number of their objects is not known.
    """
    live = {session.number: session for session in book}
    entries = []
    for number in sorted({*live, *book.saved_numbers()}):
        session, path = live.get(number), book.file_of(number)
        entries.append(
            {
                "session": number,
                "open": session is not None,
                "objects": None if session is None else len(session.document.objects),
                "tabs": 0 if session is None else session.events.num_listeners,
                "file": path.name,
                "saved": path.stat().st_mtime if path.exists() else None,
            }
        )
    return entries


def picture_of(book: SessionBook, number: int) -> bytes:
    """Return a small JPEG of a session's first prompted frame, with masks.

    Raises:
        KeyError: If there is neither a session nor a readable file.
        OSError: If a file cannot be read.
        ValueError: If it is malformed.
    """
    document, store = _contents(book, number)
    prompted = sorted({frame for _, frame in document.prompts} or store.frames_of(document.numbers)) or [0]
    frame = prompted[0]
    picture = Image.open(io.BytesIO(book.footage.jpeg(frame))).convert("RGB")
    labels = store.label_map(frame, {number: number for number in document.numbers}, (picture.height, picture.width))
    shown = Image.fromarray(blend_overlay(np.asarray(picture), labels))
    shown.thumbnail((WIDTH, 10 * WIDTH))
    return to_jpeg(shown)


def _contents(book: SessionBook, number: int) -> tuple[Document, MaskStore]:
    session = next((session for session in book if session.number == number), None)
    if session is not None:
        return session.document, session.store
    path = book.file_of(number)
    if not path.exists() or path.stat().st_size > _LARGEST_READ:
        raise KeyError(number)
    saved = read_session(path, book.footage)
    return saved.document, MaskStore({n: ObjectMasks(imported=masks) for n, masks in saved.masks.items()})
