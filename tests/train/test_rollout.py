"""A clip is rolled out as the published training does it, around the model that inference uses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support import TINY, randomize
from torch import Tensor
from train_support import make_clip

from i2v.build_i2v import build_i2v
from i2v.inference.frame_segmenter import FrameSegmenter
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.memory_bank import MemoryBank
from i2v.modeling.memory.readout import Selection
from i2v.modeling.memory.selectors import RecentSelector, Selector, SimilaritySelector
from i2v.modeling.structures import FramePrediction, MaskSettings, TrackingStep
from train.dataset.structures import BatchedClip
from train.loss_fns import ClipLoss
from train.model.clip_rollout import ClipRollout, last_masks
from train.model.prompt_simulator import PromptPlan, SimulatedUser

LOSS = ClipLoss({"loss_mask": 20, "loss_iou": 1, "loss_class": 1}, True, True, True)


class SpyingSelector(RecentSelector):
    """Notes what is selected on each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, Selection] = {}

    def select(self, step: TrackingStep, banks: Sequence[MemoryBank], *args: object) -> list[Selection]:  # type: ignore[override]
        selections = super().select(step, banks)
        self.seen[step.frame] = selections[0]
        return selections


@pytest.fixture
def model() -> I2VModel:
    built = build_i2v(TINY, device="cpu", mode="train")
    randomize(built)
    return built


def user(count: int, first: int = 0) -> SimulatedUser:
    return SimulatedUser([torch.Generator().manual_seed(first + i) for i in range(count)])


def segmenter_of(model: I2VModel, selector: Selector | None = None) -> FrameSegmenter:
    masks = MaskSettings(dynamic_multimask_via_stability=False, binarize_mask_from_pts_for_mem_enc=False)
    return FrameSegmenter(model, selector or RecentSelector(), masks)


def roll(
    model: I2VModel, clip: BatchedClip, plan: PromptPlan, selector: Selector | None = None, **settings: bool
) -> list[tuple[FramePrediction, ...]]:
    return ClipRollout(segmenter_of(model, selector), **settings)(clip, plan, user(clip.masks.shape[1]))


def test_memories_and_pointers_are_those_of_the_published_examples(model: I2VModel) -> None:
    spy = SpyingSelector()
    roll(model, make_clip(8), PromptPlan({0: "mask"}, {}), selector=spy)
    assert [(m.frame, slot) for m, slot in spy.seen[3].memories] == [(0, 0), (1, 5), (2, 6)]
    assert [round(7 * d) for _, d in spy.seen[3].pointers] == [3, 1, 2]

    spy = SpyingSelector()
    roll(model, make_clip(8), PromptPlan({0: "mask", 5: "mask"}, {}), selector=spy)
    assert {m.frame: slot for m, slot in spy.seen[3].memories} == {0: 0, 5: 0, 1: 5, 2: 6}
    assert [round(7 * d) for _, d in spy.seen[3].pointers] == [3, -2, 1, 2]
    assert {m.frame: slot for m, slot in spy.seen[7].memories} == {0: 0, 5: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: 6}
    assert [round(7 * d) for _, d in spy.seen[7].pointers] == [7, 2, 1, 3, 4, 5, 6]
    assert set(spy.seen) == {1, 2, 3, 4, 6, 7}  # initial frames read nothing


def test_corrected_frames_guide_later_ones_if_wanted(model: I2VModel) -> None:
    plan = PromptPlan({0: "click"}, {0: (False,), 1: (False,)})
    for guide, slot in ((True, 0), (False, 6)):
        spy = SpyingSelector()
        roll(model, make_clip(3), plan, add_all_frames_to_correct_as_cond=guide, selector=spy)
        assert {m.frame: s for m, s in spy.seen[2].memories} == {0: 0, 1: slot}


def test_every_correction_is_a_decoding_step_with_its_number_of_candidates(model: I2VModel) -> None:
    plan = PromptPlan({0: "click", 2: "box"}, {0: (False,) * 3, 2: (False,), 1: (True, False)})
    steps = roll(model, make_clip(4), plan)
    assert [[p.candidates.shape[1] for p in frame] for frame in steps] == [[3, 1, 1, 1], [3, 3, 1], [1, 1], [3]]


def test_the_best_predicted_candidate_goes_on(model: I2VModel) -> None:
    first = roll(model, make_clip(1), PromptPlan({0: "click"}, {0: ()}))[0][0]
    assert torch.equal(first.low_res[0, 0], first.candidates[0, first.ious[0].argmax()])


def test_a_mask_prompt_is_the_answer_and_costs_a_constant(model: I2VModel) -> None:
    clip = make_clip(2)
    steps = roll(model, clip, PromptPlan({0: "mask"}, {}))
    assert torch.equal(steps[0][0].high_res, 20 * clip.masks[0][:, None].float() - 10)
    assert not LOSS(steps[:1], clip.masks[:1], 1).core.requires_grad
    assert torch.equal(last_masks(steps)[0], clip.masks[0])


def test_gradients_flow_through_memories_and_pointers_to_the_prompted_frame(model: I2VModel) -> None:
    clip = make_clip(3)
    clip.frames.requires_grad_()
    steps = roll(model, clip, PromptPlan({0: "mask"}, {}))
    # The last frame's window of frames is all that the first one could reach it by, but for memory.
    model.image_encoder.trunk_video.requires_grad_(False)
    LOSS(steps[2:], clip.masks[2:], 1).core.backward()
    for part in (model.memory_encoder, model.obj_ptr_proj, model.mask_downsample, model.memory_attention):
        assert sum(p.grad.abs().sum().item() for p in part.parameters() if p.grad is not None) > 0
    assert clip.frames.grad is not None and clip.frames.grad[0].abs().sum() > 0


def test_all_parameters_learn_but_those_that_nothing_uses(model: I2VModel) -> None:
    clip = make_clip(3)
    for plan in (PromptPlan({0: "mask"}, {}), PromptPlan({0: "box", 1: "click"}, {0: (False,), 1: (True,)})):
        LOSS(roll(model, clip, plan), clip.masks, 1).core.backward()
    idle = {name.rpartition(".")[0] or name for name, p in model.named_parameters() if p.grad is None}
    expected = {"no_mem_pos_enc", "image_encoder.trunk_image.norm_head", "image_encoder.trunk_image.head"}
    unused = "image_encoder.trunk_video.integration2temporal_nets.2"
    assert expected <= idle
    assert {name for name in idle - expected if not name.startswith(unused)} <= {
        "no_obj_ptr",  # only where an object is absent
        "no_obj_embed_spatial",
        "sam_prompt_encoder.point_embeddings.0",
    }


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_checkpointing_changes_memory_not_numbers(model: I2VModel, dropout: float) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    clip, plan = make_clip(3), PromptPlan({0: "click"}, {0: (False, True), 1: (False,)})

    def gradients(checkpointing: bool) -> tuple[float, list[Tensor]]:
        model.zero_grad()
        model.memory_attention.use_checkpoint = checkpointing
        for stage in model.image_encoder.trunk_image.layers:
            stage.use_checkpoint = checkpointing
        torch.manual_seed(3)
        steps = roll(model, clip, plan, use_act_ckpt_iterative_pt_sampling=checkpointing)
        loss = LOSS(steps, clip.masks, 1).core
        loss.backward()
        return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    (loss, plain), (same_loss, checkpointed) = gradients(False), gradients(True)
    assert loss == same_loss
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(plain, checkpointed, strict=True))


def test_clips_of_a_batch_do_not_touch_each_other(model: I2VModel) -> None:
    model.eval()  # batch norms and dropout aside, which look at the whole batch by design
    clip = make_clip(3, num_clips=2)
    plan = PromptPlan({0: "click"}, {0: (False,)})
    together = ClipRollout(segmenter_of(model))(clip, plan, user(2))
    second = BatchedClip(clip.frames[:, 1:], clip.masks[:, 1:], torch.zeros(1, dtype=torch.long), ("clip1",))
    alone = ClipRollout(segmenter_of(model))(second, plan, user(1, first=1))
    for both, one in zip(together, alone, strict=True):
        assert torch.allclose(both[-1].low_res[1:], one[-1].low_res, atol=2e-3)


def test_training_and_inference_agree_on_a_prompted_and_a_tracked_frame(model: I2VModel) -> None:
    model.eval()
    clip = make_clip(2)
    steps = roll(model, clip, PromptPlan({0: "mask"}, {}))
    windows = [torch.stack([clip.frames[i, 0] for i in w], dim=1)[None] for w in ([0] * 5, [0, 1, 1, 1, 1])]
    first, second = (model.encode(window) for window in windows)
    prompt = steps[0][0]
    segmenter = segmenter_of(model)
    bank = MemoryBank().add_conditioning(segmenter.memorize(0, first, prompt))
    tracked = segmenter.segment(segmenter.condition_on_memory(TrackingStep(1, num_frames=2), second, bank))
    assert torch.allclose(tracked.low_res, steps[1][0].low_res, atol=2e-3)


def test_similarity_needs_one_clip(model: I2VModel) -> None:
    with pytest.raises(ValueError, match="expected 1 clip in a batch, got 2"):
        roll(model, make_clip(2, num_clips=2), PromptPlan({0: "mask"}, {}), SimilaritySelector())
    assert len(roll(model, make_clip(3), PromptPlan({0: "mask"}, {}), SimilaritySelector())) == 3
