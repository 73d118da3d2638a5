"""The whole model: its checkpoint entries, its steps, its gradients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import TINY, make_predictor, randomize

from i2v.build_i2v import build_i2v
from i2v.inference.frame_segmenter import FrameSegmenter
from i2v.modeling.memory.memory_bank import MemoryBank
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.memory.selectors import SimilaritySelector
from i2v.modeling.structures import NO_OBJECT_LOGIT, MaskSettings, Prompt, TrackingStep

STATE_DICT = Path(__file__).parents[1] / "golden" / "state_dict.json"


@pytest.fixture
def segmenter():
    return make_predictor("model.selector.mode=topk").tracker.segmenter


@pytest.fixture
def model(segmenter):
    return segmenter.model


@pytest.fixture
def windows():
    return torch.randn(4, 3, 5, 64, 64, generator=torch.Generator().manual_seed(3))


def test_the_published_checkpoint_has_these_entries():
    model = build_i2v("i2v-infer", device="cpu")
    own = {name: (list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in model.state_dict().items()}
    published = {name: tuple(entry) for name, entry in json.loads(STATE_DICT.read_text()).items()}
    assert len(published) == 733 and own == published
    assert sum(p.numel() for p in model.parameters()) == 18_897_886


@torch.inference_mode()
def test_steps_along_the_path_of_the_data(segmenter, model, windows):
    features = model.encode(windows[:1])
    assert features.vision.shape == features.position.shape == (1, 64, 4, 4)
    context = segmenter.condition_on_memory(TrackingStep(0), features, MemoryBank())
    assert context.readout is None
    assert torch.equal(context.conditioned, features.vision + model.no_mem_embed.view(1, -1, 1, 1))

    prediction = segmenter.segment(context, Prompt.click(torch.tensor([[[20.0, 20.0]]]), torch.tensor([[1]])))
    assert prediction.candidates.shape == (1, 3, 16, 16) and prediction.ious.shape == (1, 3)
    assert prediction.low_res.shape == (1, 1, 16, 16) and prediction.high_res.shape == (1, 1, 64, 64)
    best = prediction.ious[0].argmax()
    assert torch.equal(prediction.low_res[0, 0], prediction.candidates[0, best])

    memory = segmenter.memorize(0, features, prediction, from_prompt=True)
    assert memory.features.shape == (1, 16, 4, 4) and memory.features.dtype == torch.bfloat16
    assert memory.frame_embedding.norm() == pytest.approx(1, abs=1e-5)
    after = segmenter.condition_on_memory(TrackingStep(1), model.encode(windows[1:2]), MemoryBank((memory,)))
    assert isinstance(after.readout, MemoryReadout) and after.readout.tokens.shape == (1, 16 + 4, 16)
    assert segmenter.segment(after).candidates.shape[1] == 3


@torch.inference_mode()
def test_absent_objects_have_a_mask_a_pointer_and_a_memory_of_their_own(segmenter, model, windows):
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-50)
    features = model.encode(windows[:1])
    context = segmenter.condition_on_memory(TrackingStep(0), features, MemoryBank())
    prediction = segmenter.segment(context, Prompt.click(torch.tensor([[[20.0, 20.0]]]), torch.tensor([[1]])))
    assert (prediction.low_res == NO_OBJECT_LOGIT).all() and (prediction.high_res == NO_OBJECT_LOGIT).all()
    assert torch.equal(prediction.pointer, model.no_obj_ptr)
    memory = segmenter.memorize(0, features, prediction)
    model.no_obj_embed_spatial.data += 1
    shifted = segmenter.memorize(0, features, prediction)
    assert torch.allclose(shifted.features.float(), memory.features.float() + 1, atol=0.05)
    assert not memory.foreground.any()


@torch.inference_mode()
def test_a_mask_prompt_is_the_answer(segmenter, model, windows):
    features = model.encode(windows[:1])
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 16:40, 8:48] = 1
    prediction = segmenter.segment(model.condition(features, None), Prompt.from_mask(mask))
    assert torch.equal(prediction.high_res, 20 * mask - 10)
    assert prediction.object_score.flatten().tolist() == [10, -10]
    assert torch.equal(prediction.pointer[1], model.no_obj_ptr[0])
    assert not torch.equal(prediction.pointer[0], model.no_obj_ptr[0])
    assert prediction.low_res[0, 0, 6, 6] == pytest.approx(10) and prediction.low_res[0, 0, 0, 0] == pytest.approx(-10)


@torch.inference_mode()
def test_a_single_mask_gives_way_when_unstable(segmenter, model, windows):
    features = model.encode(windows[:1])
    context = model.condition(features, None)
    prompt = Prompt.box(torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
    segmenter.masks = MaskSettings(dynamic_multimask_via_stability=False)
    single = segmenter.segment(context, prompt)
    segmenter.masks = MaskSettings(dynamic_multimask_via_stability=True, dynamic_multimask_stability_thresh=0.0)
    steady = segmenter.segment(context, prompt)
    segmenter.masks = MaskSettings(dynamic_multimask_via_stability=True, dynamic_multimask_stability_thresh=1.1)
    fallen_back = segmenter.segment(context, prompt)
    segmenter.masks = MaskSettings(multimask_max_pt_num=2)
    alternatives = segmenter.segment(context, prompt)
    assert torch.equal(steady.low_res, single.low_res)
    assert torch.equal(fallen_back.low_res, alternatives.low_res)
    assert not torch.equal(fallen_back.low_res, single.low_res)
    assert torch.equal(fallen_back.pointer, single.pointer), "the pointer always is the single mask's"


@torch.inference_mode()
def test_prompted_masks_are_memorized_sharp_where_asked(segmenter, model, windows):
    features = model.encode(windows[:1])
    prediction = segmenter.segment(model.condition(features, None), Prompt.box(torch.tensor([[8.0, 8.0, 40.0, 40.0]])))
    assert segmenter.masks.binarize_mask_from_pts_for_mem_enc
    sharp = segmenter.memorize(0, features, prediction, from_prompt=True)
    extreme = replace(prediction, high_res=prediction.high_res.sign() * 100)
    assert torch.equal(sharp.features, segmenter.memorize(0, features, extreme).features)
    assert not torch.equal(sharp.features, segmenter.memorize(0, features, prediction).features)


def test_gradients_reach_every_weight_that_is_used(windows):
    model = build_i2v(TINY, device="cpu", mode="train")
    randomize(model)
    segmenter = FrameSegmenter(model, SimilaritySelector(), MaskSettings(dynamic_multimask_via_stability=False))
    bank, loss = MemoryBank(), torch.zeros(())
    for t in range(3):
        features = model.encode(windows[t : t + 2])
        prompt = Prompt.click(torch.full((2, 1, 2), 30.0), torch.ones(2, 1)) if t == 0 else None
        prediction = segmenter.segment(segmenter.condition_on_memory(TrackingStep(t), features, bank, None), prompt)
        loss = loss + prediction.candidates.square().mean() + prediction.ious.sum() + prediction.object_score.sum()
        memory = segmenter.memorize(t, features, prediction)
        bank = bank.add_conditioning(memory) if t == 0 else bank.add_tracked(memory)
        mask = Prompt.from_mask((prediction.high_res > 0).float())
        loss = loss + segmenter.segment(model.condition(features, None), mask).pointer.sum()
        corrected = Prompt.box(torch.tensor([[2.0, 2, 40, 40]] * 2)).add(torch.zeros(2, 1, 2), torch.zeros(2, 1))
        again = segmenter.segment(model.condition(features, None), corrected.with_prior(prediction.low_res))
        loss = loss + again.low_res.mean()
    loss.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    unused = ("no_mem_pos_enc", "norm_head", "trunk_image.head", "integration2temporal_nets.2", "no_obj", "relu")
    surprising = {name for name in idle if not any(part in name for part in unused)}
    assert not surprising


def test_identical_copies_start_equal():
    model = build_i2v(TINY, device="cpu")
    first, second = model.memory_attention.layers
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("side", [0, 100, 1000])
def test_bad_image_sizes(side):
    with pytest.raises(ValueError, match="multiple of 16"):
        build_i2v(TINY, device="cpu", hydra_overrides_extra=[f"model.image_size={side}"])


def test_more_slots_than_the_model_has():
    with pytest.raises(ValueError, match="num_maskmem"):
        make_predictor("model.selector.num_maskmem_global=9")
