"""The parts of a model as modules of tensors alone, which is what exporters take.

Each part computes what ``I2VModel`` computes, by calling its modules. What the model leaves to Python, such as the
choice between mask candidates, is computed on tensors here, so that a loop around the parts stays small. ``B``, ``L``
and ``P`` are dynamic: objects, memories, points. All other sizes are those of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from i2v.modeling.constants import IMAGE_MEAN, IMAGE_STD, NO_OBJECT_LOGIT, PADDING
from i2v.modeling.i2v_model import FOREGROUND_THRESHOLD, I2VModel
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.position_encoding import sine_encoding_1d
from i2v.modeling.sam.mask_decoder import stability
from i2v.modeling.sam.prompt_encoder import draw_point_maps
from i2v.modeling.structures import FrameFeatures, MaskSettings, Prompt
from i2v.utils.masks import resize_logits

OBJECTS, MEMORIES, POINTS = "objects", "memories", "points"  # names of the dynamic axes


@dataclass(frozen=True, eq=False)
class PartSpec:
    """What an exporter needs to know of a part.

    Attributes:
        name: Name of the part.
        module: The part.
        inputs: Example inputs by name, in the order of the arguments.
        outputs: Names of the outputs.
        dynamic: Dynamic axes of the inputs that have any: axis to name.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]]


class StemPart(nn.Module):
    """A frame's contribution to the windows that it is part of."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: I2VModel) -> None:
        super().__init__()
        self.image_encoder = model.image_encoder
        self.register_buffer("pixel_mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(IMAGE_STD).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map RGB ``(1, 3, S, S)`` uint8 to stem features ``(1, K, D, h, w)``."""
        return self.image_encoder.stem_features(self.normalize(pixels))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalize RGB ``(1, 3, S, S)`` uint8; same shape, float32."""
        return (pixels.float() / 255 - self.pixel_mean) / self.pixel_std


class ImageEncoderPart(StemPart):
    """Image trunk and TFI: a frame with the stem features of its window to features."""

    def forward(self, pixels: Tensor, window: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Encode a frame.

        Args:
            pixels: RGB ``(1, 3, S, S)`` uint8.
            window: Stem features ``(T, K, D, h, w)`` of the window's frames, oldest first.

        Returns:
            Features ``(1, C, h, w)``, the frame embedding ``(C*h*w,)`` and, if the mask decoder uses them, the maps at
            strides 4 and 8.
        """
        features = self.image_encoder(self.normalize(pixels), window.split(1))
        return (features.vision, features.frame_embedding, *features.high_res)


class MemoryAttentionPart(nn.Module):
    """Memory attention and memory prompt generator, on memories of one length for all objects.

    A memory, or a pointer, counts as often as its count says: 0 for padding, so that short and long memories have the
    same shape. Each object needs at least one memory and one pointer that count.
    """

    def __init__(self, model: I2VModel) -> None:
        super().__init__()
        self.memory_attention = model.memory_attention
        self.memory_prompt_generator = model.memory_prompt_generator
        self.obj_ptr_tpos_proj = model.obj_ptr_tpos_proj
        self.slot_encoding = model.maskmem_tpos_enc
        self.register_buffer("frame_position", model.image_encoder.position)
        self.register_buffer("memory_position", model.memory_encoder.position)

    frame_position: Tensor
    memory_position: Tensor

    def forward(
        self,
        vision: Tensor,
        memories: Tensor,
        foreground: Tensor,
        slots: Tensor,
        memory_counts: Tensor,
        pointers: Tensor,
        distances: Tensor,
        pointer_counts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Condition a frame on the memories of ``B`` objects.

        Args:
            vision: Features of the frame ``(1, C, h, w)``.
            memories: ``(B, L, M, h, w)``.
            foreground: ``(B, L, h, w)`` bool, true where the mask is.
            slots: Temporal slots ``(B, L)`` int64.
            memory_counts: ``(B, L)`` float32.
            pointers: Object pointers ``(B, L, C)``.
            distances: Their normalized temporal distances ``(B, L)``.
            pointer_counts: ``(B, L)`` float32.

        Returns:
            Conditioned features ``(B, C, h, w)`` and prompt tokens ``(B, Q, C)`` for the mask decoder.
        """
        batch, length, width, height, columns = memories.shape
        cells, parts = height * columns, pointers.shape[2] // width
        position = self.memory_position.flatten(2).transpose(1, 2)
        slot_encoding = self.slot_encoding[len(self.slot_encoding) - 1 - slots, 0]  # (B, L, 1, M)
        pointer_position = self.obj_ptr_tpos_proj(sine_encoding_1d(distances.flatten(), pointers.shape[2]))
        pointer_position = _repeat(pointer_position.view(batch, length, width), parts)
        in_mask = foreground.flatten(1)
        readout = MemoryReadout(
            tokens=torch.cat(
                (memories.flatten(3).transpose(2, 3).flatten(1, 2), pointers.reshape(batch, length * parts, width)), 1
            ),
            position=torch.cat(((position + slot_encoding).flatten(1, 2), pointer_position), 1),
            foreground=torch.cat((in_mask, in_mask.new_ones(batch, length * parts)), 1),
            num_pointer_tokens=length * parts,
            # Counts of each object, where the model has one row for all.
            counts=torch.cat((_repeat(memory_counts, cells), _repeat(pointer_counts, parts)), dim=1),
        )
        (conditioned,) = self.memory_attention(FrameFeatures(vision, self.frame_position), [readout])
        return conditioned, self.memory_prompt_generator(readout)


class MaskDecoderPart(nn.Module):
    """Prompt encoder, mask decoder, and the choice of one mask."""

    def __init__(self, model: I2VModel, settings: MaskSettings) -> None:
        super().__init__()
        self.prompt_encoder = model.sam_prompt_encoder
        self.mask_decoder = model.sam_mask_decoder
        self.obj_ptr_proj = model.obj_ptr_proj
        self.no_obj_ptr = model.no_obj_ptr
        self.settings = settings

    def forward(
        self,
        image: Tensor,
        memory_prompts: Tensor,
        points: Tensor,
        labels: Tensor,
        prior: Tensor,
        has_prior: Tensor,
        multimask: Tensor,
        high_res_4: Tensor | None = None,
        high_res_8: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Segment ``B`` objects on a frame.

        Args:
            image: Conditioned features ``(B, C, h, w)``.
            memory_prompts: ``(B, Q, C)``.
            points: ``(B, P, 2)``, x first, in pixels of the model image; at least one, which may be padding.
            labels: ``(B, P)`` int64; see ``Prompt``.
            prior: Logits ``(B, 1, 4h, 4w)`` of an earlier mask.
            has_prior: ``(B,)`` bool, whether to read it.
            multimask: ``(B,)`` bool, whether to choose among the masks for ambiguous prompts.
            high_res_4: The image encoder's map at stride 4, if the decoder uses it.
            high_res_8: The same at stride 8.

        Returns:
            Logits ``(B, 1, 4h, 4w)`` of the chosen mask, ``NO_OBJECT_LOGIT`` for absent objects; its predicted IoU
            ``(B, 1)``; the object pointer ``(B, C)``; the object score ``(B, 1)``.
        """
        encoder, batch = self.prompt_encoder, image.shape[0]
        high_res = [x for x in (high_res_4, high_res_8) if x is not None]
        sparse, _ = encoder(Prompt.click(points, labels), batch)
        without_prior = encoder.no_mask_embed.weight[:, :, None, None]
        dense = torch.where(_as_map(has_prior), encoder.embed_mask(prior), without_prior)
        if encoder.point_map_downscaling is not None:
            maps = encoder.point_map_downscaling(draw_point_maps(points / encoder.image_size, labels, 4 * encoder.grid))
            has_points = (labels != PADDING).any(dim=1)
            dense = torch.where(_as_map(has_points), dense + maps, dense)
        tokens = torch.cat((sparse, memory_prompts), dim=1)
        decoded = self.mask_decoder(image, encoder.dense_position(), tokens, dense, high_res)
        best = 1 + decoded.ious[:, 1:].argmax(dim=1)
        chosen = torch.where(multimask, best, self._single(decoded.logits[:, 0], best))
        pointer = self.obj_ptr_proj(_select(decoded.tokens, torch.where(multimask, best, 0)))
        present = decoded.object_score > 0
        # Absent objects are marked after the choice: stability is judged on the raw logits.
        low_res = torch.where(_as_map(present[:, 0]), _select(decoded.logits, chosen)[:, None], NO_OBJECT_LOGIT)
        iou = _select(decoded.ious, chosen)[:, None]
        return low_res, iou, torch.where(present, pointer, self.no_obj_ptr), decoded.object_score

    def _single(self, logits: Tensor, best: Tensor) -> Tensor:
        """Index ``(B,)`` of the single mask ``(B, 4h, 4w)`` or, where it is unstable, of the best of the others."""
        if not self.settings.dynamic_multimask_via_stability:
            return torch.zeros_like(best)
        score = stability(logits, self.settings.dynamic_multimask_stability_delta)
        return torch.where(score >= self.settings.dynamic_multimask_stability_thresh, 0, best)


class MemoryEncoderPart(nn.Module):
    """Memory encoder: features and masks to memories."""

    def __init__(self, model: I2VModel, settings: MaskSettings) -> None:
        super().__init__()
        self.memory_encoder = model.memory_encoder
        self.no_obj_embed_spatial = model.no_obj_embed_spatial
        self.size = (model.image_size, model.image_size)
        self.settings = settings

    def forward(
        self, vision: Tensor, masks: Tensor, filled: Tensor, object_score: Tensor, from_prompt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode the memories of ``B`` objects on a frame.

        Args:
            vision: Features of the frame ``(1, C, h, w)``, before memory attention.
            masks: Low-res logits ``(B, 1, 4h, 4w)``.
            filled: The same, with small holes filled, for the foreground.
            object_score: ``(B, 1)``.
            from_prompt: ``(B,)`` bool, whether the masks come from prompts and may be thresholded.

        Returns:
            Memories ``(B, M, h, w)``, rounded to bfloat16 as the model's, and their foreground ``(B, h, w)`` bool.
        """
        settings, high_res = self.settings, resize_logits(masks, self.size)
        probability = high_res.sigmoid()
        if settings.binarize_mask_from_pts_for_mem_enc:
            probability = torch.where(_as_map(from_prompt), (high_res > 0).to(probability.dtype), probability)
        scaled = probability * settings.sigmoid_scale_for_mem_enc + settings.sigmoid_bias_for_mem_enc
        (memory,) = self.memory_encoder(vision, [scaled])
        absent = (object_score <= 0).to(memory.dtype)[..., None, None]
        memory = memory + absent * self.no_obj_embed_spatial[..., None, None]
        mean = resize_logits(filled.sigmoid(), (memory.shape[-2], memory.shape[-1]))
        return memory.to(torch.bfloat16).float(), mean[:, 0] >= FOREGROUND_THRESHOLD


def split_model(model: I2VModel, settings: MaskSettings) -> list[PartSpec]:
    """Split a model into parts.

    Args:
        model: The network, in eval mode and float32, with the reference backend.
        settings: How masks are chosen and encoded as memory.

    Returns:
        The parts, in the order in which a frame passes through them.
    """
    size, grid, length = model.image_size, model.image_size // 16, model.num_maskmem
    width, memory_width = model.no_mem_embed.shape[-1], model.no_obj_embed_spatial.shape[-1]
    num_queries = model.memory_prompt_generator.query_embedding_fg.num_embeddings
    stem = StemPart(model)
    pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    window = stem(pixels).expand(model.window_length, -1, -1, -1, -1).contiguous()
    vision, _, *high_res = ImageEncoderPart(model)(pixels, window)
    batch = 2  # more than one, so that an exporter does not take it for a constant; likewise the points below
    image, low_res = vision.expand(batch, -1, -1, -1).contiguous(), torch.zeros(batch, 1, 4 * grid, 4 * grid)
    flags, once = torch.ones(batch, dtype=torch.bool), torch.ones(batch, length)
    names = ("high_res_4", "high_res_8")[: len(high_res)]
    memories = {
        "vision": vision,
        "memories": torch.zeros(batch, length, memory_width, grid, grid),
        "foreground": torch.ones(batch, length, grid, grid, dtype=torch.bool),
        "slots": torch.zeros(batch, length, dtype=torch.int64),
        "memory_counts": once,
        "pointers": torch.zeros(batch, length, width),
        "distances": once,
        "pointer_counts": once,
    }
    prompts = {
        "image": image,
        "memory_prompts": torch.zeros(batch, num_queries, width),
        "points": torch.zeros(batch, 3, 2),
        "labels": torch.ones(batch, 3, dtype=torch.int64),
        "prior": low_res,
        "has_prior": flags,
        "multimask": flags,
        **dict(zip(names, high_res, strict=True)),
    }
    masks = {
        "vision": vision,
        "masks": low_res,
        "filled": low_res,
        "object_score": torch.ones(batch, 1),
        "from_prompt": flags,
    }
    # Tensors of their own: an exporter takes an input that is given twice for one.
    memories, prompts, masks = ({k: x.clone() for k, x in inputs.items()} for inputs in (memories, prompts, masks))
    per_object, per_memory = {0: OBJECTS}, {0: OBJECTS, 1: MEMORIES}
    dynamic_prompts = {name: per_object for name in prompts if name not in names}
    dynamic_prompts |= {name: {0: OBJECTS, 1: POINTS} for name in ("points", "labels")}
    return [
        PartSpec("stem", stem, {"pixels": pixels}, ("stem",), {}),
        PartSpec(
            "image_encoder",
            ImageEncoderPart(model),
            {"pixels": pixels, "window": window},
            ("vision", "frame_embedding", *names),
            {},
        ),
        PartSpec(
            "memory_attention",
            MemoryAttentionPart(model),
            memories,
            ("conditioned", "memory_prompts"),
            {name: per_memory for name in memories if name != "vision"},
        ),
        PartSpec(
            "mask_decoder",
            MaskDecoderPart(model, settings),
            prompts,
            ("low_res", "iou", "pointer", "object_score"),
            dynamic_prompts,
        ),
        PartSpec(
            "memory_encoder",
            MemoryEncoderPart(model, settings),
            masks,
            ("memory", "foreground"),
            {name: per_object for name in masks if name != "vision"},
        ),
    ]


def _as_map(flags: Tensor) -> Tensor:
    """Flags ``(B,)`` as ``(B, 1, 1, 1)``."""
    return flags[:, None, None, None]


def _select(x: Tensor, index: Tensor) -> Tensor:
    """Entry ``index[b]`` along axis 1 for every object ``b``: ``(B, K, ...)`` to ``(B, ...)``."""
    return x[torch.arange(x.shape[0], device=x.device), index]


def _repeat(values: Tensor, times: int) -> Tensor:
    """Values ``(B, L, ...)`` of memories or pointers as values of their tokens ``(B, L*times, ...)``."""
    return values.repeat_interleave(times, dim=1)
