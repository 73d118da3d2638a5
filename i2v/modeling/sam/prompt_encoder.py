"""Clicks, boxes and masks -> sparse tokens and a dense map (SAM's prompt encoder)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.layers import LayerNorm2d
from i2v.modeling.position_encoding import RandomFourierEncoding
from i2v.modeling.structures import PADDING, Prompt

NUM_POINT_LABELS = 4


class PromptEncoder(nn.Module):
    """A point is the code of its place plus an embedding of its label; a box is two points with labels of their own."""

    def __init__(self, image_size: int, grid: int, embed_dim: int = 256, mask_in_chans: int = 16) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = grid
        self.pe_layer = RandomFourierEncoding(embed_dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(NUM_POINT_LABELS))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, 2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, 2, stride=2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, embed_dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def dense_position(self) -> Tensor:
        """Code of the feature grid (1,C,h,w)."""
        return self.pe_layer.grid(self.grid, self.grid)

    def forward(self, prompt: Prompt | None, batch: int) -> tuple[Tensor, Tensor]:
        """A prompt, or none -> sparse (B,P+1,C) and dense (B,C,h,w); without points there are two padding tokens."""
        prior = None if prompt is None else prompt.prior
        points = None if prompt is None else prompt.points
        if prompt is None or points is None or prompt.labels is None:
            sparse = self.not_a_point_embed.weight.expand(batch, 2, -1)
        else:
            sparse = self._embed_points(points, prompt.labels)
        if prior is None:
            dense = self.no_mask_embed.weight[:, :, None, None].expand(batch, -1, self.grid, self.grid)
        else:
            dense = self.embed_mask(prior)
        return sparse, dense

    def embed_mask(self, prior: Tensor) -> Tensor:
        """Logits or a mask (B,1,.,.) -> dense prompt (B,C,h,w); another size than (4h,4w) is resized first."""
        size = (4 * self.grid, 4 * self.grid)
        if prior.shape[-2:] != size:
            prior = F.interpolate(prior, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.mask_downscaling(prior.to(self.no_mask_embed.weight.dtype))

    def _embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        # A padding point always follows the user's: the weights were trained with it.
        points = F.pad(points + 0.5, (0, 0, 0, 1))
        labels = F.pad(labels, (0, 1), value=PADDING)
        code = self.pe_layer((points / self.image_size).to(self.no_mask_embed.weight.dtype))
        table = torch.cat(list(self.point_embeddings.parameters()))
        placed = code + table[labels.clamp(min=0).long()].to(code.dtype)
        # Padding has no place: its token is the embedding alone.
        return torch.where((labels == PADDING)[..., None], self.not_a_point_embed.weight.to(code.dtype), placed)
