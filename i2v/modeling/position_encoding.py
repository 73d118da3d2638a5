"""Positional encodings: sine, random Fourier features and axial rotary (RoPE). None has trainable weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def sine_encoding_2d(height: int, width: int, num_channels: int, temperature: float = 10000.0) -> Tensor:
    """Sine encoding of the cells of a grid.

    The first half of the channels encodes the row, the second half the column. Sine and cosine alternate.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.
        num_channels: Channels of the encoding, a multiple of 4.
        temperature: Base of the geometric series of wavelengths.

    Returns:
        ``(1, num_channels, height, width)`` float32.

    Raises:
        ValueError: If ``num_channels`` is not a multiple of 4.
    """
    half = num_channels // 2
    if num_channels % 4:
        raise ValueError(f"num_channels: expected a multiple of 4, got {num_channels}")
    # Positions count from one and are scaled to (0, 2 pi]. The 1e-6 is part of the trained model's numbers.
    rows = 2 * math.pi * torch.arange(1, height + 1, dtype=torch.float32) / (height + 1e-6)
    columns = 2 * math.pi * torch.arange(1, width + 1, dtype=torch.float32) / (width + 1e-6)
    wavelengths = temperature ** (2 * torch.arange(half // 2, dtype=torch.float32) / half)

    def encode(positions: Tensor) -> Tensor:
        angles = positions[:, None] / wavelengths
        # Stacking on a new last axis before flattening interleaves the two: sin, cos, sin, cos, ...
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)

    row_encoding = encode(rows)[:, None].expand(height, width, half)
    column_encoding = encode(columns)[None].expand(height, width, half)
    return torch.cat((row_encoding, column_encoding), dim=-1).permute(2, 0, 1)[None].contiguous()


def sine_encoding_1d(positions: Tensor, num_channels: int, temperature: float = 10000.0) -> Tensor:
    """Sine encoding of scalars.

    Unlike the 2-D encoding it is not interleaved: all sines come first, then all cosines, and each frequency appears
    twice in a row.

    Args:
        positions: ``(n,)`` float.
        num_channels: Channels of the encoding, even.
        temperature: Base of the geometric series of wavelengths.

    Returns:
        ``(n, num_channels)``.
    """
    half = num_channels // 2
    index = torch.arange(half, dtype=torch.float32, device=positions.device)
    wavelengths = temperature ** (2 * (index // 2) / half)
    angles = positions[:, None] / wavelengths
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class RandomFourierEncoding(nn.Module):
    """Encodes image positions by sines and cosines of a random projection, which is stored with the weights."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_channels: int, scale: float = 1.0) -> None:
        """Draw the projection.

        Args:
            num_channels: Channels of the encoding, even.
            scale: Standard deviation of the projection's entries.
        """
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", scale * torch.randn(2, num_channels // 2))

    def forward(self, positions: Tensor) -> Tensor:
        """Encode positions.

        Args:
            positions: ``(..., 2)``, x first, where 0 to 1 spans the image.

        Returns:
            ``(..., num_channels)``.
        """
        projected = (2 * positions - 1) @ self.positional_encoding_gaussian_matrix
        angles = 2 * math.pi * projected
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """Encode the centres of a grid's cells as ``(1, num_channels, height, width)``."""
        matrix = self.positional_encoding_gaussian_matrix
        # Half-pixel offset: the centre of cell i lies at (i + 0.5) / size.
        rows = (torch.arange(height, device=matrix.device, dtype=matrix.dtype) + 0.5) / height
        columns = (torch.arange(width, device=matrix.device, dtype=matrix.dtype) + 0.5) / width
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return self(torch.stack((x, y), dim=-1)).permute(2, 0, 1)[None]


class AxialRotary(nn.Module):
    """Axial rotary position encoding (RoPE) of tokens on a grid.

    Adjacent channels form pairs, and each pair is rotated by an angle. The first half of the pairs rotates with the
    column, the second half with the row: pair ``j`` of a half turns by ``position * theta ** (-4 j / num_channels)``.
    """

    rotations: Tensor  # (n, C/2, 2): cosine and sine of the angle of every position and channel pair

    def __init__(self, num_channels: int, grid: tuple[int, int], theta: float = 10000.0) -> None:
        """Build the table of rotations.

        Args:
            num_channels: Channels of a token, a multiple of 4.
            grid: Size as (columns, rows).
            theta: Base of the frequencies.

        Raises:
            ValueError: If ``num_channels`` is not a multiple of 4.
        """
        super().__init__()
        if num_channels % 4:
            raise ValueError(f"rotary encoding: expected a multiple of 4 channels, got {num_channels}")
        self.num_channels, self.grid, self.theta = num_channels, (int(grid[0]), int(grid[1])), theta
        self._build_table(torch.device("cpu"))

    @property
    def num_positions(self) -> int:
        """Cells of the grid."""
        return self.grid[0] * self.grid[1]

    def forward(self, tokens: Tensor) -> Tensor:
        """Rotate tokens by their positions.

        Args:
            tokens: ``(..., k*n, C)``: ``k`` grids in a row, each with its ``n`` positions in row-major order.

        Returns:
            The rotated tokens, same shape and dtype.
        """
        # Float32 throughout: half precision cannot hold the angles of far positions.
        grids = tokens.float().unflatten(-2, (-1, self.num_positions))
        return _rotate_pairs(grids, self.rotations).flatten(-3, -2).to(tokens.dtype)

    def rotate_by_axis(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate vectors by every column and by every row separately.

        A vector at column x and row y is rotated to entry x of the first result joined with entry y of the second.

        Args:
            vectors: ``(n, C)``.

        Returns:
            ``(columns, n, C/2)`` and ``(rows, n, C/2)``, float32.
        """
        column_half, row_half = vectors.float().chunk(2, dim=-1)
        columns, num_pairs = self.grid[0], self.num_channels // 4
        # Positions are row-major: the first `columns` are one row of cells, every `columns`-th is one column of cells.
        by_column = _rotate_pairs(column_half, self.rotations[:columns, None, :num_pairs])
        return by_column, _rotate_pairs(row_half, self.rotations[::columns, None, num_pairs:])

    def _build_table(self, device: torch.device) -> None:
        columns, rows = self.grid
        num_pairs = self.num_channels // 4
        frequency = self.theta ** (-4 * torch.arange(num_pairs, dtype=torch.float32) / self.num_channels)
        index = torch.arange(columns * rows)
        x, y = (index % columns).float(), (index // columns).float()
        angles = torch.cat((x[:, None] * frequency, y[:, None] * frequency), dim=-1)
        rotations = torch.stack((angles.cos(), angles.sin()), dim=-1)
        self.register_buffer("rotations", rotations.to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AxialRotary:
        # The table follows the model to a device, but stays float32 under `model.half()`: angles span many full turns.
        super()._apply(fn, recurse)
        if self.rotations.dtype != torch.float32 and self.rotations.device.type != "meta":
            self._build_table(self.rotations.device)
        return self


def _rotate_pairs(tokens: Tensor, rotations: Tensor) -> Tensor:
    """Rotate adjacent channel pairs of tokens ``(..., C)`` by ``(..., C/2, 2)``, a product of complex numbers."""
    pairs = tokens.unflatten(-1, (-1, 2)).contiguous()
    if torch.compiler.is_compiling():
        # The compiler has no kernels for complex numbers, but it fuses these real operations into one.
        (x, y), (cosine, sine) = pairs.unbind(-1), rotations.unbind(-1)
        return torch.stack((x * cosine - y * sine, x * sine + y * cosine), dim=-1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotations)).flatten(-2)
