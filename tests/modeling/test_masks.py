"""Holes and overlap, against a reference labelling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from i2v.inference.mask_history import FrameResult, MaskHistory, PackedResult
from i2v.modeling.structures import NO_OBJECT_LOGIT
from i2v.utils.masks import fill_holes, resize_logits, suppress_overlap


@pytest.mark.parametrize("max_area", [0, 1, 3, 8, 30])
def test_fill_holes_equals_labelling(max_area):
    rng = np.random.default_rng(max_area)
    noise = np.stack([ndimage.gaussian_filter(rng.normal(size=(37, 53)), s) for s in (0, 0.6, 1.2, 3)])
    noise[0][rng.random((37, 53)) < 0.1] = 0.0
    logits = torch.from_numpy(noise[:, None]).float() + 0.05
    expected = logits.clone()
    for mask, out in zip(logits[:, 0].numpy(), expected[:, 0], strict=True):
        labels, count = ndimage.label(mask <= 0, structure=np.ones((3, 3)))
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        small = (labels > 0) & (areas[labels] <= max_area)
        out[torch.from_numpy(small)] = 0.1
    assert torch.equal(fill_holes(logits, max_area), expected)
    assert max_area == 0 or (expected != logits).any()


def test_overlap_goes_to_the_highest_and_the_first_of_equals():
    logits = torch.tensor([[3.0, 1.0, -2.0], [2.0, 1.0, -20.0]]).view(2, 1, 1, 3)
    assert suppress_overlap(logits).flatten(1).tolist() == [[3, 1, -2], [-10, -10, -20]]
    assert suppress_overlap(logits[:1]) is not None and torch.equal(suppress_overlap(logits[:1]), logits[:1])


def test_resize_keeps_equal_sizes_untouched():
    logits = torch.randn(1, 1, 8, 8)
    assert resize_logits(logits, (8, 8)) is logits
    assert resize_logits(logits, (5, 9)).shape == (1, 1, 5, 9)


def result(scale: float, object_score: float = 2.0) -> FrameResult:
    low_res = scale * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    low_res[0, 0, 0, :4] = torch.tensor([0.0, 0.1, -0.1, 1e-6])
    return FrameResult(low_res, torch.randn(1, 16), torch.tensor([[object_score]]), torch.tensor([0.8]))


def test_packed_results_keep_signs_and_nearly_the_logits():
    exact = result(3.0)
    packed = PackedResult.pack(exact).unpack(torch.device("cpu"))
    assert torch.equal(packed.low_res > 0, exact.low_res > 0)
    inside = exact.low_res.abs() < 7.5
    assert (packed.low_res - exact.low_res)[inside].abs().max() <= 0.25 + 1e-6
    assert packed.low_res.abs().max() <= 8
    assert torch.allclose(packed.pointer, exact.pointer, atol=2e-3)
    assert float(packed.object_score) == 2.0 and float(packed.iou) == pytest.approx(0.8)


def test_packed_absence_stays_absence():
    absent = result(1.0, object_score=-3.0)
    assert (PackedResult.pack(absent).unpack(torch.device("cpu")).low_res == NO_OBJECT_LOGIT).all()


def test_a_result_is_found_while_it_is_compressed(monkeypatch: pytest.MonkeyPatch):
    history = MaskHistory(num_exact=1)
    found = []

    def pack(oldest: FrameResult, pack=PackedResult.pack) -> PackedResult:
        found.append((0 in history, history.scores(0), sorted(history.frames)))
        return pack(oldest)

    history.put(0, result(1.0))
    monkeypatch.setattr(PackedResult, "pack", pack)
    history.put(1, result(2.0))
    assert found == [(True, pytest.approx((2.0, 0.8)), [0, 1])] and sorted(history.frames) == [0, 1]


def test_history_keeps_the_latest_exactly():
    history = MaskHistory(num_exact=2)
    results = [result(float(i + 1)) for i in range(4)]
    for frame, r in enumerate(results):
        history.put(frame, r)
    device = torch.device("cpu")
    assert history.get(3, device) is results[3] and history.get(2, device) is results[2]
    assert torch.equal(history.get(0, device).low_res > 0, results[0].low_res > 0)
    assert history.get(9, device) is None and history.scores(9) is None
    assert history.scores(0) == pytest.approx((2.0, 0.8))
    history.put(0, results[0])
    assert history.get(0, device) is results[0] and 2 in history
    history.drop(2)
    assert 2 not in history
