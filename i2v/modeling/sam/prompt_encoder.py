"""SAM's prompt encoder: points and boxes to sparse tokens, mask logits to a dense map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.layers import LayerNorm2d, zero_conv
from i2v.modeling.position_encoding import RandomFourierEncoding
from i2v.modeling.structures import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, OBJECT, PADDING, Prompt

NUM_POINT_LABELS = 4  # background, object, and the two box corners
POINT_MAP_SIGMA = 1.5  # of the Gaussian around a point in a point map, in cells of a quarter of the grid's


class PromptEncoder(nn.Module):
    """Encodes prompts. A point is its positional encoding plus a label embedding; a box is two labelled points."""

    def __init__(
        self, image_size: int, grid: int, embed_dim: int = 256, mask_in_chans: int = 16, point_maps: bool = False
    ) -> None:
        """Create the embeddings.

        Args:
            image_size: Side ``S`` of the model image in pixels.
            grid: Side ``h = w`` of the feature map.
            embed_dim: Width ``C`` of tokens and dense prompt.
            mask_in_chans: Channels of the mask before its last convolution.
            point_maps: Whether points and boxes are drawn as maps as well and added to the dense prompt. This is not
                part of SAM: tokens alone take much longer to learn where their point is. The last convolution starts
                at zero, so that maps can be added to a trained encoder.
        """
        super().__init__()
        self.image_size = image_size
        self.grid = grid
        self.pe_layer = RandomFourierEncoding(embed_dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(NUM_POINT_LABELS))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(*_downscaling(1, mask_in_chans), nn.Conv2d(mask_in_chans, embed_dim, 1))
        hidden = 2 * mask_in_chans
        self.point_map_downscaling = (
            nn.Sequential(*_downscaling(3, hidden), zero_conv(hidden, embed_dim)) if point_maps else None
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
        if prior is None:
            dense = self.no_mask_embed.weight[:, :, None, None].expand(batch, -1, self.grid, self.grid)
        else:
            dense = self.embed_mask(prior)
        if prompt is None or prompt.points is None or prompt.labels is None:
            # The published model pads a dummy padding point, hence two equal tokens.
            return self.not_a_point_embed.weight.expand(batch, 2, -1), dense
        if self.point_map_downscaling is not None:
            maps = draw_point_maps(prompt.points / self.image_size, prompt.labels, 4 * self.grid)
            dense = dense + self.point_map_downscaling(maps.to(dense.dtype))
        return self._embed_points(prompt.points, prompt.labels), dense

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


def draw_point_maps(points: Tensor, labels: Tensor, side: int) -> Tensor:
    """Draw points and boxes as maps.

    Args:
        points: ``(B, P, 2)``, x first, 0 to 1 over the image.
        labels: ``(B, P)`` point labels, at most one box per object.
        side: Side ``s`` of the maps.

    Returns:
        ``(B, 3, s, s)`` in 0 to 1: a Gaussian around each foreground point, the same for background points, and how
        much of each cell lies in the box.
    """
    cells = torch.arange(side, device=points.device, dtype=points.dtype)
    distance = (points * side)[..., None] - (cells + 0.5)  # (B, P, 2, s): from cell centres, along x and y
    x, y = torch.exp(-0.5 * (distance / POINT_MAP_SIGMA) ** 2).unbind(2)
    gaussians = y[..., :, None] * x[..., None, :]  # (B, P, s, s)
    clicks = [
        torch.where((labels == label)[..., None, None], gaussians, 0.0).amax(dim=1) for label in (OBJECT, BACKGROUND)
    ]
    # A corner is the sum over points, as all others count zero; without a box both are at 0 and no cell is covered.
    first, last = ((points * (labels == label)[..., None]).sum(1) * side for label in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT))
    covered = torch.minimum(last[..., None], cells + 1) - torch.maximum(first[..., None], cells)
    covered_x, covered_y = covered.clamp(0, 1).unbind(1)  # (B, s) each
    return torch.stack((*clicks, covered_y[:, :, None] * covered_x[:, None, :]), dim=1)


def _downscaling(in_dim: int, out_dim: int) -> list[nn.Module]:
    """Layers from ``(B, in_dim, 4h, 4w)`` to ``(B, out_dim, h, w)``."""
    return [
        nn.Conv2d(in_dim, out_dim // 4, 2, stride=2),
        LayerNorm2d(out_dim // 4),
        nn.GELU(),
        nn.Conv2d(out_dim // 4, out_dim, 2, stride=2),
        LayerNorm2d(out_dim),
        nn.GELU(),
    ]
