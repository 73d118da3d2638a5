"""SAM's prompt encoder: points and boxes to sparse tokens, mask logits to a dense map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.layers import LayerNorm2d
from i2v.modeling.position_encoding import RandomFourierEncoding
from i2v.modeling.structures import PADDING, Prompt

NUM_POINT_LABELS = 4  # background, object, and the two box corners


class PromptEncoder(nn.Module):
    """Encodes prompts. A point is its positional encoding plus a label embedding; a box is two labelled points."""

    def __init__(self, image_size: int, grid: int, embed_dim: int = 256, mask_in_chans: int = 16) -> None:
        """Create the embeddings.

        Args:
            image_size: Side ``S`` of the model image in pixels.
            grid: Side ``h = w`` of the feature map.
            embed_dim: Width ``C`` of tokens and dense prompt.
            mask_in_chans: Channels of the mask before its last convolution.
        """
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
        """Positional encoding of the feature grid ``(1, C, h, w)``."""
        return self.pe_layer.grid(self.grid, self.grid)

    def forward(self, prompt: Prompt | None, batch: int) -> tuple[Tensor, Tensor]:
        """Encode the points and the prior mask of a prompt.

        Args:
            prompt: The prompt, or ``None``.
            batch: Number of objects ``B``.

        Returns:
            Sparse tokens ``(B, P+1, C)``, of which the last is padding (two padding tokens if there are no points), and
            the dense prompt ``(B, C, h, w)``.
        """
        prior = None if prompt is None else prompt.prior
        points = None if prompt is None else prompt.points
        if prompt is None or points is None or prompt.labels is None:
            # The published model pads a dummy padding point, hence two equal tokens.
            sparse = self.not_a_point_embed.weight.expand(batch, 2, -1)
        else:
            sparse = self._embed_points(points, prompt.labels)
        if prior is None:
            dense = self.no_mask_embed.weight[:, :, None, None].expand(batch, -1, self.grid, self.grid)
        else:
            dense = self.embed_mask(prior)
        return sparse, dense

    def embed_mask(self, prior: Tensor) -> Tensor:
        """Encode low-res logits or a mask as a dense prompt.

        Args:
            prior: ``(B, 1, H, W)``; resized to ``(4h, 4w)`` if it has another size.

        Returns:
            ``(B, C, h, w)``.
        """
        size = (4 * self.grid, 4 * self.grid)
        if prior.shape[-2:] != size:
            prior = F.interpolate(prior, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.mask_downscaling(prior.to(self.no_mask_embed.weight.dtype))

    def _embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """Encode points ``(B, P, 2)`` in model pixels with labels ``(B, P)`` as tokens ``(B, P+1, C)``."""
        # +0.5 moves integer coordinates to pixel centres. A padding point always follows: the weights were trained so.
        points = F.pad(points + 0.5, (0, 0, 0, 1))
        labels = F.pad(labels, (0, 1), value=PADDING)
        position = self.pe_layer((points / self.image_size).to(self.no_mask_embed.weight.dtype))
        label_embeddings = torch.cat(list(self.point_embeddings.parameters()))
        embedded = position + label_embeddings[labels.clamp(min=0).long()].to(position.dtype)
        # A padding point has no position: its token is the embedding alone.
        return torch.where((labels == PADDING)[..., None], self.not_a_point_embed.weight.to(position.dtype), embedded)
