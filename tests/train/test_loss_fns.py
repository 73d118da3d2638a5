"""Losses against values worked out by hand, and what they let learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.structures import FramePrediction
from train.loss_fns import ClipLoss, boundary_weight, dice_loss, focal_loss, iou_loss, structure_loss

WEIGHTS = {"loss_mask": 20.0, "loss_iou": 1.0, "loss_class": 1.0}
LOG2 = math.log(2)


def prediction(logits: Tensor, ious: Tensor, object_score: Tensor) -> FramePrediction:
    chosen = logits[:, :1]
    return FramePrediction(logits, ious, chosen, chosen, torch.zeros(len(logits), 4), object_score)


def square(size: int = 8) -> Tensor:
    """A target (1,1,S,S) with a square object."""
    target = torch.zeros(1, 1, size, size)
    target[..., 2:6, 2:6] = 1
    return target


def test_boundary_weight_is_that_of_a_mean_over_31_pixels_with_zeros_around() -> None:
    target = (torch.rand(2, 40, 50, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    mean = F.conv2d(target[:, None], torch.full((1, 1, 31, 31), 1 / 961), padding=15)[:, 0]
    assert torch.allclose(boundary_weight(target), 1 + 5 * (mean - target).abs(), atol=1e-5)


def test_structure_loss_of_undecided_logits_on_nothing() -> None:
    # Weights are 1 everywhere, the cross-entropy of a coin is log 2, and nothing overlaps.
    assert structure_loss(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)).item() == pytest.approx(1 + LOG2, abs=1e-5)


def test_structure_loss_by_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 9, 7, generator=generator)
    target = (torch.rand(3, 9, 7, generator=generator) > 0.5).float()
    for x, t, found in zip(logits, target, structure_loss(logits, target), strict=True):
        w, y = boundary_weight(t), x.sigmoid()
        bce = (w * ((1 + x.exp()).log() - x * t)).sum() / (w.sum() + 1e-6)
        overlap, union = (w * y * t).sum(), (w * (y + t)).sum()
        assert found == pytest.approx((bce + 1 - (overlap + 1e-6) / (union - overlap + 1e-6)).item(), rel=1e-5)


def test_iou_loss_compares_with_what_masks_really_overlap() -> None:
    logits = torch.tensor([[[1.0, 1, -1, -1]]])
    target = torch.tensor([[[1.0, 0, 1, 0]]])  # one of three pixels in common
    assert iou_loss(logits, target, torch.tensor([0.5]), use_l1_loss=True).item() == pytest.approx(1 / 6)
    assert iou_loss(logits, target, torch.tensor([0.5]), use_l1_loss=False).item() == pytest.approx(1 / 36)
    nothing = torch.zeros(1, 1, 4)
    assert iou_loss(-logits.abs(), nothing, torch.tensor([0.0]), use_l1_loss=True).item() == 0


def test_focal_loss_is_cross_entropy_without_its_parameters() -> None:
    logits, targets = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    assert focal_loss(logits, targets, alpha=-1, gamma=0).tolist() == pytest.approx([LOG2, 2.126928])
    assert focal_loss(logits, targets, alpha=0.25, gamma=2)[0].item() == pytest.approx(0.25 * 0.25 * LOG2)


def test_dice_loss_is_smoothed() -> None:
    assert dice_loss(torch.full((1, 4), -100.0), torch.zeros(1, 4)).item() == pytest.approx(0)
    assert dice_loss(torch.zeros(1, 4), torch.ones(1, 4)).item() == pytest.approx(1 - 5 / 7)


def test_only_the_best_candidate_learns_its_mask() -> None:
    target = square()
    logits = torch.stack((torch.zeros(8, 8), 4 * target[0, 0] - 2, torch.ones(8, 8)))[None].requires_grad_()
    ious = torch.tensor([[0.9, 0.1, 0.1]], requires_grad=True)
    step = prediction(logits, ious, torch.zeros(1, 1))
    losses = ClipLoss(WEIGHTS, pred_obj_scores=True)([[step]], target.bool(), num_objects=1)
    losses.core.backward()
    assert losses.mask.item() == pytest.approx(structure_loss(logits[0, 1], target[0, 0]).item())
    assert logits.grad is not None and ious.grad is not None
    assert (logits.grad[0].abs().sum(dim=(1, 2)) > 0).tolist() == [False, True, False]
    assert (ious.grad[0] != 0).tolist() == [False, True, False]


def test_all_predicted_ious_learn_where_asked() -> None:
    target = square()
    step = prediction(torch.zeros(1, 3, 8, 8) - 1, torch.tensor([[0.3, 0.6, 0.9]]), torch.zeros(1, 1))
    loss = ClipLoss(WEIGHTS, supervise_all_iou=True, iou_use_l1_loss=True, pred_obj_scores=True)
    assert loss([[step]], target.bool(), 1).iou.item() == pytest.approx(0.6)


def test_an_absent_object_teaches_its_presence_alone() -> None:
    targets = torch.cat((square(), torch.zeros(1, 1, 8, 8)), dim=1).bool()
    step = prediction(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1), torch.zeros(2, 1))
    both = ClipLoss(WEIGHTS, iou_use_l1_loss=True, pred_obj_scores=True)([[step]], targets, 1)
    first = prediction(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1), torch.zeros(1, 1))
    alone = ClipLoss(WEIGHTS, iou_use_l1_loss=True, pred_obj_scores=True)([[first]], targets[:, :1], 1)
    assert (both.mask.item(), both.iou.item()) == (alone.mask.item(), alone.iou.item())
    assert both.object_score.item() == pytest.approx(2 * LOG2)
    blind = ClipLoss(WEIGHTS, pred_obj_scores=False)([[step]], targets, 1)
    assert blind.object_score.item() == 0 and blind.mask.item() > both.mask.item()


def test_steps_and_frames_add_up_and_objects_divide() -> None:
    targets = square().expand(2, 1, 8, 8).bool()
    step = prediction(torch.zeros(1, 1, 8, 8), torch.full((1, 1), 0.5), torch.zeros(1, 1))
    loss = ClipLoss(WEIGHTS, pred_obj_scores=True)
    one = loss([[step]], targets[:1], num_objects=1)
    many = loss([[step, step], [step]], targets, num_objects=2)
    assert many.core.item() == pytest.approx(1.5 * one.core.item())
    assert one.core.item() == pytest.approx(20 * one.mask.item() + one.iou.item() + one.object_score.item())


def test_candidates_are_enlarged_to_the_target_and_a_single_one_is_taken_as_given() -> None:
    target = square(16).bool()
    small, large = torch.full((1, 1, 4, 4), -9.0), 20 * target.float() - 10
    ious, object_score = torch.ones(1, 1), torch.full((1, 1), 10.0)
    given = FramePrediction(small, ious, small, large, torch.zeros(1, 4), object_score)
    assert ClipLoss(WEIGHTS, pred_obj_scores=True)([[given]], target, 1).core.item() < 0.02
    several = FramePrediction(
        small.repeat(1, 3, 1, 1), ious.repeat(1, 3), small, large, torch.zeros(1, 4), object_score
    )
    assert ClipLoss(WEIGHTS, pred_obj_scores=True)([[several]], target, 1).core.item() > 20


def test_masks_can_be_compared_at_a_reduced_size() -> None:
    target = square(16)
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    step = prediction(logits, torch.zeros(1, 3), torch.zeros(1, 1))
    reduced = ClipLoss(WEIGHTS, pred_obj_scores=True, mask_stride=2)([[step]], target.bool(), 1)
    halved = torch.nn.functional.avg_pool2d(target, 2)
    assert halved.shape[-1] == 8
    assert reduced.mask.item() == pytest.approx(ClipLoss(WEIGHTS)([[step]], halved.bool(), 1).mask.item())


def test_weights_are_checked() -> None:
    with pytest.raises(ValueError, match="loss_iou"):
        ClipLoss({"loss_mask": 1.0})
    with pytest.raises(ValueError, match="loss_masks"):
        ClipLoss({**WEIGHTS, "loss_masks": 1.0})
    assert ClipLoss({"loss_mask": 1.0, "loss_iou": 1.0}).weights["loss_class"] == 0
