"""Two-way transformer of SAM's mask decoder: prompt tokens and image tokens attend to each other."""

from __future__ import annotations

from torch import Tensor, nn

from i2v.modeling.layers import MLP
from i2v.modeling.sam.attention import Attention


class TwoWayBlock(nn.Module):
    """Self-attention of tokens, attention token to image, MLP, attention image to token; post-norm throughout."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, downsample_rate: int, first: bool) -> None:
        """Create the block.

        Args:
            dim: Width ``C`` of all tokens.
            num_heads: Heads of every attention.
            mlp_dim: Hidden width of the MLP.
            downsample_rate: ``C`` over the inner width of the cross-attentions.
            first: Whether this is the first block, where tokens are still equal to their positions.
        """
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
        """Run the block.

        Args:
            tokens: Prompt tokens ``(B, P, C)``.
            image: Image tokens ``(B, N, C)``.
            token_pos: Positions of the prompt tokens ``(B, P, C)``.
            image_pos: Positions of the image tokens ``(1, N, C)``.

        Returns:
            Updated prompt tokens and image tokens.
        """
        # Positions are added to queries and keys only, never to values.
        if self.first:
            # Here tokens and positions coincide: nothing to add, and the trained block has no residual.
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            tokens_with_pos = tokens + token_pos
            tokens = tokens + self.self_attn(tokens_with_pos, tokens_with_pos, tokens)
        tokens = self.norm1(tokens)
        image_with_pos = image + image_pos
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pos, image_with_pos, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image_with_pos, tokens + token_pos, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """A stack of two-way blocks, then one more attention from tokens to image."""

    def __init__(
        self, depth: int = 2, dim: int = 256, num_heads: int = 8, mlp_dim: int = 2048, downsample_rate: int = 2
    ) -> None:
        """Create ``depth`` blocks; see ``TwoWayBlock`` for the other arguments."""
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, num_heads, mlp_dim, downsample_rate, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample_rate)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pos: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run all blocks.

        Args:
            image: Image tokens ``(B or 1, N, C)``.
            image_pos: Their positions ``(1, N, C)``.
            tokens: Prompt tokens ``(B, P, C)``.

        Returns:
            Prompt tokens ``(B, P, C)`` and image tokens ``(B, N, C)``.
        """
        # The initial tokens, which contain the positions of points, serve as positions in all blocks.
        token_pos = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pos, image_pos)
        attended = self.final_attn_token_to_image(tokens + token_pos, image + image_pos, image)
        return self.norm_final_attn(tokens + attended), image
