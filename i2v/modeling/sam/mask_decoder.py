"""Mask decoder: image features and prompt tokens to mask candidates, predicted IoUs and object score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from i2v.modeling.layers import MLP, LayerNorm2d, zero_conv
from i2v.modeling.sam.transformer import TwoWayTransformer


@dataclass(frozen=True, eq=False)
class DecodedMasks:
    """Raw output of the mask decoder. Mask 0 belongs to the single-mask token, the others are the multimask output.

    Attributes:
        logits: ``(B, K, 4h, 4w)`` mask logits.
        ious: ``(B, K)`` predicted IoUs, 0 to 1 with the sigmoid head.
        tokens: ``(B, K, C)`` mask tokens, from which object pointers are made.
        object_score: ``(B, 1)`` logit, positive where the object is in view.
    """

    logits: Tensor
    ious: Tensor
    tokens: Tensor
    object_score: Tensor


class MaskDecoder(nn.Module):
    """SAM's mask decoder, with an object-score token and memory prompts among its tokens."""

    def __init__(
        self,
        transformer: TwoWayTransformer,
        dim: int = 256,
        num_multimask_outputs: int = 3,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
        iou_prediction_use_sigmoid: bool = True,
        pred_obj_scores_mlp: bool = True,
        high_res_dims: Sequence[int] = (),
    ) -> None:
        """Create the tokens, the upscaling and the heads.

        Args:
            transformer: Two-way transformer of width ``dim``.
            dim: Width ``C`` of tokens and features.
            num_multimask_outputs: Masks for ambiguous prompts, besides the single mask.
            iou_head_depth: Linear layers of the IoU head.
            iou_head_hidden_dim: Width of its hidden layers.
            iou_prediction_use_sigmoid: Whether the IoU head ends with a sigmoid.
            pred_obj_scores_mlp: Whether the object-score head is an MLP, not one linear layer.
            high_res_dims: Channels of the high-res features at strides 4 and 8 that are added while upscaling, as in
                SAM 2; empty: none are used. Their projections start at zero, so that they can be added to a trained
                decoder.

        Raises:
            ValueError: If ``high_res_dims`` has neither 0 nor 2 entries.
        """
        super().__init__()
        num_masks = num_multimask_outputs + 1
        self.transformer = transformer
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(num_masks, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        if len(high_res_dims) not in (0, 2):
            raise ValueError(f"high_res_dims: expected channels at strides 4 and 8, got {list(high_res_dims)}")
        self.high_res_projections = nn.ModuleList(
            zero_conv(in_dim, out_dim) for in_dim, out_dim in zip(high_res_dims, (dim // 8, dim // 4), strict=False)
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(num_masks))
        self.iou_prediction_head = MLP(
            dim, iou_head_hidden_dim, num_masks, iou_head_depth, sigmoid=iou_prediction_use_sigmoid
        )
        self.pred_obj_score_head = MLP(dim, dim, 1, 3) if pred_obj_scores_mlp else nn.Linear(dim, 1)

    def forward(
        self, image: Tensor, image_pos: Tensor, sparse: Tensor, dense: Tensor, high_res: Sequence[Tensor] = ()
    ) -> DecodedMasks:
        """Decode masks.

        Args:
            image: Conditioned features ``(B or 1, C, h, w)``.
            image_pos: Positional encoding of the grid ``(1, C, h, w)``.
            sparse: Prompt tokens ``(B, P, C)``.
            dense: Dense prompt ``(B, C, h, w)``.
            high_res: Features ``(B or 1, C_0, 4h, 4w)`` and ``(B or 1, C_1, 2h, 2w)`` if the decoder uses them.

        Returns:
            ``K`` mask candidates for each of ``B`` objects.
        """
        batch, (height, width) = sparse.shape[0], image.shape[-2:]
        # Token order is fixed by the checkpoint: object score, IoU, masks, then the prompts.
        output_tokens = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((output_tokens.expand(batch, -1, -1), sparse), dim=1)
        tokens, pixels = self.transformer(_to_tokens(image + dense), _to_tokens(image_pos), tokens)
        mask_tokens = tokens[:, 2 : 2 + self.mask_tokens.num_embeddings]

        pixels = pixels.transpose(1, 2).unflatten(-1, (height, width))
        upscaled = self._upscale(pixels, high_res)
        # Each mask token predicts a 1x1 kernel (C/8,); its product with the upscaled map (C/8, 4h*4w) is the mask.
        kernels = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = (kernels @ upscaled.flatten(2)).unflatten(-1, upscaled.shape[-2:])
        return DecodedMasks(
            logits=logits,
            ious=self.iou_prediction_head(tokens[:, 1]),
            tokens=mask_tokens,
            object_score=self.pred_obj_score_head(tokens[:, 0]),
        )

    def _upscale(self, pixels: Tensor, high_res: Sequence[Tensor]) -> Tensor:
        """Upscale ``(B, C, h, w)`` to ``(B, C/8, 4h, 4w)``."""
        if not self.high_res_projections:
            return self.output_upscaling(pixels)
        to_stride_8, norm, gelu, to_stride_4, last_gelu = self.output_upscaling
        at_stride_4, at_stride_8 = (project(x) for project, x in zip(self.high_res_projections, high_res, strict=True))
        x = gelu(norm(to_stride_8(pixels) + at_stride_8))
        return last_gelu(to_stride_4(x) + at_stride_4)


def stability(logits: Tensor, delta: float) -> Tensor:
    """Stability score of masks: the IoU of the masks thresholded at ``delta`` and at ``-delta``.

    Args:
        logits: ``(..., H, W)``.
        delta: Offset of the threshold, positive.

    Returns:
        ``(...)`` float32, 0 to 1; 1 where no logit exceeds ``-delta``.
    """
    # The stricter mask lies inside the looser one, so the IoU is a ratio of areas.
    inner = (logits > delta).flatten(-2).sum(-1).float()
    outer = (logits > -delta).flatten(-2).sum(-1).float()
    return torch.where(outer > 0, inner / outer, torch.ones_like(outer))


def _to_tokens(x: Tensor) -> Tensor:
    """``(B, C, h, w)`` to ``(B, h*w, C)``, row-major."""
    return x.flatten(2).transpose(1, 2)
