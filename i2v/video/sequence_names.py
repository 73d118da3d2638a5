"""Whether the names of pictures in one folder are those of the frames of one video."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_KINDS = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif", ".j2k": ".jp2"}
_LABEL_WORDS = ("label", "labels", "annotation", "annotations", "anno", "seg", "segmentation")
_MASK_WORDS = frozenset((*_LABEL_WORDS, "gt", "groundtruth", "trimap", "matte"))
_WORD = r"[^\W\d_]+"
_MOST_ODD = 4  # names that follow a pattern, to one that does not; more that do not are no mistake

_Numbers = dict[tuple[int, ...], str]  # name by the numbers in it


def check_sequence(names: Iterable[str], where: str) -> None:
    """Check that pictures of one folder can be the frames of one video.

    Frames and their masks often lie in one folder, and would be taken for further frames. Names need not count without
    gaps: ``IMG_2031.jpg`` and ``IMG_2034.jpg`` are a sequence, as are times.

    Args:
        names: File names.
        where: The folder, for messages.

    Raises:
        ValueError: If two files have the same stem or number, if there are files of several kinds (such as JPEG and
            PNG) whose names differ by more than their numbers, if names differ so and count the same frames twice, or
            if a name is odd: it extends another's (``0_mask.png`` beside ``0.png``), says mask or the like where others
            do not, or lacks the words and number that the others have (``cover.png``).
    """
    series: dict[str, _Numbers] = {}
    stems: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name.casefold())
        if stem in stems:
            _fail(where, f"{stems[stem]} and {name} have the same name")
        stems[stem] = name
        kinds.setdefault(_KINDS.get(suffix, suffix), name)
        parts = re.split(r"([0-9]+)", stem)
        of_pattern = series.setdefault("#".join(parts[::2]), {})
        number = tuple(map(int, parts[1::2]))
        if number in of_pattern:
            _fail(where, f"{of_pattern[number]} and {name} have the same number")
        of_pattern[number] = name
    if len(series) == 1:
        return
    if len(kinds) > 1:
        _fail(where, f"there are images of several kinds and names, such as {' and '.join(kinds.values())}")
    _check_overlap(list(series.values()), where)
    _check_odd(stems, where)


def _check_overlap(series: list[_Numbers], where: str) -> None:
    """ValueError if two series of names count the same frames, as 0.png, 1.png, 0_mask.png, 1_mask.png."""
    owners: dict[tuple[int, ...], list[int]] = {}
    long = [numbers for numbers in series if len(numbers) > 1 and () not in numbers]
    for place, numbers in enumerate(long):
        for number in numbers:
            owners.setdefault(number, []).append(place)
    shared: dict[tuple[int, int], int] = {}
    for places in owners.values():
        for pair in itertools.combinations(places[:8], 2):
            shared[pair] = shared.get(pair, 0) + 1
    for (first, second), count in shared.items():
        if 2 * count >= min(len(long[first]), len(long[second])):
            number = next(number for number in long[first] if number in long[second])
            _fail(where, f"{long[first][number]} and {long[second][number]} both count as frame {number[-1]}")


def _check_odd(names: dict[str, str], where: str) -> None:
    """ValueError if a name does not fit the others; all are given by their stems in lower case."""
    forms = {stem: _NameForm.of(stem) for stem in names}
    for stem, name in names.items():
        other = _extended(stem, names)
        if other is not None:
            _fail(where, f"the name of {name} extends that of {names[other]}")
    masks = [names[stem] for stem, form in forms.items() if form.says_mask]
    if 0 < len(masks) < len(names):
        _fail(where, f"{masks[0]} seems to be no frame")
    counts = Counter(form.words for form in forms.values())
    words, count = counts.most_common(1)[0]
    usual = {form.numbers: names[stem] for stem, form in forms.items() if form.words == words}
    alone = [stem for stem, form in forms.items() if counts[form.words] == 1]
    odd = [stem for stem in alone if forms[stem].numbers in usual or not forms[stem].is_like(words)]
    if () not in usual and count > 1 and 0 < len(odd) <= max(1, count // _MOST_ODD):
        _fail(where, f"{names[odd[0]]} is not named like the others, such as {next(iter(usual.values()))}")


@dataclass(frozen=True)
class _NameForm:
    """What a stem consists of, without separators."""

    words: tuple[str, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, stem: str) -> _NameForm:
        return cls(tuple(re.findall(_WORD, stem)), tuple(map(int, re.findall("[0-9]+", stem))))

    @property
    def says_mask(self) -> bool:
        return any(word in _MASK_WORDS or word.endswith(("mask", "masks")) for word in self.words)

    def is_like(self, words: tuple[str, ...]) -> bool:
        """Whether it has a number, and as many words: ``DSC_1`` is like ``IMG_2``, and 9 AM like 1 PM."""
        return bool(self.numbers) and len(self.words) == len(words)


def _extended(stem: str, others: Collection[str]) -> str | None:
    """The stem that another one extends by words, such as ``img_0`` of ``img_0_gt`` and ``0`` of ``mask_0``."""
    if not re.search(_WORD, stem):
        return None
    for place in range(1, len(stem)):
        before, after = stem[:place], stem[place:]
        if before in others and re.search(_WORD, after) and _is_joint(before[-1], after[0]):
            return before
        is_word = re.search(_WORD, before) and not re.search("[0-9]", before)
        if after in others and is_word and _is_joint(after[0], before[-1]):
            return after
    return None


def _is_joint(inner: str, outer: str) -> bool:
    """Whether a word begins beside another's end: after a separator, or letters beside a number."""
    return not outer.isalnum() or not inner.isalnum() or (inner.isdigit() and outer.isalpha())


def _fail(where: str, reason: str) -> None:
    raise ValueError(
        f"{where}: {reason}: expected the frames of one video; where other pictures lie beside them, give a pattern "
        "like *.jpg that matches only these, or a text file with the path of a frame on each line"
    )
