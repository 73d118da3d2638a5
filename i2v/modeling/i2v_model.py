"""I2VModel: every weight, and the steps from a window of frames to masks and memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.backbones.image_encoder import ImageEncoder
from i2v.modeling.layers import MLP
from i2v.modeling.memory.memory_attention import MemoryAttention
from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.memory.memory_encoder import MemoryEncoder
from i2v.modeling.memory.memory_prompt_generator import MemoryPromptGenerator
from i2v.modeling.memory.selectors import Selector, pad_readout, read_memories
from i2v.modeling.sam.mask_decoder import DecodedMasks, MaskDecoder, stability
from i2v.modeling.sam.prompt_encoder import PromptEncoder
from i2v.modeling.structures import (
    NO_OBJECT_LOGIT,
    FrameContext,
    FrameFeatures,
    FramePrediction,
    MaskSettings,
    MemoryReadout,
    Moment,
    Prompt,
)
from i2v.utils.masks import resize_logits

MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0  # a mask prompt as logits: -10 or 10
FOREGROUND_THRESHOLD = 0.5  # of a token's mean mask probability


class I2VModel(nn.Module):
    """Promptable video segmentation, frame by frame.

    Inference and training call the same verbs: :meth:`encode`, :meth:`associate`, :meth:`segment`, :meth:`memorize`.
    The model knows nothing of sessions, clips or losses.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        memory_attention: MemoryAttention,
        memory_encoder: MemoryEncoder,
        memory_prompt_generator: MemoryPromptGenerator,
        sam_prompt_encoder: PromptEncoder,
        sam_mask_decoder: MaskDecoder,
        selector: Selector,
        image_size: int = 1024,
        num_maskmem: int = 7,
        masks: MaskSettings | None = None,
    ) -> None:
        super().__init__()
        if image_size % 16 or image_size <= 0:
            raise ValueError(f"image_size: expected a positive multiple of 16, got {image_size}")
        if selector.num_slots > num_maskmem:
            raise ValueError(f"num_maskmem: the selector fills {selector.num_slots} slots, got {num_maskmem}")
        self.image_size = image_size
        self.masks = masks or MaskSettings()
        self.selector = selector
        self.static_shapes = False  # whatever is remembered, see i2v/inference/compiling.py
        dim = sam_prompt_encoder.not_a_point_embed.embedding_dim
        memory_dim = memory_encoder.position.shape[1]

        self.maskmem_tpos_enc = _vector(num_maskmem, 1, 1, memory_dim)
        self.no_mem_embed = _vector(1, 1, dim)
        self.no_mem_pos_enc = _vector(1, 1, dim)  # in the checkpoint, used by nothing
        self.no_obj_ptr = _vector(1, dim)
        self.no_obj_embed_spatial = _vector(1, memory_dim)
        self.image_encoder = image_encoder
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        self.memory_attention = memory_attention
        self.memory_encoder = memory_encoder
        self.memory_prompt_generator = memory_prompt_generator
        self.sam_prompt_encoder = sam_prompt_encoder
        self.sam_mask_decoder = sam_mask_decoder
        self.obj_ptr_proj = MLP(dim, dim, dim, 3)
        self.obj_ptr_tpos_proj = nn.Linear(dim, memory_dim)

    @property
    def window_length(self) -> int:
        """Frames that :meth:`encode` looks at for one frame."""
        return self.image_encoder.window_length

    @property
    def device(self) -> torch.device:
        return self.no_mem_embed.device

    def encode(self, windows: Tensor) -> FrameFeatures:
        """Windows (B,3,T,S,S) of normalized frames, oldest first -> features of their last frames."""
        return self.encode_frames(windows[:, :, -1], [self.taps(frames) for frames in windows.unbind(2)])

    def encode_frames(self, frames: Tensor, taps: Sequence[Tensor]) -> FrameFeatures:
        """Features of frames (B,3,S,S), given the :meth:`taps` of the T frames of their windows, oldest first."""
        return self.image_encoder(frames.to(self.no_mem_embed.dtype), taps)

    def taps(self, frames: Tensor) -> Tensor:
        """What frames (B,3,S,S) contribute to every window that they are part of: kept, it is computed only once."""
        return self.image_encoder.taps(frames.to(self.no_mem_embed.dtype))

    def associate(
        self, moment: Moment, features: FrameFeatures, bank: MemoryBank, generator: torch.Generator | None = None
    ) -> FrameContext:
        """Condition a frame on what a bank of B objects remembers; an empty bank is an object's first frame."""
        if not bank.prompted:
            return self.condition(features, None)
        return self.condition(features, self.recall(moment, features, [bank], [generator])[0])

    def recall(
        self,
        moment: Moment,
        features: FrameFeatures,
        banks: Sequence[MemoryBank],
        generators: Sequence[torch.Generator | None],
    ) -> list[MemoryReadout]:
        """What each bank has to say on a frame. Every bank needs a prompted memory."""
        appearance = features.appearance if self.selector.compares_frames else None
        selections = self.selector.select(moment, banks, appearance, generators)
        grid_code = self.memory_encoder.position
        readouts = [
            read_memories(selection, self.maskmem_tpos_enc, grid_code, self.obj_ptr_tpos_proj)
            for selection in selections
        ]
        if not self.static_shapes:
            return readouts
        return [pad_readout(r, s, self.selector.num_slots) for r, s in zip(readouts, selections, strict=True)]

    def condition(self, features: FrameFeatures, readout: MemoryReadout | None) -> FrameContext:
        """Features in the light of a readout of B objects, or marked as without memory."""
        if readout is not None:
            return self.condition_all(features, [readout])[0]
        return FrameContext(features, features.vision + self.no_mem_embed.reshape(1, -1, 1, 1), None)

    def condition_all(self, features: FrameFeatures, readouts: Sequence[MemoryReadout]) -> list[FrameContext]:
        """Features in the light of each readout; what does not depend on memory is computed once."""
        conditioned = self.memory_attention(features, readouts)
        return [FrameContext(features, c, readout) for c, readout in zip(conditioned, readouts, strict=True)]

    def segment(self, context: FrameContext, prompt: Prompt | None = None) -> FramePrediction:
        """Masks of B objects on a frame. A mask prompt is the answer itself; without a prompt memory decides."""
        if prompt is not None and prompt.mask is not None:
            return self._adopt_mask(context.features, prompt.mask)
        decoded = self._decode(context, prompt)
        num_points = 0 if prompt is None else prompt.num_points
        return self._choose(decoded, alternatives=self.masks.wants_alternatives(num_points))

    def memorize(
        self, frame: int, features: FrameFeatures, prediction: FramePrediction, from_prompt: bool = False
    ) -> FrameMemory:
        """What to remember of B objects. ``from_prompt``: the masks are a user's word and may be taken as sharp."""
        return self.memorize_all(frame, features, [prediction], from_prompt)[0]

    def memorize_all(
        self,
        frame: int,
        features: FrameFeatures,
        predictions: Sequence[FramePrediction],
        from_prompt: bool = False,
    ) -> list[FrameMemory]:
        """What to remember of several groups of objects on a frame; what they share is computed once."""
        masks = [self._mask_to_memorize(p.high_res, from_prompt).to(features.vision.dtype) for p in predictions]
        memories = self.memory_encoder(features.vision, masks)
        return [self._memory(frame, features, m, p) for m, p in zip(memories, predictions, strict=True)]

    def _mask_to_memorize(self, logits: Tensor, from_prompt: bool) -> Tensor:
        sharp = from_prompt and self.masks.binarize_mask_from_pts_for_mem_enc
        mask = (logits > 0).to(logits.dtype) if sharp else logits.sigmoid()
        return mask * self.masks.sigmoid_scale_for_mem_enc + self.masks.sigmoid_bias_for_mem_enc

    def _memory(self, frame: int, features: FrameFeatures, memory: Tensor, prediction: FramePrediction) -> FrameMemory:
        absent = (prediction.presence <= 0).to(memory.dtype)[..., None, None]
        memory = memory + absent * self.no_obj_embed_spatial[..., None, None].to(memory.dtype)
        probability = resize_logits(prediction.low_res.sigmoid(), (memory.shape[-2], memory.shape[-1]))
        return FrameMemory(
            frame=frame,
            # bfloat16 halves the bank, and is how the published model keeps its memories.
            features=memory.to(torch.bfloat16),
            foreground=probability >= FOREGROUND_THRESHOLD,
            pointer=prediction.pointer,
            appearance=features.appearance if self.selector.compares_frames else None,
        )

    def _decode(self, context: FrameContext, prompt: Prompt | None) -> DecodedMasks:
        batch = _batch_of(context, prompt)
        sparse, dense = self.sam_prompt_encoder(prompt, batch)
        if context.readout is None:
            memory_prompts = self.memory_prompt_generator.without_memory(batch)
        else:
            memory_prompts = self.memory_prompt_generator(context.readout)
        sparse = torch.cat((sparse, memory_prompts.to(sparse.dtype)), dim=1)
        return self.sam_mask_decoder(context.conditioned, self.sam_prompt_encoder.dense_position(), sparse, dense)

    def _choose(self, decoded: DecodedMasks, alternatives: bool) -> FramePrediction:
        """Pick a mask for every object: the best alternative, or the single answer unless it is unstable."""
        present = decoded.presence > 0
        gated = torch.where(present[..., None, None], decoded.logits, NO_OBJECT_LOGIT).float()
        ious = decoded.ious.float()
        best = 1 + ious[:, 1:].argmax(dim=1)
        if alternatives:
            token = _take(decoded.tokens, best)
            candidates, candidate_ious = gated[:, 1:], ious[:, 1:]
        else:
            token = decoded.tokens[:, 0]
            best = self._single_or_best(decoded.logits, best)
            candidates, candidate_ious = _take(gated, best)[:, None], _take(ious, best)[:, None]
        low_res = _take(gated, best)[:, None]
        return FramePrediction(
            candidates=candidates,
            ious=candidate_ious,
            low_res=low_res,
            high_res=resize_logits(low_res, (self.image_size, self.image_size)),
            pointer=self._pointer(token, present),
            presence=decoded.presence,
        )

    def _single_or_best(self, logits: Tensor, best: Tensor) -> Tensor:
        if not self.masks.dynamic_multimask_via_stability:
            return torch.zeros_like(best)
        steady = stability(logits[:, 0].float(), self.masks.dynamic_multimask_stability_delta)
        return torch.where(steady >= self.masks.dynamic_multimask_stability_thresh, 0, best)

    def _pointer(self, token: Tensor, present: Tensor) -> Tensor:
        """Object pointer (B,C) of a mask token; an absent object has a pointer of its own."""
        return torch.where(present, self.obj_ptr_proj(token).float(), self.no_obj_ptr.float())

    def _adopt_mask(self, features: FrameFeatures, mask: Tensor) -> FramePrediction:
        """A user's mask (B,1,S,S) as the prediction; the decoder only supplies the pointer, from bare features."""
        batch = mask.shape[0]
        mask = mask.to(features.vision.dtype)
        dense = self.sam_prompt_encoder.embed_mask(self.mask_downsample(mask))
        sparse, _ = self.sam_prompt_encoder(None, batch)
        memory_prompts = self.memory_prompt_generator.without_memory(batch)
        sparse = torch.cat((sparse, memory_prompts), dim=1)
        decoded = self.sam_mask_decoder(features.vision, self.sam_prompt_encoder.dense_position(), sparse, dense)
        seen = mask.flatten(1).gt(0).any(dim=1, keepdim=True)
        pointer = self._pointer(decoded.tokens[:, 0], (decoded.presence > 0) & seen)
        high_res = MASK_PROMPT_SCALE * mask.float() + MASK_PROMPT_BIAS
        size = (4 * features.vision.shape[-2], 4 * features.vision.shape[-1])
        low_res = F.interpolate(high_res, size=size, mode="bilinear", align_corners=False, antialias=True)
        presence = MASK_PROMPT_SCALE * seen.to(high_res.dtype) + MASK_PROMPT_BIAS
        ious = torch.ones(batch, 1, device=mask.device)
        return FramePrediction(low_res, ious, low_res, high_res, pointer, presence)

    def sharpen(self, prediction: FramePrediction) -> FramePrediction:
        """The prediction with ``high_res`` drawn from its ``low_res`` logits, as prompted frames are memorized."""
        return replace(prediction, high_res=resize_logits(prediction.low_res, (self.image_size, self.image_size)))


def _vector(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Entry ``index[b]`` of axis 1 for every sample b."""
    return x[torch.arange(x.shape[0], device=x.device), index]


def _batch_of(context: FrameContext, prompt: Prompt | None) -> int:
    if context.readout is None and prompt is not None and prompt.points is not None:
        return prompt.points.shape[0]
    return context.conditioned.shape[0]
