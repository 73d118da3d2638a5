"""The simulated user makes the published mix of prompts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from train.model.prompt_simulator import PromptPlan, PromptSettings, SimulatedUser, draw_plan


def plans(settings: PromptSettings, num_frames: int, count: int) -> list[PromptPlan]:
    rng = np.random.default_rng(0)
    return [draw_plan(settings, num_frames, rng) for _ in range(count)]


def kind_of(plan: PromptPlan) -> tuple[str, int, int]:
    prompts = "mask" if "mask" in plan.initial.values() else "points"
    return prompts, len(plan.initial), len(plan.corrections)


def test_the_mix_for_a_clip() -> None:
    drawn = plans(PromptSettings(), 8, 4000)
    shares = {kind: count / 4000 for kind, count in Counter(map(kind_of, drawn)).items()}
    assert shares == pytest.approx(
        {
            ("mask", 1, 0): 0.25,
            ("mask", 2, 0): 0.25,
            ("points", 1, 1): 0.125,
            ("points", 1, 2): 0.125,
            ("points", 2, 2): 0.25,
        },
        abs=0.025,
    )
    prompted = [kind for plan in drawn for kind in plan.initial.values() if kind != "mask"]
    assert prompted.count("box") / len(prompted) == pytest.approx(0.5, abs=0.03)
    clicks = [from_object for plan in drawn for frame in plan.corrections.values() for from_object in frame]
    assert sum(clicks) / len(clicks) == pytest.approx(0.1, abs=0.01)


def test_what_every_plan_keeps_to() -> None:
    for plan in plans(PromptSettings(), 8, 300):
        assert next(iter(plan.initial)) == 0
        assert len(set(plan.initial.values()) & {"mask"}) in (0, len(set(plan.initial.values())))
        if plan.corrections:
            assert set(plan.initial) <= set(plan.corrections)
        assert all(len(clicks) == 7 for clicks in plan.corrections.values())
        order = plan.order(8)
        assert order[: len(plan.initial)] == list(plan.initial)
        assert order[len(plan.initial) :] == sorted(set(range(8)) - set(plan.initial))


def test_all_frames_are_prompted_and_corrected_alike() -> None:
    drawn = plans(PromptSettings(), 8, 4000)
    second = Counter(list(plan.initial)[1] for plan in drawn if len(plan.initial) == 2)
    later = Counter(f for p in drawn if len(p.initial) == 1 for f in p.corrections if f != 0)
    for counts in (second, later):
        assert set(counts) == set(range(1, 8))
        assert max(counts.values()) < 1.5 * min(counts.values())


def test_an_image_gets_points_and_is_corrected() -> None:
    never = PromptSettings(prob_to_use_pt_input_for_train=0)
    for plan in plans(never, 1, 50):
        assert list(plan.initial) == [0] and plan.initial[0] in ("click", "box")
        assert list(plan.corrections) == [0]


def test_a_short_clip_keeps_a_frame_to_track() -> None:
    settings = PromptSettings(rand_init_cond_frames_for_train=False, num_init_cond_frames_for_train=2)
    assert all(list(plan.initial) == [0] for plan in plans(settings, 2, 50))


def test_fixed_counts() -> None:
    settings = PromptSettings(
        prob_to_use_pt_input_for_train=1,
        prob_to_use_box_input_for_train=1,
        num_init_cond_frames_for_train=2,
        rand_init_cond_frames_for_train=False,
        num_frames_to_correct_for_train=3,
        rand_frames_to_correct_for_train=False,
        num_correction_pt_per_frame=2,
    )
    for plan in plans(settings, 8, 50):
        assert kind_of(plan) == ("points", 2, 3)
        assert set(plan.initial.values()) == {"box"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prob_to_use_pt_input_for_train": 1.5}, "between 0 and 1, got 1.5"),
        ({"num_init_cond_frames_for_train": 0}, "at least 1"),
        ({"num_frames_to_correct_for_train": 1}, "at least the number of initial frames, 2, got 1"),
        ({"num_correction_pt_per_frame": -1}, "0 or more"),
    ],
)
def test_settings_are_checked(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptSettings(**values)  # type: ignore[arg-type]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def two_masks() -> torch.Tensor:
    masks = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    masks[0, :, 2:6, 2:6] = True
    masks[1, :, 9:14, 1:15] = True
    return masks


@pytest.mark.parametrize("kind", ["click", "box"])
def test_an_object_is_prompted_alike_in_any_company(kind: str) -> None:
    masks = two_masks()
    together = SimulatedUser(generators(5, 6)).prompt(kind, masks)  # type: ignore[arg-type]
    alone = SimulatedUser(generators(6)).prompt(kind, masks[1:])  # type: ignore[arg-type]
    assert together.points is not None and alone.points is not None
    assert torch.equal(together.points[1:], alone.points)


def test_first_prompts() -> None:
    masks = two_masks()
    user = SimulatedUser(generators(0, 1))
    mask = user.prompt("mask", masks).mask
    assert mask is not None and torch.equal(mask, masks.float())
    click = user.prompt("click", masks)
    assert click.points is not None and click.labels is not None
    for row, (x, y) in enumerate(click.points[:, 0].long().tolist()):
        assert masks[row, 0, y, x]
    assert click.labels.tolist() == [[1], [1]]
    box = user.prompt("box", masks)
    assert box.labels is not None and box.labels.tolist() == [[2, 3], [2, 3]]


def test_corrections_fall_into_the_error_or_onto_the_object() -> None:
    masks = two_masks()
    logits = torch.where(masks, 5.0, -5.0)
    logits[0, :, 0, 0] = 5.0  # the only mistake on the first object; none on the second
    user = SimulatedUser(generators(0, 1))
    prompt = user.correct(None, masks, logits, from_object=False)
    assert prompt.points is not None and prompt.labels is not None
    assert prompt.points[0].tolist() == [[0.0, 0.0]] and prompt.labels[:, 0].tolist() == [0, 0]
    more = user.correct(prompt, masks, logits, from_object=True)
    assert more.points is not None and more.labels is not None
    assert torch.equal(more.points[:, :1], prompt.points) and more.labels[:, 1].tolist() == [1, 1]
    for row, (x, y) in enumerate(more.points[:, 1].long().tolist()):
        assert masks[row, 0, y, x]
