"""Image features and prompts -> mask candidates with predicted quality, object score and pointer tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from i2v.modeling.layers import MLP, LayerNorm2d
from i2v.modeling.sam.transformer import TwoWayTransformer


@dataclass(frozen=True, eq=False)
class DecodedMasks:
    """All that the decoder says of a frame. Mask 0 is that of the single-mask token, the others are the multimask output."""

    logits: Tensor  # (B,K,4h,4w)
    ious: Tensor  # (B,K), 0..1
    tokens: Tensor  # (B,K,C)
    object_score: Tensor  # (B,1) logit


class MaskDecoder(nn.Module):
    """SAM's mask decoder with an object-score token and memory prompts among its tokens."""

    def __init__(
        self,
        transformer: TwoWayTransformer,
        dim: int = 256,
        num_multimask_outputs: int = 3,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
        iou_prediction_use_sigmoid: bool = True,
        pred_obj_scores_mlp: bool = True,
    ) -> None:
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
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(num_masks))
        self.iou_prediction_head = MLP(
            dim, iou_head_hidden_dim, num_masks, iou_head_depth, sigmoid=iou_prediction_use_sigmoid
        )
        self.pred_obj_score_head = MLP(dim, dim, 1, 3) if pred_obj_scores_mlp else nn.Linear(dim, 1)

    def forward(self, image: Tensor, image_pos: Tensor, sparse: Tensor, dense: Tensor) -> DecodedMasks:
        """Conditioned features (B,C,h,w), the grid's code (1,C,h,w), prompt tokens (B,P,C), dense prompt (B,C,h,w)."""
        batch, (height, width) = sparse.shape[0], image.shape[-2:]
        own = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((own.expand(batch, -1, -1), sparse), dim=1)
        tokens, pixels = self.transformer(_to_tokens(image + dense), _to_tokens(image_pos), tokens)
        mask_tokens = tokens[:, 2 : 2 + self.mask_tokens.num_embeddings]

        pixels = pixels.transpose(1, 2).unflatten(-1, (height, width))
        upscaled = self.output_upscaling(pixels)
        kernels = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = (kernels @ upscaled.flatten(2)).unflatten(-1, upscaled.shape[-2:])
        return DecodedMasks(
            logits=logits,
            ious=self.iou_prediction_head(tokens[:, 1]),
            tokens=mask_tokens,
            object_score=self.pred_obj_score_head(tokens[:, 0]),
        )


def stability(logits: Tensor, delta: float) -> Tensor:
    """How little a mask changes with its threshold: pixels above ``delta`` over pixels above ``-delta``; 1 if none.

    Logits (...,H,W) -> (...).
    """
    inner = (logits > delta).flatten(-2).sum(-1).float()
    outer = (logits > -delta).flatten(-2).sum(-1).float()
    return torch.where(outer > 0, inner / outer, torch.ones_like(outer))


def _to_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)
