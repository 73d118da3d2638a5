"""A user's annotation of a video, objects and prompts, as immutable values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from i2v.results.export import MAX_OBJECTS

MAX_STEPS = 200  # on one frame of one object


@dataclass(frozen=True)
class Click:
    """A positive click on the object, or a negative one off it.

    Attributes:
        x: Column in pixels.
        y: Row in pixels.
        positive: Whether it is on the object.
    """

    x: float
    y: float
    positive: bool


@dataclass(frozen=True)
class Box:
    """A box around the object, in pixels: the upper left corner (x0, y0) and the lower right one (x1, y1)."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Paint:
    """The object's whole mask, as COCO's compressed run lengths."""

    counts: bytes


Step: TypeAlias = Click | Box | Paint
Place: TypeAlias = tuple[int, int]  # object, frame


def step_as_json(step: Step) -> dict[str, Any]:
    """Convert a step to JSON as in the session file: a click, a box, or the run lengths of a mask."""
    if isinstance(step, Click):
        return {"click": [step.x, step.y, int(step.positive)]}
    if isinstance(step, Box):
        return {"box": [step.x0, step.y0, step.x1, step.y1]}
    return {"mask": step.counts.decode("ascii")}


@dataclass(frozen=True)
class ObjectInfo:
    """An object.

    Attributes:
        number: Its number in 1..255, which is also its label and colour.
        name: Its name for the user.
    """

    number: int
    name: str


@dataclass(frozen=True)
class Document:
    """Objects and prompts. Methods return a changed copy, and raise ValueError if the change is not possible.

    Attributes:
        objects: The objects in order.
        prompts: The steps on each (object, frame), in the order in which they were made.
        next_number: Number of the next object.
    """

    objects: tuple[ObjectInfo, ...] = ()
    prompts: Mapping[Place, tuple[Step, ...]] = field(default_factory=dict)
    next_number: int = 1

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(info.number for info in self.objects)

    def check(self, number: int) -> None:
        """Check that an object exists.

        Raises:
            ValueError: If there is no object with this number.
        """
        if number not in self.numbers:
            raise ValueError(f"there is no object {number}: {_listed(self.numbers)}")

    def prompted_frames(self, number: int) -> list[int]:
        """Return the frames on which an object has prompts, in ascending order."""
        return sorted(frame for owner, frame in self.prompts if owner == number)

    def with_object(self, name: str | None = None, number: int | None = None) -> Document:
        """Add an object.

        Args:
            name: Its name, by default "object" and the number.
            number: Its number, by default the next free one.

        Raises:
            ValueError: If the number is taken or not in 1..255.
        """
        new = self.next_number if number is None else number
        if len(self.objects) >= MAX_OBJECTS or not 1 <= new <= MAX_OBJECTS:
            raise ValueError(f"no more objects: their numbers go from 1 to {MAX_OBJECTS}")
        if new in self.numbers:
            raise ValueError(f"there is an object {new} already")
        info = ObjectInfo(new, name or f"object {new}")
        return replace(self, objects=(*self.objects, info), next_number=max(self.next_number, new + 1))

    def renamed(self, number: int, name: str) -> Document:
        """Rename an object."""
        self.check(number)
        return replace(
            self, objects=tuple(replace(info, name=name) if info.number == number else info for info in self.objects)
        )

    def without_object(self, number: int) -> Document:
        """Remove an object and its prompts."""
        self.check(number)
        return replace(
            self,
            objects=tuple(info for info in self.objects if info.number != number),
            prompts={place: steps for place, steps in self.prompts.items() if place[0] != number},
        )

    def with_steps(self, place: Place, *steps: Step) -> Document:
        """Add steps on an object and frame. Clicks are added to earlier steps; a box or a mask replaces them.

        Args:
            place: The (object, frame).
            *steps: The steps, at least one.

        Raises:
            ValueError: If there is no such object, or there are too many steps.
        """
        self.check(place[0])
        afresh = isinstance(steps[0], (Box, Paint))
        chain = steps if afresh else (*self.prompts.get(place, ()), *steps)
        if len(chain) > MAX_STEPS:
            raise ValueError(f"object {place[0]}, frame {place[1]}: at most {MAX_STEPS} prompts fit on one frame")
        return replace(self, prompts={**self.prompts, place: chain})

    def cleared(self, place: Place) -> Document:
        """Remove the prompts on an object and frame.

        Raises:
            ValueError: If there are none.
        """
        self.check(place[0])
        if place not in self.prompts:
            raise ValueError(f"object {place[0]} has no prompt on frame {place[1]}")
        return replace(self, prompts={where: steps for where, steps in self.prompts.items() if where != place})

    def with_objects(self, numbers: Iterable[int]) -> Document:
        """Add the objects of these numbers that do not exist yet."""
        document = self
        for number in sorted(set(numbers) - set(self.numbers)):
            document = document.with_object(number=number)
        return document


def _listed(numbers: tuple[int, ...]) -> str:
    return f"there are {', '.join(map(str, numbers))}" if numbers else "there are none yet"
