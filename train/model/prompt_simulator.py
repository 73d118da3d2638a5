"""The simulated user: which frames of a clip are prompted, with what, and where predictions are corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.structures import Prompt
from i2v.prompts.sampling import box_points, random_points_from_errors
from train.seeding import generator_for

PromptKind = Literal["mask", "click", "box"]

BOX_NOISE, BOX_NOISE_BOUND = 0.1, 20.0  # of the box's extent, and in pixels


@dataclass(frozen=True)
class PromptSettings:
    """How prompts are sampled; names and defaults are those of the published training config.

    Attributes:
        prob_to_use_pt_input_for_train: Probability (0..1) of clicks or boxes on a clip instead of masks.
        prob_to_use_box_input_for_train: Probability (0..1) of a box instead of a click.
        prob_to_sample_from_gt_for_train: Probability (0..1) that a correction click is drawn from the object instead of
            from the error region.
        num_init_cond_frames_for_train: Number of initial conditioning frames.
        rand_init_cond_frames_for_train: Whether to draw it uniformly from 1 up to the number given.
        num_frames_to_correct_for_train: Number of corrected frames, initial ones included.
        rand_frames_to_correct_for_train: Whether to draw it uniformly from the number of initial frames up to the
            number given.
        num_correction_pt_per_frame: Correction clicks per corrected frame.
        seed: Seed of these decisions, the same on all ranks.
    """

    prob_to_use_pt_input_for_train: float = 0.5
    prob_to_use_box_input_for_train: float = 0.5
    prob_to_sample_from_gt_for_train: float = 0.1
    num_init_cond_frames_for_train: int = 2
    rand_init_cond_frames_for_train: bool = True
    num_frames_to_correct_for_train: int = 2
    rand_frames_to_correct_for_train: bool = True
    num_correction_pt_per_frame: int = 7
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("pt_input", "box_input"):
            _check_probability(f"prob_to_use_{name}_for_train", getattr(self, f"prob_to_use_{name}_for_train"))
        _check_probability("prob_to_sample_from_gt_for_train", self.prob_to_sample_from_gt_for_train)
        if self.num_init_cond_frames_for_train < 1:
            raise ValueError(
                f"num_init_cond_frames_for_train: expected at least 1, got {self.num_init_cond_frames_for_train}"
            )
        if self.num_correction_pt_per_frame < 0:
            raise ValueError(f"num_correction_pt_per_frame: expected 0 or more, got {self.num_correction_pt_per_frame}")
        if self.num_frames_to_correct_for_train < self.num_init_cond_frames_for_train:
            raise ValueError(
                "num_frames_to_correct_for_train: expected at least the number of initial frames, "
                f"{self.num_init_cond_frames_for_train}, got {self.num_frames_to_correct_for_train}"
            )


@dataclass(frozen=True)
class PromptPlan:
    """What the user does on a clip, the same for all objects of a batch.

    Attributes:
        initial: Prompt kind by initial frame, in the order in which they are prompted.
        corrections: By corrected frame, one entry per click: whether it is drawn from the object instead of from the
            error region.
    """

    initial: Mapping[int, PromptKind]
    corrections: Mapping[int, tuple[bool, ...]]

    def order(self, num_frames: int) -> list[int]:
        """All frames of the clip in processing order: initial ones first, the rest ascending."""
        return processing_order(self.initial, num_frames)


def draw_plan(settings: PromptSettings, num_frames: int, rng: np.random.Generator) -> PromptPlan:
    """Draw which frames of a clip are prompted and corrected.

    A single image gets a click or a box, and is corrected. In a longer clip at least one frame is left to be tracked.

    Args:
        settings: Probabilities and counts.
        num_frames: Frames of the clip.
        rng: Source of randomness, in the same state on all ranks.
    """
    if num_frames == 1:
        use_points, num_initial, num_corrected = rng.random() < 1, 1, 1
    else:
        use_points = rng.random() < settings.prob_to_use_pt_input_for_train
        num_initial = min(_draw_num_initial(settings, rng), num_frames - 1)
        num_corrected = _draw_num_corrected(settings, num_initial, use_points, rng)
        num_corrected = max(min(num_corrected, num_frames), num_initial)
    frames = [0]
    if num_initial > 1:
        frames += rng.choice(np.arange(1, num_frames), num_initial - 1, replace=False).tolist()
    initial = {frame: _draw_kind(settings, use_points, rng) for frame in frames}
    corrected: list[int] = []
    if use_points:
        rest = [frame for frame in range(num_frames) if frame not in initial]
        more = num_corrected - num_initial
        corrected = frames + (rng.choice(rest, more, replace=False).tolist() if more else [])
    corrections = {
        frame: tuple(
            bool(rng.random() < settings.prob_to_sample_from_gt_for_train)
            for _ in range(settings.num_correction_pt_per_frame)
        )
        for frame in processing_order(initial, num_frames)
        if frame in corrected
    }
    return PromptPlan(initial, corrections)


def processing_order(initial: Mapping[int, PromptKind], num_frames: int) -> list[int]:
    """Initial frames in the order in which they were drawn, then all others ascending."""
    return [*initial, *(frame for frame in range(num_frames) if frame not in initial)]


class SimulatedUser:
    """Gives prompts and corrections for N objects, each with a generator of its own.

    An object's clicks therefore depend neither on other objects nor on how objects are spread over batches and ranks.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        """Keep the generators.

        Args:
            generators: One per object, on the device of the masks.
        """
        self.generators = generators

    def prompt(self, kind: PromptKind, masks: Tensor) -> Prompt:
        """Draw the first prompt on a frame.

        Args:
            kind: Kind of prompt.
            masks: Ground-truth masks ``(N, 1, S, S)`` bool.
        """
        if kind == "mask":
            return Prompt.from_mask(masks.float())
        if kind == "box":
            drawn = [box_points(mask, BOX_NOISE, BOX_NOISE_BOUND, g) for mask, g in self._rows(masks)]
            return Prompt.click(*_stack(drawn))
        return Prompt.click(*self._click(masks, torch.zeros_like(masks)))

    def correct(self, prompt: Prompt | None, masks: Tensor, logits: Tensor, from_object: bool) -> Prompt:
        """Add one correction click per object to a prompt.

        Args:
            prompt: The prompt so far, or ``None``.
            masks: Ground-truth masks ``(N, 1, S, S)`` bool.
            logits: Predicted masks ``(N, 1, S, S)``.
            from_object: Whether to click anywhere on the object instead of on the error region.
        """
        predicted = torch.zeros_like(masks) if from_object else logits.detach() > 0
        points, labels = self._click(masks, predicted)
        return Prompt.click(points, labels) if prompt is None else prompt.add(points, labels)

    def _click(self, masks: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(self._rows(masks), predicted.split(1), strict=True)
        return _stack([random_points_from_errors(mask, row, 1, g) for (mask, g), row in pairs])

    def _rows(self, masks: Tensor) -> list[tuple[Tensor, torch.Generator]]:
        return list(zip(masks.split(1), self.generators, strict=True))


class BatchedUser(SimulatedUser):
    """Prompts all N objects at once from one generator, so that many objects take no longer than one."""

    def __init__(self, generator: torch.Generator, center_click_prob: float = 0.5) -> None:
        """Keep the generator.

        Args:
            generator: On the device of the masks.
            center_click_prob: Probability (0..1) that a first click is in the middle of the object, not anywhere on it.
        """
        super().__init__([generator])
        self.center_click_prob = center_click_prob

    def prompt(self, kind: PromptKind, masks: Tensor) -> Prompt:
        """Draw the first prompt for masks, see :meth:`SimulatedUser.prompt`."""
        if kind == "box":
            return Prompt.click(*box_points(masks, BOX_NOISE, BOX_NOISE_BOUND, self._generator))
        if kind == "mask":
            return Prompt.from_mask(masks.float())
        points, labels = self._click(masks, torch.zeros_like(masks))
        shape = (len(masks), 1)
        central = torch.rand(shape, generator=self._generator, device=masks.device) < self.center_click_prob
        central &= masks.flatten(2).any(dim=2)
        return Prompt.click(torch.where(central[..., None], middle_points(masks), points), labels)

    def _click(self, masks: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        return random_points_from_errors(masks, predicted, 1, self._generator)

    @property
    def _generator(self) -> torch.Generator:
        return self.generators[0]


class PerObjectUsers:
    """Creates users with one generator per object."""

    def __call__(self, device: torch.device, key: Sequence[int], rows: Sequence[int]) -> SimulatedUser:
        """Create a user.

        Args:
            device: Device of the masks.
            key: Seed of everything that the user draws.
            rows: Numbers of the objects, counted over the batches of all processes.
        """
        return SimulatedUser([generator_for(device, *key, row) for row in rows])


@dataclass(frozen=True)
class BatchedUsers:
    """Creates users that prompt all objects at once.

    Attributes:
        center_click_prob: Probability (0..1) that a first click is in the middle of the object, not anywhere on it.
    """

    center_click_prob: float = 0.5

    def __call__(self, device: torch.device, key: Sequence[int], rows: Sequence[int]) -> SimulatedUser:
        """Create a user; the arguments are those of :class:`PerObjectUsers`."""
        return BatchedUser(generator_for(device, *key, min(rows)), self.center_click_prob)


def middle_points(masks: Tensor) -> Tensor:
    """Find the pixel of each mask with the most mask around it.

    Args:
        masks: ``(N, 1, S, S)`` bool.

    Returns:
        x and y ``(N, 1, 2)`` in pixels; (0, 0) for an empty mask.
    """
    side = masks.shape[-1]
    around = masks.float()
    for window in (side // 4 | 1, side // 8 | 1, side // 16 | 1):
        # Rows and then columns: a window of w x w pixels at once takes w / 2 times as long.
        rows = F.avg_pool2d(around, (1, window), 1, (0, window // 2))
        around = around + 4 * F.avg_pool2d(rows, (window, 1), 1, (window // 2, 0))
    index = (around * masks).flatten(1).argmax(dim=1, keepdim=True)
    return torch.stack((index % side, index // side), dim=-1).float()


def _draw_num_initial(settings: PromptSettings, rng: np.random.Generator) -> int:
    most = settings.num_init_cond_frames_for_train
    if settings.rand_init_cond_frames_for_train and most > 1:
        return int(rng.integers(1, most, endpoint=True))
    return most


def _draw_num_corrected(settings: PromptSettings, num_initial: int, use_points: bool, rng: np.random.Generator) -> int:
    most = settings.num_frames_to_correct_for_train
    if settings.rand_frames_to_correct_for_train and use_points and most > num_initial:
        return int(rng.integers(num_initial, most, endpoint=True))
    return most


def _draw_kind(settings: PromptSettings, use_points: bool, rng: np.random.Generator) -> PromptKind:
    if not use_points:
        return "mask"
    return "box" if rng.random() < settings.prob_to_use_box_input_for_train else "click"


def _stack(drawn: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    points, labels = zip(*drawn, strict=True)
    return torch.cat(points), torch.cat(labels)


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability between 0 and 1, got {value}")
