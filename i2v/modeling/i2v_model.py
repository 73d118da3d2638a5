"""I2VModel: all weights, and the computations from a window of frames to masks and memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.backbones.image_encoder import ImageEncoder
from i2v.modeling.constants import MASK_PROMPT_BIAS, MASK_PROMPT_SCALE
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

FOREGROUND_THRESHOLD = 0.5  # a memory token is foreground from this mean mask probability on


class I2VModel(nn.Module):
    """Network for promptable video segmentation, one frame at a time.

    The model holds weights only. Callers decide which memories a frame attends to, how masks are chosen and what is
    kept between frames; inference and training share one such caller,
    ``i2v.inference.frame_segmenter.FrameSegmenter``.
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
        """Assemble the model from its parts.

        Args:
            image_encoder: Frames to features.
            memory_attention: Conditions features on memories.
            memory_encoder: Features and masks to memories.
            memory_prompt_generator: Memories to prompt tokens.
            sam_prompt_encoder: User prompts to tokens and a dense map.
            sam_mask_decoder: Features and tokens to masks.
            image_size: Side ``S`` of the square model image in pixels, a multiple of 16.
            num_maskmem: Temporal slots of memories, the conditioning slot included.

        Raises:
            ValueError: If ``image_size`` is not a positive multiple of 16.
        """
        super().__init__()
        if image_size % 16 or image_size <= 0:
            raise ValueError(f"image_size: expected a positive multiple of 16, got {image_size}")
        self.image_size = image_size
        dim = sam_prompt_encoder.not_a_point_embed.embedding_dim
        memory_dim = memory_encoder.position.shape[1]

        self.maskmem_tpos_enc = _trunc_normal_parameter(num_maskmem, 1, 1, memory_dim)
        self.no_mem_embed = _trunc_normal_parameter(1, 1, dim)
        self.no_mem_pos_enc = _trunc_normal_parameter(1, 1, dim)  # unused, but part of published checkpoints
        self.no_obj_ptr = _trunc_normal_parameter(1, dim)
        self.no_obj_embed_spatial = _trunc_normal_parameter(1, memory_dim)
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
        """Frames ``T`` that ``encode`` needs for the features of one frame."""
        return self.image_encoder.window_length

    @property
    def num_maskmem(self) -> int:
        """Temporal slots of memories."""
        return self.maskmem_tpos_enc.shape[0]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.no_mem_embed.device

    def encode(self, windows: Tensor) -> FrameFeatures:
        """Encode the last frame of each window.

        Args:
            windows: ``(B, 3, T, S, S)`` normalized RGB frames, oldest first.

        Returns:
            Features of ``B`` frames.
        """
        return self.encode_frames(windows[:, :, -1], [self.stem_features(frames) for frames in windows.unbind(2)])

    def encode_frames(self, frames: Tensor, stem_features: Sequence[Tensor]) -> FrameFeatures:
        """Encode frames, given the stem features of their windows.

        Args:
            frames: ``(B, 3, S, S)`` normalized RGB.
            stem_features: Results of ``stem_features`` for the ``T`` frames of the windows, oldest first.

        Returns:
            Features of ``B`` frames.
        """
        return self.image_encoder(frames.to(self.no_mem_embed.dtype), stem_features)

    def stem_features(self, frames: Tensor) -> Tensor:
        """Compute the contribution of frames to every window they are part of, so that it can be cached.

        Args:
            frames: ``(B, 3, S, S)`` normalized RGB.

        Returns:
            ``(B, K, C, h, w)``, one entry per temporal position of the stem's kernel; see
            ``i2v.modeling.backbones.tfi.TemporalStem``.
        """
        return self.image_encoder.stem_features(frames.to(self.no_mem_embed.dtype))

    def read(self, selections: Sequence[Selection], num_slots: int | None = None) -> list[MemoryReadout]:
        """Lay out selected memories as tokens.

        Args:
            selections: The memories of each object, or group of objects.
            num_slots: Pad to this many memories whatever was selected, so that shapes stay constant.

        Returns:
            One readout per selection.
        """
        position = self.memory_encoder.position
        readouts = [read_memories(s, self.maskmem_tpos_enc, position, self.obj_ptr_tpos_proj) for s in selections]
        if num_slots is None:
            return readouts
        return [pad_readout(r, s, num_slots) for r, s in zip(readouts, selections, strict=True)]

    def condition(self, features: FrameFeatures, readout: MemoryReadout | None) -> FrameContext:
        """Condition features on a readout of ``B`` objects, or mark them as without memory if it is ``None``."""
        if readout is not None:
            return self.condition_all(features, [readout])[0]
        # (1, 1, C) in the checkpoint, for token layout; features are maps.
        return FrameContext(features, features.vision + self.no_mem_embed.reshape(1, -1, 1, 1), None)

    def condition_all(self, features: FrameFeatures, readouts: Sequence[MemoryReadout]) -> list[FrameContext]:
        """Condition features on each readout. What does not depend on memory is computed once."""
        conditioned = self.memory_attention(features, readouts)
        return [FrameContext(features, c, readout) for c, readout in zip(conditioned, readouts, strict=True)]

    def segment(self, context: FrameContext, prompt: Prompt | None, settings: MaskSettings) -> FramePrediction:
        """Predict masks of ``B`` objects on a frame.

        Args:
            context: The frame, conditioned on the objects' memories or without memory.
            prompt: Points or a mask; a mask is returned as the prediction. ``None``: segment from memory alone.
            settings: Which of the mask candidates is chosen.

        Returns:
            The prediction. Logits are float32.
        """
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
        """Encode the masks of several groups of objects on a frame as memories. What they share is computed once.

        Args:
            features: Features of the frame before memory attention.
            predictions: One per group; ``high_res``, ``low_res`` and ``object_score`` are used.
            settings: Scale, bias and thresholding of the masks.
            from_prompt: Whether the masks come from prompts and may be thresholded.

        Returns:
            One memory per group.
        """
        masks = [_scale_for_memory(p.high_res, settings, from_prompt).to(features.vision.dtype) for p in predictions]
        memories = self.memory_encoder(features.vision, masks)
        return [self._to_memory_features(m, p) for m, p in zip(memories, predictions, strict=True)]

    def upsample(self, prediction: FramePrediction) -> FramePrediction:
        """Replace ``high_res`` by the resized ``low_res`` logits, from which prompted frames are memorized."""
        return replace(prediction, high_res=resize_logits(prediction.low_res, (self.image_size, self.image_size)))

    def _to_memory_features(self, memory: Tensor, prediction: FramePrediction) -> MemoryFeatures:
        """Mark absent objects in a memory ``(B, M, h, w)`` and add the foreground mask."""
        # (B, 1) to (B, 1, 1, 1), so that it broadcasts over channels and pixels.
        absent = (prediction.object_score <= 0).to(memory.dtype)[..., None, None]
        memory = memory + absent * self.no_obj_embed_spatial[..., None, None].to(memory.dtype)
        # Sigmoid before resizing, as in the published model: the mean of probabilities, not of logits.
        probability = resize_logits(prediction.low_res.sigmoid(), (memory.shape[-2], memory.shape[-1]))
        # bfloat16 halves the memory bank, and the published model rounds its memories the same way.
        return MemoryFeatures(memory.to(torch.bfloat16), probability >= FOREGROUND_THRESHOLD)

    def _decode(self, context: FrameContext, prompt: Prompt | None) -> DecodedMasks:
        batch = _num_objects(context, prompt)
        sparse, dense = self.sam_prompt_encoder(prompt, batch)
        if context.readout is None:
            memory_prompts = self.memory_prompt_generator.without_memory(batch)
        else:
            memory_prompts = self.memory_prompt_generator(context.readout)
        # Memory prompts follow the user's tokens; the decoder treats both alike.
        sparse = torch.cat((sparse, memory_prompts.to(sparse.dtype)), dim=1)
        position, high_res = self.sam_prompt_encoder.dense_position(), context.features.high_res
        return self.sam_mask_decoder(context.conditioned, position, sparse, dense, high_res)

    def _best_of_multimask(self, decoded: DecodedMasks) -> FramePrediction:
        """For each object, choose the multimask output with the highest predicted IoU."""
        best, logits = _best_multimask(decoded), _mask_absent_objects(decoded)
        candidates, ious = logits[:, 1:], decoded.ious[:, 1:].float()
        chosen, token = _select_per_object(logits, best), _select_per_object(decoded.tokens, best)
        return self._make_prediction(decoded, candidates, ious, chosen, token)

    def _single_mask(self, decoded: DecodedMasks, settings: MaskSettings) -> FramePrediction:
        """Choose the single mask or, where it is unstable, the best multimask output.

        The object pointer always comes from the single-mask token.
        """
        best = _best_multimask(decoded)
        chosen = torch.zeros_like(best)
        if settings.dynamic_multimask_via_stability:
            # Stability is judged on the raw logits, before absent objects are masked out.
            score = stability(decoded.logits[:, 0].float(), settings.dynamic_multimask_stability_delta)
            chosen = torch.where(score >= settings.dynamic_multimask_stability_thresh, chosen, best)
        logits = _select_per_object(_mask_absent_objects(decoded), chosen)
        ious = _select_per_object(decoded.ious.float(), chosen)
        return self._make_prediction(decoded, logits[:, None], ious[:, None], logits, decoded.tokens[:, 0])

    def _make_prediction(
        self, decoded: DecodedMasks, candidates: Tensor, ious: Tensor, chosen: Tensor, token: Tensor
    ) -> FramePrediction:
        """Assemble a prediction.

        Args:
            decoded: Output of the mask decoder.
            candidates: ``(B, K, 4h, 4w)`` logits.
            ious: ``(B, K)`` predicted IoUs.
            chosen: ``(B, 4h, 4w)`` logits of the chosen mask.
            token: ``(B, C)`` mask token that becomes the object pointer.
        """
        low_res = chosen[:, None]
        return FramePrediction(
            candidates=candidates,
            ious=ious,
            low_res=low_res,
            high_res=resize_logits(low_res, (self.image_size, self.image_size)),
            pointer=self._object_pointer(token, decoded.object_score > 0),
            object_score=decoded.object_score,
        )

    def _object_pointer(self, token: Tensor, present: Tensor) -> Tensor:
        """Project a mask token ``(B, C)`` to an object pointer ``(B, C)``; absent objects share a learned one."""
        return torch.where(present, self.obj_ptr_proj(token).float(), self.no_obj_ptr.float())

    def _use_mask_as_output(self, features: FrameFeatures, mask: Tensor) -> FramePrediction:
        """Return a user's mask ``(B, 1, S, S)`` as the prediction.

        The decoder only supplies the object pointer, from features without memory and without ``no_mem_embed``.
        """
        batch = mask.shape[0]
        mask = mask.to(features.vision.dtype)
        dense = self.sam_prompt_encoder.embed_mask(self.mask_downsample(mask))
        sparse, _ = self.sam_prompt_encoder(None, batch)
        memory_prompts = self.memory_prompt_generator.without_memory(batch)
        sparse = torch.cat((sparse, memory_prompts), dim=1)
        position = self.sam_prompt_encoder.dense_position()
        decoded = self.sam_mask_decoder(features.vision, position, sparse, dense, features.high_res)
        # An empty mask says that the object is out of view, whatever score the decoder gives it.
        present = mask.flatten(1).gt(0).any(dim=1, keepdim=True)
        pointer = self._object_pointer(decoded.tokens[:, 0], (decoded.object_score > 0) & present)
        # Logits of +-10: confident, but within the range that a later correction accepts as its prior.
        high_res = MASK_PROMPT_SCALE * mask.float() + MASK_PROMPT_BIAS
        size = (4 * features.vision.shape[-2], 4 * features.vision.shape[-1])
        low_res = F.interpolate(high_res, size=size, mode="bilinear", align_corners=False, antialias=True)
        object_score = MASK_PROMPT_SCALE * present.to(high_res.dtype) + MASK_PROMPT_BIAS
        ious = torch.ones(batch, 1, device=mask.device)
        return FramePrediction(low_res, ious, low_res, high_res, pointer, object_score)


def _scale_for_memory(logits: Tensor, settings: MaskSettings, from_prompt: bool) -> Tensor:
    """Turn high-res logits ``(B, 1, S, S)`` into the scaled masks that the memory encoder takes."""
    threshold = from_prompt and settings.binarize_mask_from_pts_for_mem_enc
    mask = (logits > 0).to(logits.dtype) if threshold else logits.sigmoid()
    return mask * settings.sigmoid_scale_for_mem_enc + settings.sigmoid_bias_for_mem_enc


def _mask_absent_objects(decoded: DecodedMasks) -> Tensor:
    """Logits ``(B, 1+K, 4h, 4w)`` of all mask tokens in float32, ``NO_OBJECT_LOGIT`` for absent objects."""
    present = decoded.object_score > 0
    return torch.where(present[..., None, None], decoded.logits, NO_OBJECT_LOGIT).float()


def _best_multimask(decoded: DecodedMasks) -> Tensor:
    """Index ``(B,)`` of the multimask token with the highest predicted IoU."""
    # Token 0 is the single mask's, hence the slice and the offset.
    return 1 + decoded.ious[:, 1:].float().argmax(dim=1)


def _trunc_normal_parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def _select_per_object(x: Tensor, index: Tensor) -> Tensor:
    """Select entry ``index[b]`` along axis 1 for every object ``b``: ``(B, K, ...)`` to ``(B, ...)``."""
    return x[torch.arange(x.shape[0], device=x.device), index]


def _num_objects(context: FrameContext, prompt: Prompt | None) -> int:
    # Features without memory are shared by all objects (B = 1), so only the prompt knows how many there are.
    if context.readout is None and prompt is not None and prompt.points is not None:
        return prompt.points.shape[0]
    return context.conditioned.shape[0]
