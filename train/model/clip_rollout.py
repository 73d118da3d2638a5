"""ClipRollout: runs the model over a clip with simulated prompts and corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from i2v.inference.frame_segmenter import FrameSegmenter
from i2v.modeling.memory.memory_bank import MemoryBank
from i2v.modeling.structures import FrameContext, FrameFeatures, FramePrediction, Prompt, TrackingStep
from i2v.video.sources import window_indices
from train.dataset.structures import BatchedClip
from train.model.prompt_simulator import PromptPlan, SimulatedUser


@dataclass(frozen=True, eq=False)
class _ClipFeatures:
    """Features of all frames of all clips, computed as one batch.

    Attributes:
        rows: Features of frame t of a clip are in row ``clip * T + t``.
        num_frames: Frames ``T`` of a clip.
        video_of: Clip ``(N,)`` of each object.
    """

    rows: FrameFeatures
    num_frames: int
    video_of: Tensor

    def at(self, frame: int) -> FrameFeatures:
        """Features of a frame with one row for each of the N objects."""
        return self.rows.rows(self.video_of * self.num_frames + frame)


class ClipRollout(nn.Module):
    """Runs the model over a clip the way an inference session would.

    Unlike in a session, the user is simulated, and gradients flow through memories and object pointers back to the
    frames they were made from.
    """

    def __init__(
        self,
        segmenter: FrameSegmenter,
        add_all_frames_to_correct_as_cond: bool = True,
        use_act_ckpt_iterative_pt_sampling: bool = False,
    ) -> None:
        """Wrap the model of a segmenter.

        Args:
            segmenter: The network to be trained, with the memory selection and mask settings of training.
            add_all_frames_to_correct_as_cond: Whether corrected frames become conditioning frames; otherwise they stay
                tracked frames.
            use_act_ckpt_iterative_pt_sampling: Whether to use activation checkpointing for corrections: they are
                recomputed in the backward pass, which saves memory.
        """
        super().__init__()
        self.model = segmenter.model  # so that its parameters are the rollout's
        self.segmenter = segmenter
        self.corrected_frames_condition = add_all_frames_to_correct_as_cond
        self.checkpoint_corrections = use_act_ckpt_iterative_pt_sampling

    def forward(self, clip: BatchedClip, plan: PromptPlan, user: SimulatedUser) -> list[tuple[FramePrediction, ...]]:
        """Segment all N objects on all frames of a batch of clips.

        Args:
            clip: The batch.
            plan: Which frames are prompted and corrected.
            user: Draws the prompts and corrections.

        Returns:
            For every frame in temporal order, the predictions of all decoding steps: the first prediction, then one per
            correction.

        Raises:
            ValueError: If the memory selector compares frames and there is more than one clip in the batch.
        """
        num_frames = clip.num_frames
        features = self._encode(clip)
        bank = MemoryBank(span=self.segmenter.selector.span)
        steps: dict[int, tuple[FramePrediction, ...]] = {}
        for frame in plan.order(num_frames):
            seen = features.at(frame)
            # An initial frame is a fresh start, whatever is remembered of other initial frames.
            known = MemoryBank() if frame in plan.initial else bank
            context = self.segmenter.condition_on_memory(TrackingStep(frame, num_frames=num_frames), seen, known)
            steps[frame] = self._segment(context, frame, clip.masks[frame][:, None], plan, user)
            memory = self.segmenter.memorize(frame, seen, steps[frame][-1])
            conditioning = frame in plan.initial or (self.corrected_frames_condition and frame in plan.corrections)
            bank = bank.add_conditioning(memory) if conditioning else bank.add_tracked(memory)
        return [steps[frame] for frame in range(num_frames)]

    def _encode(self, clip: BatchedClip) -> _ClipFeatures:
        num_frames, num_clips = clip.frames.shape[:2]
        selector = self.segmenter.selector
        if selector.compares_frames and num_clips > 1 and num_frames > 1:
            raise ValueError(
                f"{type(selector).__name__} compares the frames of one video: expected 1 clip in a batch, "
                f"got {num_clips}"
            )
        by_clip = clip.frames.transpose(0, 1)  # (B,T,3,S,S)
        stem = self.model.stem_features(by_clip.flatten(0, 1)).unflatten(0, by_clip.shape[:2])
        windows = [window_indices(t, self.model.window_length) for t in range(num_frames)]
        of_windows = [stem[:, list(frames)].flatten(0, 1) for frames in zip(*windows, strict=True)]
        features = self.model.encode_frames(by_clip.flatten(0, 1), of_windows)
        return _ClipFeatures(features, num_frames, clip.video_of)

    def _segment(
        self, context: FrameContext, frame: int, masks: Tensor, plan: PromptPlan, user: SimulatedUser
    ) -> tuple[FramePrediction, ...]:
        """Segment a frame, then once more after each correction; ``masks`` is ``(N, 1, S, S)`` bool."""
        prompt = user.prompt(plan.initial[frame], masks) if frame in plan.initial else None
        predictions = [self.segmenter.segment(context, prompt)]
        for from_object in plan.corrections.get(frame, ()):
            last = predictions[-1]
            prompt = user.correct(prompt, masks, last.high_res, from_object)
            predictions.append(self._correct(context, prompt.with_prior(last.low_res)))
        return tuple(predictions)

    def _correct(self, context: FrameContext, prompt: Prompt) -> FramePrediction:
        if self.checkpoint_corrections and torch.is_grad_enabled():
            return checkpoint(self.segmenter.segment, context, prompt, use_reentrant=False)
        return self.segmenter.segment(context, prompt)


def last_masks(steps: Sequence[Sequence[FramePrediction]]) -> Tensor:
    """Final masks ``(T, N, S, S)`` bool of a rollout."""
    return torch.stack([frame[-1].high_res[:, 0] > 0 for frame in steps])
