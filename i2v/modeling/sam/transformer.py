"""Two-way transformer: prompt tokens and image tokens attend to each other (SAM's mask decoder)."""

from __future__ import annotations

from torch import Tensor, nn

from i2v.modeling.layers import MLP
from i2v.modeling.sam.attention import Attention


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to image, MLP, image to tokens; a layer norm after each."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, downsample_rate: int, first: bool) -> None:
        """``first``: the block sees the tokens before anything was added to them, so position and content coincide."""
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample_rate)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, mlp_dim, dim, num_layers=2)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample_rate)
        self.first = first

    def forward(self, tokens: Tensor, image: Tensor, token_pos: Tensor, image_pos: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_pos
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed_image = image + image_pos
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pos, placed_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(placed_image, tokens + token_pos, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """A stack of two-way blocks and a last look of the tokens at the image."""

    def __init__(
        self, depth: int = 2, dim: int = 256, num_heads: int = 8, mlp_dim: int = 2048, downsample_rate: int = 2
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, num_heads, mlp_dim, downsample_rate, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample_rate)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pos: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens (B,N,C), their positions (1,N,C) and prompt tokens (B,P,C) -> tokens and image tokens."""
        token_pos = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pos, image_pos)
        attended = self.final_attn_token_to_image(tokens + token_pos, image + image_pos, image)
        return self.norm_final_attn(tokens + attended), image
