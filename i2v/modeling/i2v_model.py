"""I2VModel: every weight, and the computations from a window of frames to masks and memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.backbones.image_encoder import ImageEncoder
from i2v.modeling.layers import MLP
from i2v.modeling.memory.memory_attention import MemoryAttention
from i2v.modeling.memory.memory_bank import MemoryFeatures
from i2v.modeling.memory.memory_encoder import MemoryEncoder
from i2v.modeling.memory.memory_prompt_generator import MemoryPromptGenerator
from i2v.modeling.memory.readout import MemoryReadout, Selection, pad_readout, read_memories
from i2v.modeling.sam.mask_decoder import DecodedMasks, MaskDecoder, stability
from i2v.modeling.sam.prompt_encoder import PromptEncoder
from i2v.modeling.structures import (
    NO_OBJECT_LOGIT,
    FrameContext,
    FrameFeatures,
    FramePrediction,
    MaskSettings,
    Prompt,
)
from i2v.utils.masks import resize_logits

MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0  # a mask prompt as logits: -10 or 10
FOREGROUND_THRESHOLD = 0.5  # of a token's mean mask probability


class I2VModel(nn.Module):
    """The network for promptable video segmentation, frame by frame.

    It holds weights only. Which memories a frame attends to, how masks are chosen and what is kept from frame to frame
    is said by its callers, of which :class:`i2v.inference.frame_segmenter.FrameSegmenter` is the one that inference and
    training share.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        memory_attention: MemoryAttention,
        memory_encoder: MemoryEncoder,
        memory_prompt_generator: MemoryPromptGenerator,
        sam_prompt_encoder: PromptEncoder,
        sam_mask_decoder: MaskDecoder,
        image_size: int = 1024,
        num_maskmem: int = 7,
    ) -> None:
        """``image_size``: side of the square model image; ``num_maskmem``: temporal slots of memories.

        Raises ValueError for a size that is no positive multiple of 16.
        """
        super().__init__()
        if image_size % 16 or image_size <= 0:
            raise ValueError(f"image_size: expected a positive multiple of 16, got {image_size}")
        self.image_size = image_size
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
    def num_maskmem(self) -> int:
        """Temporal slots of memories."""
        return self.maskmem_tpos_enc.shape[0]

    @property
    def device(self) -> torch.device:
        return self.no_mem_embed.device

    def encode(self, windows: Tensor) -> FrameFeatures:
        """Windows (B,3,T,S,S) of normalized frames, oldest first -> features of their last frames."""
        return self.encode_frames(windows[:, :, -1], [self.stem_features(frames) for frames in windows.unbind(2)])

    def encode_frames(self, frames: Tensor, stem_features: Sequence[Tensor]) -> FrameFeatures:
        """Features of frames (B,3,S,S), given :meth:`stem_features` of the T frames of their windows, oldest first."""
        return self.image_encoder(frames.to(self.no_mem_embed.dtype), stem_features)

    def stem_features(self, frames: Tensor) -> Tensor:
        """What frames (B,3,S,S) contribute to every window that they are part of: kept, it is computed only once.

        Returns (B,K,C,h,w), see :class:`i2v.modeling.backbones.tfi.TemporalStem`.
        """
        return self.image_encoder.stem_features(frames.to(self.no_mem_embed.dtype))

    def read(self, selections: Sequence[Selection], num_slots: int | None = None) -> list[MemoryReadout]:
        """The selected memories of each object, or group of objects, as tokens.

        ``num_slots``: lay them out with room for so many memories, whatever was selected, so that shapes stand still.
        """
        position = self.memory_encoder.position
        readouts = [read_memories(s, self.maskmem_tpos_enc, position, self.obj_ptr_tpos_proj) for s in selections]
        if num_slots is None:
            return readouts
        return [pad_readout(r, s, num_slots) for r, s in zip(readouts, selections, strict=True)]

    def condition(self, features: FrameFeatures, readout: MemoryReadout | None) -> FrameContext:
        """Features conditioned on a readout of B objects, or marked as without memory."""
        if readout is not None:
            return self.condition_all(features, [readout])[0]
        return FrameContext(features, features.vision + self.no_mem_embed.reshape(1, -1, 1, 1), None)

    def condition_all(self, features: FrameFeatures, readouts: Sequence[MemoryReadout]) -> list[FrameContext]:
        """Features conditioned on each readout; what does not depend on memory is computed once."""
        conditioned = self.memory_attention(features, readouts)
        return [FrameContext(features, c, readout) for c, readout in zip(conditioned, readouts, strict=True)]

    def segment(self, context: FrameContext, prompt: Prompt | None, settings: MaskSettings) -> FramePrediction:
        """Masks of B objects on a frame. A mask prompt is the prediction itself; without a prompt memory decides."""
        if prompt is not None and prompt.mask is not None:
            return self._use_mask_as_output(context.features, prompt.mask)
        decoded = self._decode(context, prompt)
        if settings.outputs_multimask(0 if prompt is None else prompt.num_points):
            return self._best_of_multimask(decoded)
        return self._single_mask(decoded, settings)

    def memorize(
        self,
        features: FrameFeatures,
        predictions: Sequence[FramePrediction],
        settings: MaskSettings,
        from_prompt: bool = False,
    ) -> list[MemoryFeatures]:
        """Encode the masks of several groups of objects on a frame as memory; what they share is computed once.

        ``from_prompt``: the masks answer a prompt, and are thresholded where the settings say so.
        """
        masks = [_scaled_for_memory(p.high_res, settings, from_prompt).to(features.vision.dtype) for p in predictions]
        memories = self.memory_encoder(features.vision, masks)
        return [self._memory(m, p) for m, p in zip(memories, predictions, strict=True)]

    def upsample(self, prediction: FramePrediction) -> FramePrediction:
        """The prediction with ``high_res`` resized from its ``low_res`` logits, as prompted frames are memorized."""
        return replace(prediction, high_res=resize_logits(prediction.low_res, (self.image_size, self.image_size)))

    def _memory(self, memory: Tensor, prediction: FramePrediction) -> MemoryFeatures:
        absent = (prediction.object_score <= 0).to(memory.dtype)[..., None, None]
        memory = memory + absent * self.no_obj_embed_spatial[..., None, None].to(memory.dtype)
        probability = resize_logits(prediction.low_res.sigmoid(), (memory.shape[-2], memory.shape[-1]))
        # bfloat16 halves the bank, and is how the published model keeps its memories.
        return MemoryFeatures(memory.to(torch.bfloat16), probability >= FOREGROUND_THRESHOLD)

    def _decode(self, context: FrameContext, prompt: Prompt | None) -> DecodedMasks:
        batch = _batch_of(context, prompt)
        sparse, dense = self.sam_prompt_encoder(prompt, batch)
        if context.readout is None:
            memory_prompts = self.memory_prompt_generator.without_memory(batch)
        else:
            memory_prompts = self.memory_prompt_generator(context.readout)
        sparse = torch.cat((sparse, memory_prompts.to(sparse.dtype)), dim=1)
        return self.sam_mask_decoder(context.conditioned, self.sam_prompt_encoder.dense_position(), sparse, dense)

    def _best_of_multimask(self, decoded: DecodedMasks) -> FramePrediction:
        """For every object the mask with the highest predicted IoU of those that the multimask tokens give."""
        best, logits = _best_multimask(decoded), _gated(decoded)
        candidates, ious = logits[:, 1:], decoded.ious[:, 1:].float()
        return self._prediction(decoded, candidates, ious, _take(logits, best), _take(decoded.tokens, best))

    def _single_mask(self, decoded: DecodedMasks, settings: MaskSettings) -> FramePrediction:
        """The mask of the single-mask token or, where it is unstable, the best multimask one.

        The object pointer is the single-mask token's in both cases.
        """
        best = _best_multimask(decoded)
        chosen = torch.zeros_like(best)
        if settings.dynamic_multimask_via_stability:
            score = stability(decoded.logits[:, 0].float(), settings.dynamic_multimask_stability_delta)
            chosen = torch.where(score >= settings.dynamic_multimask_stability_thresh, chosen, best)
        logits, ious = _take(_gated(decoded), chosen), _take(decoded.ious.float(), chosen)
        return self._prediction(decoded, logits[:, None], ious[:, None], logits, decoded.tokens[:, 0])

    def _prediction(
        self, decoded: DecodedMasks, candidates: Tensor, ious: Tensor, chosen: Tensor, token: Tensor
    ) -> FramePrediction:
        """Candidates (B,K,4h,4w), the chosen logits (B,4h,4w) and the mask token (B,C) that the pointer is made of."""
        low_res = chosen[:, None]
        return FramePrediction(
            candidates=candidates,
            ious=ious,
            low_res=low_res,
            high_res=resize_logits(low_res, (self.image_size, self.image_size)),
            pointer=self._pointer(token, decoded.object_score > 0),
            object_score=decoded.object_score,
        )

    def _pointer(self, token: Tensor, present: Tensor) -> Tensor:
        """Object pointer (B,C) of a mask token; an absent object has a pointer of its own."""
        return torch.where(present, self.obj_ptr_proj(token).float(), self.no_obj_ptr.float())

    def _use_mask_as_output(self, features: FrameFeatures, mask: Tensor) -> FramePrediction:
        """A user's mask (B,1,S,S) as the prediction.

        The decoder only supplies the pointer, from features that were not conditioned on memory.
        """
        batch = mask.shape[0]
        mask = mask.to(features.vision.dtype)
        dense = self.sam_prompt_encoder.embed_mask(self.mask_downsample(mask))
        sparse, _ = self.sam_prompt_encoder(None, batch)
        memory_prompts = self.memory_prompt_generator.without_memory(batch)
        sparse = torch.cat((sparse, memory_prompts), dim=1)
        decoded = self.sam_mask_decoder(features.vision, self.sam_prompt_encoder.dense_position(), sparse, dense)
        seen = mask.flatten(1).gt(0).any(dim=1, keepdim=True)
        pointer = self._pointer(decoded.tokens[:, 0], (decoded.object_score > 0) & seen)
        high_res = MASK_PROMPT_SCALE * mask.float() + MASK_PROMPT_BIAS
        size = (4 * features.vision.shape[-2], 4 * features.vision.shape[-1])
        low_res = F.interpolate(high_res, size=size, mode="bilinear", align_corners=False, antialias=True)
        object_score = MASK_PROMPT_SCALE * seen.to(high_res.dtype) + MASK_PROMPT_BIAS
        ious = torch.ones(batch, 1, device=mask.device)
        return FramePrediction(low_res, ious, low_res, high_res, pointer, object_score)


def _scaled_for_memory(logits: Tensor, settings: MaskSettings, from_prompt: bool) -> Tensor:
    """Masks as the memory encoder takes them, from logits (B,1,S,S)."""
    threshold = from_prompt and settings.binarize_mask_from_pts_for_mem_enc
    mask = (logits > 0).to(logits.dtype) if threshold else logits.sigmoid()
    return mask * settings.sigmoid_scale_for_mem_enc + settings.sigmoid_bias_for_mem_enc


def _gated(decoded: DecodedMasks) -> Tensor:
    """Logits (B,1+K,4h,4w) of all mask tokens; those of absent objects are far below zero."""
    present = decoded.object_score > 0
    return torch.where(present[..., None, None], decoded.logits, NO_OBJECT_LOGIT).float()


def _best_multimask(decoded: DecodedMasks) -> Tensor:
    """Index (B,) of the multimask token with the highest predicted IoU; token 0 is the single mask's."""
    return 1 + decoded.ious[:, 1:].float().argmax(dim=1)


def _vector(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Entry ``index[b]`` of axis 1 for every sample b."""
    return x[torch.arange(x.shape[0], device=x.device), index]


def _batch_of(context: FrameContext, prompt: Prompt | None) -> int:
    if context.readout is None and prompt is not None and prompt.points is not None:
        return prompt.points.shape[0]
    return context.conditioned.shape[0]
