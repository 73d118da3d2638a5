"""Memory prompt generator: learned queries turn memories into prompts for the mask decoder (paper section 3.4)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.memory.memory_cross_attention import MemoryCrossAttention
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.sam.attention import RoPEAttention


class MemoryPromptGenerator(nn.Module):
    """Learned queries attend to the foreground of the memories, then to each other."""

    def __init__(
        self,
        self_attention: RoPEAttention,
        cross_attention: MemoryCrossAttention,
        embed_dim: int = 256,
        num_queries: int = 3,
        dropout: float = 0.1,
    ) -> None:
        """Create the generator.

        Args:
            self_attention: Attention among the queries.
            cross_attention: Attention to memories.
            embed_dim: Width ``C`` of the queries.
            num_queries: Number ``Q`` of queries.
            dropout: Rate on every residual branch and inside the MLP, in training.

        Raises:
            ValueError: If the query grid of an attention does not have ``num_queries`` positions.
        """
        super().__init__()
        for name, attention in (("self_attention", self_attention), ("cross_attention", cross_attention)):
            grid = attention.rotate_queries
            if grid.num_positions != num_queries:
                raise ValueError(f"{name}: expected a query grid of {num_queries} positions, got {grid.grid}")
        self.self_attn = self_attention
        self.cross_attn = cross_attention
        self.no_memory_prompt_embeddings_fg = nn.Embedding(1, embed_dim)
        self.query_embedding_fg = nn.Embedding(num_queries, embed_dim)
        self.norm_fg_sa = nn.LayerNorm(embed_dim)
        self.norm_fg_ca = nn.LayerNorm(embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.linear1 = nn.Linear(embed_dim, embed_dim)
        self.linear2 = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, readout: MemoryReadout) -> Tensor:
        """Generate prompt tokens ``(B, Q, C)`` from the memories of ``B`` objects."""
        # Pre-norm on all branches. The queries are learned, so they are the same for every object; pointer tokens count
        # as foreground, so no query is ever without keys, even if the object is absent from all memories.
        queries = self.query_embedding_fg.weight.expand(readout.tokens.shape[0], -1, -1)
        x = queries + self.dropout(self.cross_attn(self.norm_fg_ca(queries), readout, foreground_only=True))
        y = self.norm_fg_sa(x)
        x = x + self.dropout(self.self_attn(y, y, y))
        y = self.linear2(self.dropout(F.relu(self.linear1(self.norm1(x)))))
        return x + self.dropout(y)

    def without_memory(self, batch: int) -> Tensor:
        """Prompt tokens ``(B, Q, C)`` for a frame without memory."""
        return self.no_memory_prompt_embeddings_fg.weight.expand(batch, self.query_embedding_fg.num_embeddings, -1)
