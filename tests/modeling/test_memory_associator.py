"""Which memories are read on a frame, and how. The tables are those of the published model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.memory.readout import Selection, read_memories
from i2v.modeling.memory.selectors import RecentSelector, SimilaritySelector, nearest_conditioning
from i2v.modeling.structures import TrackingStep


def memory(frame: int, alike: float = 1.0) -> FrameMemory:
    """A memory whose numbers tell its frame, and whose appearance has a given cosine to (1, 0)."""
    return FrameMemory(
        frame=frame,
        features=torch.full((1, 4, 2, 2), float(frame)),
        foreground=torch.ones(1, 1, 2, 2, dtype=torch.bool),
        pointer=torch.full((1, 8), float(frame)),
        frame_embedding=torch.tensor([alike, (1 - alike**2) ** 0.5]),
    )


def bank(prompted: list[int], tracked: range | list[int]) -> MemoryBank:
    return MemoryBank(tuple(memory(f) for f in prompted), tuple(memory(f) for f in tracked), span=20)


def select(selector, frame: int, bank: MemoryBank, reverse: bool = False, seed: int = 0) -> Selection:
    generator = torch.Generator().manual_seed(seed)
    return selector.select(TrackingStep(frame, reverse), [bank], torch.tensor([1.0, 0.0]), [generator])[0]


def written_out(selection):
    """Memories and pointers with the first of each as often as it counts."""
    memories = [selection.memories[0]] * selection.repeats + list(selection.memories)
    return memories, [selection.pointers[0]] * selection.pointer_repeats + list(selection.pointers)


def frames_and_slots(selection: Selection) -> list[tuple[int, int]]:
    return [(m.frame, slot) for m, slot in written_out(selection)[0]]


def distances(selection: Selection) -> list[float]:
    return [distance for _, distance in selection.pointers]


# Frame -> number of memories in all, and pointer distances times (L + 1), for a prompt on frame 0.
PUBLISHED = {
    1: (1, [1], 1),
    2: (2, [2, -3], 2),
    3: (3, [3, -2, -3], 3),
    4: (4, [4, 4, -1, -2], 4),
    5: (5, [5, 5, 5, 0, -1], 5),
    6: (6, [6, 6, 6, 5, 1, 0], 6),
    7: (7, [7, 7, 7, 6, 5, 2, 1], 7),
    8: (7, [7, 7, 6, 5, 4, 2, 1], 7),
    9: (7, [7, 6, 5, 4, 3, 2, 1], 7),
    40: (7, [7, 6, 5, 4, 3, 2, 1], 7),
}


@pytest.mark.parametrize("frame", PUBLISHED)
@pytest.mark.parametrize("mode", ["sample", "topk"])
def test_published_numbers_of_memories_and_pointer_distances(frame, mode):
    count, ranks, divisor = PUBLISHED[frame]
    selection = select(SimilaritySelector(mode=mode), frame, bank([0], range(max(1, frame - 20), frame)))
    memories, pointers = written_out(selection)
    assert len(memories) == len(pointers) == count
    assert [distance for _, distance in pointers] == pytest.approx([rank / divisor for rank in ranks])
    pointed = [int(pointer[0, 0]) for pointer, _ in pointers]
    assert pointed == [m.frame for m, _ in memories], "every memory has its pointer beside it here"


def test_windows_slots_and_order():
    selection = select(SimilaritySelector(), 30, bank([0], range(5, 30)))
    frames = frames_and_slots(selection)
    assert frames[0] == (0, 0)
    assert [slot for _, slot in frames[1:]] == [1, 2, 3, 4, 5, 6]
    old, recent = [f for f, _ in frames[1:5]], [f for f, _ in frames[5:]]
    assert old == sorted(old) and all(10 <= f <= 25 for f in old)
    assert recent == sorted(recent) and all(26 <= f <= 29 for f in recent)


def test_local_slots_do_not_move_up_when_global_ones_are_missing():
    assert [s for _, s in frames_and_slots(select(SimilaritySelector(), 4, bank([0], [1, 2, 3])))] == [0, 0, 5, 6]
    assert [s for _, s in frames_and_slots(select(SimilaritySelector(), 6, bank([0], [1, 2, 3, 4, 5])))] == [
        0,
        0,
        0,
        1,
        5,
        6,
    ]


def test_topk_takes_the_most_alike():
    tracked = tuple(memory(f, alike=0.9 if f in (12, 15, 27) else 0.1 + f / 1000) for f in range(10, 30))
    selection = select(SimilaritySelector(mode="topk"), 30, MemoryBank((memory(0),), tracked))
    assert [f for f, _ in frames_and_slots(selection)[1:]] == [12, 15, 24, 25, 27, 29]


def test_sampling_is_the_published_draw():
    tracked = tuple(memory(f, alike=0.3 + f / 100) for f in range(10, 30))
    selection = select(SimilaritySelector(), 30, MemoryBank((memory(0),), tracked), seed=5)
    generator = torch.Generator().manual_seed(5)
    old = torch.tensor([0.3 + f / 100 for f in range(10, 26)]).softmax(0)
    recent = torch.tensor([0.3 + f / 100 for f in range(26, 30)]).softmax(0)
    expected = sorted((10 + torch.multinomial(old, 4, generator=generator)).tolist())
    expected += sorted((26 + torch.multinomial(recent, 2, generator=generator)).tolist())
    assert [f for f, _ in frames_and_slots(selection)[1:]] == expected


def test_a_draw_without_choice_still_advances_the_generator():
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    SimilaritySelector().select(TrackingStep(2), [bank([0], [1])], torch.tensor([1.0, 0.0]), [generator])
    assert not torch.equal(before, generator.get_state())


def test_objects_draw_from_their_own_generators():
    selector, shared = SimilaritySelector(), bank([0], range(10, 30))
    appearance = torch.tensor([1.0, 0.0])

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(s) for s in (1, 2)]

    both = selector.select(TrackingStep(30), [shared, shared], appearance, generators())
    alone = selector.select(TrackingStep(30), [shared], appearance, generators()[1:])
    assert frames_and_slots(both[1]) == frames_and_slots(alone[0])


def test_late_prompts_are_repeated_as_published():
    assert frames_and_slots(select(SimilaritySelector(), 11, bank([10], []))) == [(10, 0)] * 7
    selection = select(SimilaritySelector(), 12, bank([10], [11]))
    assert frames_and_slots(selection) == [(10, 0)] * 6 + [(11, 5)]


def test_reverse_mirrors_forward():
    forward = select(SimilaritySelector(mode="topk"), 9, bank([0], range(1, 9)))
    backward = select(SimilaritySelector(mode="topk"), 11, bank([20], range(19, 11, -1)), reverse=True)
    assert [(20 - f, s) for f, s in frames_and_slots(backward)] == frames_and_slots(forward)
    assert distances(backward) == pytest.approx(distances(forward))


def test_frame_zero_and_frames_before_the_prompt_are_finite():
    at_zero = select(SimilaritySelector(), 0, bank([5], []), reverse=False)
    assert frames_and_slots(at_zero) == [(5, 0)] and distances(at_zero) == [1.0]
    backward = select(SimilaritySelector(), 0, bank([3], [2, 1]), reverse=True)
    assert [f for f, _ in frames_and_slots(backward)] == [3, 2, 1]
    before = select(SimilaritySelector(), 4, bank([10], []))
    assert frames_and_slots(before) == [(10, 0)] * 4 and len(written_out(before)[1]) == 4


def test_pointers_of_prompts_ahead_are_left_out():
    selection = select(SimilaritySelector(), 3, bank([0, 9], [1, 2]))
    assert [f for f, _ in frames_and_slots(selection)] == [0, 9, 1, 2]
    assert [int(p[0, 0]) for p, _ in written_out(selection)[1]] == [0, 0, 1, 2]
    with_future = select(SimilaritySelector(only_obj_ptrs_in_the_past_for_eval=False), 3, bank([0, 9], [1, 2]))
    assert [int(p[0, 0]) for p, _ in with_future.pointers] == [0, 9, 1, 2]


def test_limit_of_prompted_memories():
    prompted = [memory(f) for f in (0, 10, 20, 30, 40)]
    assert [m.frame for m in nearest_conditioning(TrackingStep(22), prompted, -1)] == [0, 10, 20, 30, 40]
    assert [m.frame for m in nearest_conditioning(TrackingStep(22), prompted, 2)] == [20, 30]
    assert [m.frame for m in nearest_conditioning(TrackingStep(22), prompted, 4)] == [20, 30, 10, 40]
    assert [m.frame for m in nearest_conditioning(TrackingStep(50), prompted, 2)] == [40, 30]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "best"}, 'expected "sample" or "topk", got \'best\''),
        ({"max_cond_frames_in_attn": 1}, "at least 2, got 1"),
        ({"num_maskmem_global": 0}, "num_maskmem_global: expected at least 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SimilaritySelector(**settings)


def test_recent_selector_is_sam2s_rule():
    selection = RecentSelector().select(TrackingStep(7, num_frames=8), [bank([0, 4], [1, 2, 3, 5, 6])])[0]
    assert frames_and_slots(selection) == [(0, 0), (4, 0), (1, 1), (2, 2), (3, 3), (5, 5), (6, 6)]
    assert distances(selection) == pytest.approx([7 / 7, 3 / 7, 1 / 7, 2 / 7, 4 / 7, 5 / 7, 6 / 7])
    ahead = RecentSelector().select(TrackingStep(2, num_frames=8), [bank([0, 4], [1])])[0]
    assert distances(ahead) == pytest.approx([2 / 7, -2 / 7, 1 / 7])


def test_readout_lays_tokens_out_as_published():
    slot_code = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 1, 1, 4)
    grid_code = torch.zeros(1, 4, 2, 2)
    project = nn.Linear(8, 4)
    selection = Selection(((memory(0), 0), (memory(7), 2)), ((memory(0).pointer, 1.0), (memory(7).pointer, 0.5)))
    readout = read_memories(selection, slot_code, grid_code, project)
    assert readout.tokens.shape == readout.position.shape == (1, 2 * 4 + 2 * 2, 4)
    assert readout.num_pointer_tokens == 4
    assert readout.tokens[0, :, 0].tolist() == [0] * 4 + [7] * 4 + [0] * 2 + [7] * 2
    assert readout.position[0, :8, 0].tolist() == [6] * 4 + [4] * 4, "slot s takes row num_slots - 1 - s"
    angles = 0.5 / 10000 ** (2 * (torch.arange(4) // 2) / 4)
    expected = project(torch.cat((angles.sin(), angles.cos())))
    assert torch.allclose(readout.position[0, 10], expected) and torch.allclose(readout.position[0, 11], expected)
    assert readout.foreground.all()


def test_bank_keeps_a_span_and_replaces_frames():
    kept = MemoryBank(span=3)
    for frame in range(5):
        kept = kept.add_tracked(memory(frame))
    assert [m.frame for m in kept.tracked] == [2, 3, 4]
    again = kept.add_tracked(memory(3))
    assert [m.frame for m in again.tracked] == [2, 4, 3] and [m.frame for m in kept.tracked] == [2, 3, 4]
    pinned = again.add_conditioning(memory(4)).add_conditioning(memory(9)).add_conditioning(memory(4))
    assert [m.frame for m in pinned.conditioning] == [4, 9] and [m.frame for m in pinned.tracked] == [2, 3]
    assert pinned.remove(4).conditioning[0].frame == 9
    assert [m.frame for m in pinned.keep_tracked({3}).tracked] == [3]
