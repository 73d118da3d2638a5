"""Connects the conformance kit, tests/conformance/check.py, to this package.

To see how far an option is off: I2V_DTYPE=bfloat16 or I2V_COMPILE=1 python tests/conformance/check.py --case mask
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The kit may lie elsewhere, and `train` is part of the checkout rather than of what is installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from i2v.build_i2v import build_i2v_video_predictor


def build_predictor():
    return build_i2v_video_predictor(
        "i2v-infer",
        device="cpu",
        hydra_overrides_extra=["++model.fill_hole_area=0"],
        dtype=os.environ.get("I2V_DTYPE"),
        compile="I2V_COMPILE" in os.environ,
        random_weights=True,
    )


def fill_holes(mask, max_area):
    from i2v.utils.masks import fill_holes

    return fill_holes(mask, max_area)


def point_from_error_center(gt, pred, padding):
    from i2v.prompts.sampling import point_from_error_center

    return point_from_error_center(gt, pred, padding)


def random_points_from_errors(gt, pred, num_pt):
    from i2v.prompts.sampling import random_points_from_errors

    return random_points_from_errors(gt, pred, num_pt)


def box_points(masks, noise, noise_bound):
    from i2v.prompts.sampling import box_points

    return box_points(masks, noise, noise_bound)


def centroid_pixel(mask):
    from i2v.prompts.sampling import centroid_pixel

    return centroid_pixel(mask)


def evaluate(gt_root, pred_root, skip_first_and_last):
    from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate

    scores = evaluate(gt_root, pred_root, EvaluationSettings("first-last" if skip_first_and_last else "none"))
    per_object = {video: {s.obj: [s.j, s.f] for s in part.objects} for video, part in scores.by_video().items()}
    return {"J": scores.j, "F": scores.f, "JF": scores.jf, "per_object": per_object}


def structure_loss(inputs, targets, num_objects, loss_on_multimask=False):
    from train.loss_fns import structure_loss

    return _reduce(structure_loss(inputs, targets), num_objects, loss_on_multimask)


def dice_loss(inputs, targets, num_objects, loss_on_multimask=False):
    from train.loss_fns import dice_loss

    if loss_on_multimask:
        inputs, targets = inputs.flatten(2), targets.flatten(2)
    return _reduce(dice_loss(inputs, targets), num_objects, loss_on_multimask)


def sigmoid_focal_loss(inputs, targets, num_objects, alpha=0.25, gamma=2.0, loss_on_multimask=False):
    from train.loss_fns import focal_loss

    losses = focal_loss(inputs, targets, alpha, gamma)
    losses = losses.flatten(2).mean(-1) if loss_on_multimask else losses.mean(1)
    return _reduce(losses, num_objects, loss_on_multimask)


def iou_loss(inputs, targets, pred_ious, num_objects, loss_on_multimask=False, use_l1_loss=False):
    from train.loss_fns import iou_loss

    return _reduce(iou_loss(inputs, targets, pred_ious, use_l1_loss), num_objects, loss_on_multimask)


def criterion(**settings):
    from train.loss_fns import ClipLoss

    loss = ClipLoss(**settings)

    def call(outputs, targets):
        frames = [_predictions(frame) for frame in outputs]
        losses = loss(frames, targets, num_objects=targets.shape[1])
        return {
            "loss_mask": losses.mask,
            "loss_iou": losses.iou,
            "loss_class": losses.object_score,
            "core_loss": losses.core,
        }

    return call


def _reduce(losses, num_objects, per_candidate):
    return losses / num_objects if per_candidate else losses.sum() / num_objects


def _predictions(frame):
    from i2v.modeling.structures import FramePrediction

    names = ("multistep_pred_multimasks_high_res", "multistep_pred_ious", "multistep_object_score_logits")
    columns = zip(*(frame[name] for name in names), strict=True)
    return [
        FramePrediction(candidates=masks, ious=ious, low_res=masks, high_res=masks, pointer=scores, object_score=scores)
        for masks, ious, scores in columns
    ]
