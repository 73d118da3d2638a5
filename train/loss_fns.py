"""Training losses on masks, predicted IoUs and object scores, summed over a clip.

Shapes: N objects, K mask candidates, T frames, S side of the model image in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.structures import FramePrediction
from i2v.utils.masks import resize_logits

BOUNDARY_WINDOW = 31  # side in pixels of the window around a pixel; mixed windows lie at a boundary
BOUNDARY_WEIGHT = 5.0
EPSILON = 1e-6


@dataclass(frozen=True)
class ClipLosses:
    """Losses of a clip as scalars. Only ``core`` carries gradients.

    Attributes:
        core: The weighted sum, which is minimized.
        mask: Mask loss before weighting.
        iou: IoU loss before weighting.
        object_score: Object score loss before weighting.
    """

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
        """Check the weights.

        Args:
            weight_dict: Weights of ``loss_mask``, ``loss_iou`` and optionally ``loss_class`` (default 0).
            supervise_all_iou: Supervise the predicted IoUs of all candidates, not only of the one whose mask is
                supervised.
            iou_use_l1_loss: Use absolute instead of squared IoU differences.
            pred_obj_scores: Supervise object scores; absent objects then contribute no mask and IoU loss.
            focal_gamma_obj_score: ``gamma`` of :func:`focal_loss` on object scores.
            focal_alpha_obj_score: ``alpha`` of :func:`focal_loss` on object scores.
            mask_stride: Compare masks at a resolution reduced by this factor, which costs its square less.

        Raises:
            ValueError: If a weight is missing or unknown.
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
        """Compute the losses of a clip.

        Args:
            steps: For each of T frames, the predictions of all decoding steps.
            targets: Ground-truth masks ``(T, N, S, S)`` bool.
            num_objects: Divisor of the sums: N averaged over all processes.
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
        """Sum the losses of one decoding step over its objects.

        Args:
            prediction: What the step predicted.
            target: ``(N, H, W)`` in 0..1.
            weight: ``(N, H, W)``, see :func:`boundary_weight`.

        Returns:
            ``(3,)``: mask, IoU and object score loss.
        """
        logits = candidates_at(prediction, (target.shape[-2], target.shape[-1]))
        wanted = target[:, None].expand_as(logits)
        mask_losses = structure_loss(logits, wanted, weight[:, None])
        iou_losses = iou_loss(logits, wanted, prediction.ious, self.iou_use_l1_loss)
        # Only the best candidate is supervised, whatever IoUs were predicted: so the others may hold other masks.
        best = mask_losses.argmin(dim=1, keepdim=True)
        mask = mask_losses.gather(1, best)[:, 0]
        iou = iou_losses.mean(dim=1) if self.supervise_all_iou else iou_losses.gather(1, best)[:, 0]
        if not self.pred_obj_scores:
            return torch.stack((mask.sum(), iou.sum(), mask.new_zeros(())))
        present = target.flatten(1).any(dim=1).float()  # pooled targets: part of one pixel is enough
        object_score = focal_loss(prediction.object_score[:, 0].float(), present, self.alpha, self.gamma)
        return torch.stack(((mask * present).sum(), (iou * present).sum(), object_score.sum()))


def candidates_at(prediction: FramePrediction, size: tuple[int, int]) -> Tensor:
    """Resize the logits of all candidates.

    Args:
        prediction: What a decoding step predicted.
        size: Height and width.

    Returns:
        ``(N, K, H, W)``. A single candidate whose high-res logits already have this size is returned as it is: it may
        be a mask prompt.
    """
    if prediction.candidates.shape[1] == 1 and tuple(prediction.high_res.shape[-2:]) == size:
        return prediction.high_res
    return resize_logits(prediction.candidates, size)


def boundary_weight(targets: Tensor) -> Tensor:
    """Weight every pixel by how much its surroundings differ from it.

    Args:
        targets: Masks ``(..., H, W)`` in 0..1.

    Returns:
        ``(..., H, W)`` in 1..6, highest at boundaries.
    """
    pad, area = BOUNDARY_WINDOW // 2, BOUNDARY_WINDOW**2
    planes = targets.reshape(-1, 1, *targets.shape[-2:]).float()
    # A box filter is separable: summing along rows, then along columns, takes 62 additions per pixel instead of 961.
    sums = F.avg_pool2d(planes, (1, BOUNDARY_WINDOW), 1, (0, pad), divisor_override=1)
    sums = F.avg_pool2d(sums, (BOUNDARY_WINDOW, 1), 1, (pad, 0), divisor_override=1)
    return 1 + BOUNDARY_WEIGHT * (sums.view(targets.shape) / area - targets).abs()


def structure_loss(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Boundary-weighted cross-entropy plus boundary-weighted soft IoU loss.

    Args:
        logits: ``(..., H, W)``.
        targets: ``(..., H, W)`` in 0..1.
        weight: :func:`boundary_weight` of the targets, if already computed.

    Returns:
        ``(...)``, one loss per mask.
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
    """Compare predicted IoUs with the actual IoUs of the predicted masks.

    Args:
        logits: Predicted masks ``(..., H, W)``.
        targets: Ground-truth masks ``(..., H, W)`` in 0..1.
        predicted: Predicted IoUs ``(...)``.
        use_l1_loss: Whether to use absolute instead of squared differences.

    Returns:
        ``(...)``, one loss per mask.
    """
    found, wanted = logits > 0, targets > 0.5
    union = (found | wanted).flatten(-2).sum(-1)
    actual = (found & wanted).flatten(-2).sum(-1) / union.clamp(min=1)
    difference = predicted - actual
    return difference.abs() if use_l1_loss else difference**2


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Binary focal loss (Lin et al., ICCV 2017).

    Args:
        logits: ``(...)``.
        targets: ``(...)`` in 0..1.
        alpha: Weight of positives in 0..1, negatives get ``1 - alpha``; a negative ``alpha`` disables weighting.
        gamma: Exponent of ``1 - p``, where p is the probability of the correct class; 0 is plain cross-entropy.

    Returns:
        ``(...)``, unreduced.
    """
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if gamma:
        probability = logits.sigmoid()
        right = probability * targets + (1 - probability) * (1 - targets)
        loss = loss * (1 - right) ** gamma
    return loss * (alpha * targets + (1 - alpha) * (1 - targets)) if alpha >= 0 else loss


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss with smoothing 1, for other training recipes.

    Args:
        logits: ``(..., P)`` with P pixels.
        targets: ``(..., P)`` in 0..1.

    Returns:
        ``(...)``, one loss per mask.
    """
    probability = logits.sigmoid()
    overlap = 2 * (probability * targets).sum(-1)
    return 1 - (overlap + 1) / (probability.sum(-1) + targets.sum(-1) + 1)


def _sum(x: Tensor) -> Tensor:
    return x.sum(dim=(-2, -1))
