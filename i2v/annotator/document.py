"""A user's annotation of a video, objects and prompts, as immutable values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from i2v.errors import brief
from i2v.prompts.frame_bounds import check_points, clip_box
from i2v.results.export import MAX_OBJECTS
from i2v.results.rle import Mask
from i2v.utils.output_folder import is_showable

MAX_STEPS = 200  # on one frame of one object
MAX_NEW = MAX_OBJECTS - 1
"""Highest number of objects that are added here: 255 is the void label of other tools and datasets."""


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


@dataclass(frozen=True)
class Stroke:
    """A stroke of the brush, which changes the mask that is shown when its turn comes.

    Attributes:
        mask: Its pixels, ``(H, W)`` bool.
        erases: Whether it takes them from the mask instead of adding them.
    """

    mask: Mask
    erases: bool


Step: TypeAlias = Click | Box | Paint
Place: TypeAlias = tuple[int, int]  # object, frame


def step_as_json(step: Step) -> dict[str, Any]:
    """Convert a step to JSON as in the session file: a click, a box, or the run lengths of a mask."""
    if isinstance(step, Click):
        return {"click": [step.x, step.y, int(step.positive)]}
    if isinstance(step, Box):
        return {"box": [step.x0, step.y0, step.x1, step.y1]}
    return {"mask": step.counts.decode("ascii")}


def checked_step(step: Step, size: tuple[int, int]) -> Step:
    """Return a step with boxes clipped to the frame.

    Args:
        step: The step.
        size: (height, width) of the video.

    Raises:
        ValueError: If it is off the frame, or a box without width or height.
    """
    if isinstance(step, Click):
        check_points(np.array([[step.x, step.y]]), size[::-1], "a click")
    elif isinstance(step, Box):
        if not (step.x0 < step.x1 and step.y0 < step.y1):
            raise ValueError("a box: expected its upper left corner first, and some width and height")
        corners = np.array([[step.x0, step.y0], [step.x1, step.y1]], dtype=np.float64)
        return Box(*clip_box(corners, size[::-1], "a box").flatten().tolist())
    return step


@dataclass(frozen=True)
class ObjectInfo:
    """An object.

    Attributes:
        number: Its number in 1..255, which is also its label and colour.
        name: Its name for the user, of characters that can be shown.
        visible: Whether its masks are drawn.
        category: Name of its class, shared with other objects; empty if it has none.
        locked: Whether prompts, tracking and deletion leave it alone.
    """

    number: int
    name: str
    visible: bool = True
    category: str = ""
    locked: bool = False

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ValueError: If they have control characters, or ones that turn the direction of the text.
        """
        for what, name in (("name", self.name), ("class", self.category)):
            if not is_showable(name):
                raise ValueError(f"the {what} of an object: expected characters that can be shown, got {brief(name)}")

    @property
    def exported_category(self) -> str:
        """What formats with categories call it: its class, or its name without one."""
        return self.category or self.name


@dataclass(frozen=True)
class Document:
    """Objects and prompts. Methods return a changed copy, and raise ValueError if the change is not possible.

    Attributes:
        objects: The objects in order.
        prompts: The steps on each (object, frame), in the order in which they were made.
        next_number: Number of the next object, if it is free and at most ``MAX_NEW``.
        reviewed: Frames that the user has accepted: tracking does not change their masks.
    """

    objects: tuple[ObjectInfo, ...] = ()
    prompts: Mapping[Place, tuple[Step, ...]] = field(default_factory=dict)
    next_number: int = 1
    reviewed: frozenset[int] = frozenset()

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(info.number for info in self.objects)

    @property
    def free_number(self) -> int:
        """Number of the next object: after the latest one, or the lowest free one where the numbers are used up.

        Raises:
            ValueError: If all numbers are taken.
        """
        if self.next_number <= MAX_NEW:
            return self.next_number
        taken = set(self.numbers)
        found = next((number for number in range(1, MAX_NEW + 1) if number not in taken), None)
        if found is None:
            raise ValueError(f"no more objects: their numbers go from 1 to {MAX_NEW}")
        return found

    @property
    def hidden(self) -> frozenset[int]:
        """Numbers of the objects whose masks are not drawn."""
        return frozenset(info.number for info in self.objects if not info.visible)

    @property
    def locked(self) -> frozenset[int]:
        """Numbers of the objects that nothing changes."""
        return frozenset(info.number for info in self.objects if info.locked)

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
        new = self.free_number if number is None else number
        if not 1 <= new <= MAX_OBJECTS:
            raise ValueError(f"object {new}: expected a number from 1 to {MAX_OBJECTS}")
        if new in self.numbers:
            raise ValueError(f"there is an object {new} already")
        info = ObjectInfo(new, name or f"object {new}")
        return replace(self, objects=(*self.objects, info), next_number=max(self.next_number, new + 1))

    def renamed(self, number: int, name: str) -> Document:
        """Rename an object."""
        return self._with_info(number, name=name)

    def shown(self, number: int, visible: bool) -> Document:
        """Show or hide an object's masks."""
        return self._with_info(number, visible=visible)

    def classified(self, number: int, category: str) -> Document:
        """Set an object's class, empty for none."""
        return self._with_info(number, category=category)

    def with_lock(self, number: int, locked: bool) -> Document:
        """Lock an object, or unlock it."""
        return self._with_info(number, locked=locked)

    def check_unlocked(self, number: int) -> None:
        """Check that an object exists and may change.

        Raises:
            ValueError: If there is no object with this number, or it is locked.
        """
        self.check(number)
        info = next(info for info in self.objects if info.number == number)
        if info.locked:
            raise ValueError(f"{info.name} is locked: unlock it first")

    def check_unreviewed(self, frames: Collection[int]) -> None:
        """Check that masks on frames may change.

        Raises:
            ValueError: If one of them was accepted.
        """
        accepted = sorted(self.reviewed & set(frames))
        if accepted:
            raise ValueError(f"frame {accepted[0]} was accepted as reviewed: take that back first")

    def without_object(self, number: int) -> Document:
        """Remove an object and its prompts."""
        self.check_unlocked(number)
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
            ValueError: If there is no such object, it is locked, or there are too many steps.
        """
        self.check_unlocked(place[0])
        afresh = isinstance(steps[0], (Box, Paint))
        chain = steps if afresh else (*self.prompts.get(place, ()), *steps)
        if len(chain) > MAX_STEPS:
            raise ValueError(f"object {place[0]}, frame {place[1]}: at most {MAX_STEPS} prompts fit on one frame")
        # What changes on a frame that was accepted has to be looked at again.
        return replace(self, prompts={**self.prompts, place: chain}, reviewed=self.reviewed - {place[1]})

    def cleared(self, place: Place) -> Document:
        """Remove the prompts on an object and frame.

        Raises:
            ValueError: If there are none, or the object is locked.
        """
        self.check_unlocked(place[0])
        if place not in self.prompts:
            raise ValueError(f"object {place[0]} has no prompt on frame {place[1]}")
        kept = {where: steps for where, steps in self.prompts.items() if where != place}
        return replace(self, prompts=kept, reviewed=self.reviewed - {place[1]})

    def with_reviewed(self, frames: Iterable[int], accepted: bool) -> Document:
        """Accept frames, or take that back."""
        return replace(self, reviewed=self.reviewed | set(frames) if accepted else self.reviewed - set(frames))

    def cleared_in(self, number: int, frames: Collection[int]) -> Document:
        """Remove an object's prompts on frames, where it has any.

        Raises:
            ValueError: If there is no such object, it is locked, or one of the frames was accepted.
        """
        self.check_unlocked(number)
        self.check_unreviewed(frames)
        kept = {place: steps for place, steps in self.prompts.items() if place[0] != number or place[1] not in frames}
        return replace(self, prompts=kept)

    def _with_info(self, number: int, **changes: Any) -> Document:
        self.check(number)
        objects = tuple(replace(info, **changes) if info.number == number else info for info in self.objects)
        return replace(self, objects=objects)

    def with_objects(self, numbers: Iterable[int], names: Mapping[int, str] | None = None) -> Document:
        """Add the objects of these numbers that do not exist yet, with their names where they have any."""
        document = self
        for number in sorted(set(numbers) - set(self.numbers)):
            document = document.with_object((names or {}).get(number), number)
        return document


def _listed(numbers: tuple[int, ...]) -> str:
    return f"there are {', '.join(map(str, numbers))}" if numbers else "there are none yet"
