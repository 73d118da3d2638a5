"""What a user has said of a video: objects and prompts, as frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from i2v.results.export import MAX_OBJECTS

MAX_STEPS = 200  # on one frame of one object


@dataclass(frozen=True)
class Click:
    """A point in pixels, x first, on the object or off it."""

    x: float
    y: float
    positive: bool


@dataclass(frozen=True)
class Box:
    """Two corners in pixels, the upper left one first."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Paint:
    """The object's whole mask, as compressed counts."""

    counts: bytes


Step: TypeAlias = Click | Box | Paint
Place: TypeAlias = tuple[int, int]  # object, frame


def step_as_json(step: Step) -> dict[str, Any]:
    """A step as the session file and the page have it: a click, a box, or the counts of a mask."""
    if isinstance(step, Click):
        return {"click": [step.x, step.y, int(step.positive)]}
    if isinstance(step, Box):
        return {"box": [step.x0, step.y0, step.x1, step.y1]}
    return {"mask": step.counts.decode("ascii")}


@dataclass(frozen=True)
class ObjectInfo:
    """An object: `number` from 1 on, which is its label and its colour, and what the user calls it."""

    number: int
    name: str


@dataclass(frozen=True)
class Document:
    """Objects in order; the steps of every prompted place in the order in which they were made.

    Every change returns a new document. Raises ValueError for one that cannot be.
    """

    objects: tuple[ObjectInfo, ...] = ()
    prompts: Mapping[Place, tuple[Step, ...]] = field(default_factory=dict)
    next_number: int = 1

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(info.number for info in self.objects)

    def check(self, number: int) -> None:
        """Raise ValueError unless there is an object of that number."""
        if number not in self.numbers:
            raise ValueError(f"there is no object {number}: {_listed(self.numbers)}")

    def prompted_frames(self, number: int) -> list[int]:
        """The frames on which an object has prompts, in order."""
        return sorted(frame for owner, frame in self.prompts if owner == number)

    def with_object(self, name: str | None = None, number: int | None = None) -> Document:
        """One more object, by default with the next free number; an object of that number may not be there yet."""
        new = self.next_number if number is None else number
        if len(self.objects) >= MAX_OBJECTS or not 1 <= new <= MAX_OBJECTS:
            raise ValueError(f"no more objects: their numbers go from 1 to {MAX_OBJECTS}")
        if new in self.numbers:
            raise ValueError(f"there is an object {new} already")
        info = ObjectInfo(new, name or f"object {new}")
        return replace(self, objects=(*self.objects, info), next_number=max(self.next_number, new + 1))

    def renamed(self, number: int, name: str) -> Document:
        """The object under another name."""
        self.check(number)
        return replace(
            self, objects=tuple(replace(info, name=name) if info.number == number else info for info in self.objects)
        )

    def without_object(self, number: int) -> Document:
        """The object gone, with its prompts."""
        self.check(number)
        return replace(
            self,
            objects=tuple(info for info in self.objects if info.number != number),
            prompts={place: steps for place, steps in self.prompts.items() if place[0] != number},
        )

    def with_steps(self, place: Place, *steps: Step) -> Document:
        """Steps made on a place: clicks add to what is there, a box or a mask takes its place."""
        self.check(place[0])
        afresh = isinstance(steps[0], (Box, Paint))
        chain = steps if afresh else (*self.prompts.get(place, ()), *steps)
        if len(chain) > MAX_STEPS:
            raise ValueError(f"object {place[0]}, frame {place[1]}: at most {MAX_STEPS} prompts fit on one frame")
        return replace(self, prompts={**self.prompts, place: chain})

    def cleared(self, place: Place) -> Document:
        """A place without prompts."""
        self.check(place[0])
        if place not in self.prompts:
            raise ValueError(f"object {place[0]} has no prompt on frame {place[1]}")
        return replace(self, prompts={where: steps for where, steps in self.prompts.items() if where != place})

    def with_objects(self, numbers: Iterable[int]) -> Document:
        """With objects of all these numbers; those that are missing are added."""
        document = self
        for number in sorted(set(numbers) - set(self.numbers)):
            document = document.with_object(number=number)
        return document


def _listed(numbers: tuple[int, ...]) -> str:
    return f"there are {', '.join(map(str, numbers))}" if numbers else "there are none yet"
