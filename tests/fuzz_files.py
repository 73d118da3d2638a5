"""Files for fuzzing, as strategies of hypothesis: others that are changed a little, and some that are made up."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

# Bytes that have meant trouble somewhere: ends of number ranges, terminators, what begins other formats.
TROUBLE = [
    b"",
    b"\0",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"\n",
    b'"',
    b"\\",
    b"[",
    b"{",
    b"9" * 40,
]


@st.composite
def mutated(draw: st.DrawFn, files: st.SearchStrategy[bytes]) -> bytes:
    """Files with some bytes exchanged, cut out, repeated or put in, perhaps none."""
    data = draw(files)
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 1, 1, 2, 4, 8, 100, 10_000])))
        piece = draw(st.one_of(st.sampled_from(TROUBLE), st.binary(max_size=8), st.just(data[start:stop] * 2)))
        data = data[:start] + piece + data[stop:]
    return data


# Values that a reader may not expect where it finds them.
NUMBERS = [2**31, 2**53, 2**63, 10**9, 10**30, -(2**63), 1e308, -0.0, 0.5, 48.0, float("inf"), float("nan")]
TEXTS = ["/", "..", "../x", "/tmp/x", ".", "a\0b", "\ud800", "\u202e", "0", "-1", "01", "\x1b[2J", "x" * 300]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from(NUMBERS),
    st.text(max_size=5),
    st.sampled_from(TEXTS),
    st.text(alphabet=[chr(48 + digit) for digit in range(64)], max_size=12),  # of run lengths
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def changed_json(draw: st.DrawFn, templates: Sequence[Any]) -> bytes:
    """JSON of the templates with some of their values exchanged, left out, repeated or nested, perhaps none."""
    root = [copy.deepcopy(draw(st.sampled_from(templates)))]
    nested: dict[str, str] = {}
    for _ in range(draw(st.integers(0, 4))):
        container, key = draw(st.sampled_from(list(_places(root))))
        change = draw(st.sampled_from(["exchange", "exchange", "exchange", "drop", "repeat", "nest", "rename"]))
        if change == "drop" and container is not root:
            del container[key]
        elif change == "repeat" and isinstance(container, list) and container is not root:
            container.insert(key, container[key])
        elif change == "rename" and isinstance(container, dict):
            name = draw(st.text(max_size=6) | st.sampled_from(["-1", "00", "1e3", "0" * 5000]))
            container[name] = container.pop(key)
        elif change == "nest":
            # As text: json.dumps gives up at a thousand levels.
            depth = draw(st.sampled_from([1, 5, 40, 2000]))
            mark = f"nested {len(nested)}"
            nested[json.dumps(mark)] = "[" * depth + json.dumps(container[key]) + "]" * depth
            container[key] = mark
        else:
            container[key] = draw(VALUES)
    text = json.dumps(root[0])
    for mark, replacement in reversed(nested.items()):
        text = text.replace(mark, replacement)
    return text.encode()


def _places(container: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a value: containers and keys in them."""
    keys = list(container) if isinstance(container, dict) else range(len(container))
    for key in keys:
        yield container, key
        if isinstance(container[key], dict | list):
            yield from _places(container[key])


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with the checksum that it should have."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


@st.composite
def png_files(draw: st.DrawFn) -> bytes:
    """PNG files whose header, palette and pixels may not fit, but whose checksums do."""
    side = st.sampled_from([0, 1, 3, 64, 48, 5000, 65_000, 2**31 - 1])
    depth = draw(st.sampled_from([1, 2, 4, 8, 16, 3]))
    colours = draw(st.sampled_from([0, 2, 3, 3, 3, 4, 6, 1]))
    width, height = draw(side), draw(side)
    flags = bytes([depth, colours, 0, 0, draw(st.sampled_from([0, 0, 1, 2]))])
    chunks = [png_chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + flags)]
    others = st.sampled_from([b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"eXIf", b"gAMA", b"abcd"])
    for _ in range(draw(st.integers(0, 3))):
        chunks.append(png_chunk(draw(others), draw(st.binary(max_size=30) | st.just(zlib.compress(b"\0" * 100_000)))))
    row = bytes([draw(st.integers(0, 6))]) + draw(st.binary(max_size=4)) * 16
    rows = row[: 1 + (min(width, 64) * depth + 7) // 8] * min(height, 64)
    chunks.append(png_chunk(b"IDAT", draw(st.just(zlib.compress(rows)) | st.binary(max_size=20))))
    if draw(st.booleans()):
        chunks.append(png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
