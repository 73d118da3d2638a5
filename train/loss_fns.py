"""What is minimized: how wrong masks, predicted IoUs and object scores are, summed over a clip.

Letters: N objects, K mask candidates, T frames, S side of the model image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.structures import FramePrediction
from i2v.utils.masks import resize_logits

BOUNDARY_WINDOW = 31  # side in pixels of the neighbourhood that makes a pixel a boundary one
BOUNDARY_WEIGHT = 5.0
EPSILON = 1e-6


@dataclass(frozen=True)
class ClipLosses:
    """Scalars: the weighted sum that is minimized, and its parts before weighting. Only ``core`` carries gradients."""

    core: Tensor
    mask: Tensor
    iou: Tensor
    object_score: Tensor


class ClipLoss:
    """Sums the losses of all decoding steps of all frames, divided by the number of objects."""

    def __init__(
        self,
        weight_dict: Mapping[str, float],
        supervise_all_iou: bool = False,
        iou_use_l1_loss: bool = False,
        pred_obj_scores: bool = False,
        focal_gamma_obj_score: float = 0.0,
        focal_alpha_obj_score: float = -1.0,
        mask_stride: int = 1,
    ) -> None:
        """``weight_dict``: of ``loss_mask``, ``loss_iou`` and, if it is to count, ``loss_class``.

        ``supervise_all_iou``: predicted IoUs of all candidates count, else that of the one whose mask does.
        ``iou_use_l1_loss``: absolute rather than squared differences. ``pred_obj_scores``: object scores are
        predicted, and where an object is absent nothing else counts. The focal parameters are those of
        :func:`focal_loss`.
        ``mask_stride``: masks are compared at a size reduced by it, which takes its square less time.
        """
        known = {"loss_mask", "loss_iou", "loss_class"}
        for name in ("loss_mask", "loss_iou"):
            if name not in weight_dict:
                raise ValueError(f"weight_dict: expected a weight of {name}, got only {sorted(weight_dict)}")
        if unknown := set(weight_dict) - known:
            raise ValueError(f"weight_dict: expected weights of {sorted(known)}, got {sorted(unknown)}")
        self.weights = {"loss_class": 0.0, **weight_dict}
        self.supervise_all_iou = supervise_all_iou
        self.iou_use_l1_loss = iou_use_l1_loss
        self.pred_obj_scores = pred_obj_scores
        self.gamma, self.alpha = focal_gamma_obj_score, focal_alpha_obj_score
        self.mask_stride = mask_stride

    def __call__(self, steps: Sequence[Sequence[FramePrediction]], targets: Tensor, num_objects: float) -> ClipLosses:
        """Predictions of every frame's decoding steps against targets (T,N,S,S) bool.

        ``num_objects``: what the sums are divided by, N on average over all processes.
        """
        total = targets.new_zeros(3, dtype=torch.float32)
        for frame, target in zip(steps, targets, strict=True):
            wanted = F.avg_pool2d(target.float(), self.mask_stride)
            weight = boundary_weight(wanted)
            total = total + sum(self._step(prediction, wanted, weight) for prediction in frame)
        mask, iou, object_score = (total / num_objects).unbind()
        weights = self.weights
        core = weights["loss_mask"] * mask + weights["loss_iou"] * iou + weights["loss_class"] * object_score
        return ClipLosses(core, mask.detach(), iou.detach(), object_score.detach())

    def _step(self, prediction: FramePrediction, target: Tensor, weight: Tensor) -> Tensor:
        """Sums (3,) over the objects of one decoding step: mask, IoU, object score. ``target`` (N,H,W) in 0..1."""
        logits = candidates_at(prediction, (target.shape[-2], target.shape[-1]))
        wanted = target[:, None].expand_as(logits)
        mask_losses = structure_loss(logits, wanted, weight[:, None])
        iou_losses = iou_loss(logits, wanted, prediction.ious, self.iou_use_l1_loss)
        # The candidate that fits best learns, whatever IoUs were predicted: so candidates can differ.
        best = mask_losses.argmin(dim=1, keepdim=True)
        mask = mask_losses.gather(1, best)[:, 0]
        iou = iou_losses.mean(dim=1) if self.supervise_all_iou else iou_losses.gather(1, best)[:, 0]
        if not self.pred_obj_scores:
            return torch.stack((mask.sum(), iou.sum(), mask.new_zeros(())))
        present = target.flatten(1).any(dim=1).float()  # any part of a pixel
        object_score = focal_loss(prediction.object_score[:, 0].float(), present, self.alpha, self.gamma)
        return torch.stack(((mask * present).sum(), (iou * present).sum(), object_score.sum()))


def candidates_at(prediction: FramePrediction, size: tuple[int, int]) -> Tensor:
    """Logits (N,K,H,W) of all candidates at a size; a single one, which may be a given mask, as it was given out."""
    if prediction.candidates.shape[1] == 1 and tuple(prediction.high_res.shape[-2:]) == size:
        return prediction.high_res
    return resize_logits(prediction.candidates, size)


def boundary_weight(targets: Tensor) -> Tensor:
    """Weight 1..6 of every pixel of masks (...,H,W): the more, the less its neighbourhood is like it."""
    pad, area = BOUNDARY_WINDOW // 2, BOUNDARY_WINDOW**2
    planes = targets.reshape(-1, 1, *targets.shape[-2:]).float()
    # Sums along rows, then along columns: 62 additions a pixel instead of 961.
    sums = F.avg_pool2d(planes, (1, BOUNDARY_WINDOW), 1, (0, pad), divisor_override=1)
    sums = F.avg_pool2d(sums, (BOUNDARY_WINDOW, 1), 1, (pad, 0), divisor_override=1)
    return 1 + BOUNDARY_WEIGHT * (sums.view(targets.shape) / area - targets).abs()


def structure_loss(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Boundary-weighted cross-entropy plus boundary-weighted soft IoU loss of masks (...,H,W) -> (...).

    ``weight``: :func:`boundary_weight` of the targets, where it is at hand.
    """
    if weight is None:
        weight = boundary_weight(targets)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    cross_entropy = _sum(weight * cross_entropy) / (_sum(weight) + EPSILON)
    probability, wanted = logits.sigmoid(), weight * targets
    overlap = _sum(probability * wanted)
    union = _sum(weight * probability) + _sum(wanted) - overlap
    return cross_entropy + 1 - (overlap + EPSILON) / (union + EPSILON)


def iou_loss(logits: Tensor, targets: Tensor, predicted: Tensor, use_l1_loss: bool) -> Tensor:
    """How far predicted IoUs (...) are from those that masks (...,H,W) really have -> (...)."""
    found, wanted = logits > 0, targets > 0.5
    union = (found | wanted).flatten(-2).sum(-1)
    actual = (found & wanted).flatten(-2).sum(-1) / union.clamp(min=1)
    difference = predicted - actual
    return difference.abs() if use_l1_loss else difference**2


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Cross-entropy of every entry, times (1 - p)^gamma for the probability p given to the right answer.

    ``alpha`` in 0..1 balances ones against zeros; a negative one leaves them alone.
    """
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if gamma:
        probability = logits.sigmoid()
        right = probability * targets + (1 - probability) * (1 - targets)
        loss = loss * (1 - right) ** gamma
    return loss * (alpha * targets + (1 - alpha) * (1 - targets)) if alpha >= 0 else loss


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the smoothed Dice coefficient of masks (...,P), pixels last -> (...). For other recipes."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * targets).sum(-1)
    return 1 - (overlap + 1) / (probability.sum(-1) + targets.sum(-1) + 1)


def _sum(x: Tensor) -> Tensor:
    return x.sum(dim=(-2, -1))
