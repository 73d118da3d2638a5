"""Sine, random-Fourier and axial rotary encodings of positions. None of them has trainable weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def sine_encoding_2d(height: int, width: int, num_channels: int, temperature: float = 10000.0) -> Tensor:
    """Sine code of the pixels of a grid: (1,num_channels,height,width), float32.

    The first half of the channels encodes the row, the second half the column, both counted from one and scaled to
    (0, 2 pi]; sine and cosine alternate.
    """
    half = num_channels // 2
    if num_channels % 4:
        raise ValueError(f"num_channels: expected a multiple of 4, got {num_channels}")
    rows = 2 * math.pi * torch.arange(1, height + 1, dtype=torch.float32) / (height + 1e-6)
    columns = 2 * math.pi * torch.arange(1, width + 1, dtype=torch.float32) / (width + 1e-6)
    wavelengths = temperature ** (2 * torch.arange(half // 2, dtype=torch.float32) / half)

    def code(positions: Tensor) -> Tensor:
        angles = positions[:, None] / wavelengths
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)

    row_code = code(rows)[:, None].expand(height, width, half)
    column_code = code(columns)[None].expand(height, width, half)
    return torch.cat((row_code, column_code), dim=-1).permute(2, 0, 1)[None].contiguous()


def sine_encoding_1d(positions: Tensor, num_channels: int, temperature: float = 10000.0) -> Tensor:
    """Sine code of scalars (n,) -> (n,num_channels): all sines, then all cosines, each frequency twice in a row."""
    half = num_channels // 2
    index = torch.arange(half, dtype=torch.float32, device=positions.device)
    wavelengths = temperature ** (2 * (index // 2) / half)
    angles = positions[:, None] / wavelengths
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class RandomFourierEncoding(nn.Module):
    """Code of image positions by sines of random projections; the projection is kept with the weights."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", scale * torch.randn(2, num_channels // 2))

    def forward(self, positions: Tensor) -> Tensor:
        """Code (...,C) of positions (...,2), x first, where [0, 1] spans the image."""
        projected = (2 * positions - 1) @ self.positional_encoding_gaussian_matrix
        angles = 2 * math.pi * projected
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """Code (1,C,height,width) of the centres of a grid's cells."""
        matrix = self.positional_encoding_gaussian_matrix
        rows = (torch.arange(height, device=matrix.device, dtype=matrix.dtype) + 0.5) / height
        columns = (torch.arange(width, device=matrix.device, dtype=matrix.dtype) + 0.5) / width
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return self(torch.stack((x, y), dim=-1)).permute(2, 0, 1)[None]


class AxialRotary(nn.Module):
    """Rotates channel pairs of tokens on a grid: the first half by the column, the second half by the row.

    Pair j of a half turns by ``position * theta ** (-4 j / num_channels)`` (RoFormer's rotary encoding along two axes).
    """

    turns: Tensor  # (n,C/2,2): cosine and sine of the angle of every position and pair

    def __init__(self, num_channels: int, grid: tuple[int, int], theta: float = 10000.0) -> None:
        """``grid``: (columns, rows)."""
        super().__init__()
        if num_channels % 4:
            raise ValueError(f"rotary encoding: expected a multiple of 4 channels, got {num_channels}")
        self.num_channels, self.grid, self.theta = num_channels, (int(grid[0]), int(grid[1])), theta
        self._build(torch.device("cpu"))

    @property
    def num_positions(self) -> int:
        return self.grid[0] * self.grid[1]

    def forward(self, tokens: Tensor) -> Tensor:
        """Rotate tokens (...,k*n,C), n positions of the grid in row-major order, repeated k times."""
        grids = tokens.float().unflatten(-2, (-1, self.num_positions))
        return _turn(grids, self.turns).flatten(-3, -2).to(tokens.dtype)

    def by_axis(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """What places do to vectors (n,C), one axis at a time: (columns,n,C/2) and (rows,n,C/2), float32.

        A vector at column x and row y is rotated to the first result's entry x and the second's entry y, joined.
        """
        first, second = vectors.float().chunk(2, dim=-1)
        columns, half = self.grid[0], self.num_channels // 4
        return _turn(first, self.turns[:columns, None, :half]), _turn(second, self.turns[::columns, None, half:])

    def _build(self, device: torch.device) -> None:
        columns, rows = self.grid
        num_pairs = self.num_channels // 4
        frequency = self.theta ** (-4 * torch.arange(num_pairs, dtype=torch.float32) / self.num_channels)
        index = torch.arange(columns * rows)
        x, y = (index % columns).float(), (index // columns).float()
        angles = torch.cat((x[:, None] * frequency, y[:, None] * frequency), dim=-1)
        turns = torch.stack((angles.cos(), angles.sin()), dim=-1)
        self.register_buffer("turns", turns.to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AxialRotary:
        # The tables follow the model to a device but never to a lower precision: angles reach dozens of turns.
        super()._apply(fn, recurse)
        if self.turns.dtype != torch.float32 and self.turns.device.type != "meta":
            self._build(self.turns.device)
        return self


def _turn(tokens: Tensor, turns: Tensor) -> Tensor:
    """Rotate the channel pairs of tokens (...,C) by angles (...,C/2,2): a product of complex numbers."""
    pairs = tokens.unflatten(-1, (-1, 2)).contiguous()
    if torch.compiler.is_compiling():
        # The compiler writes kernels for real numbers only, but fuses what would be slow by itself.
        (x, y), (cosine, sine) = pairs.unbind(-1), turns.unbind(-1)
        return torch.stack((x * cosine - y * sine, x * sine + y * cosine), dim=-1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns)).flatten(-2)
