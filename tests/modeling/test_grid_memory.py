"""Attention to memories at their own width equals attention in the plain form."""

from __future__ import annotations

import pytest
import torch

from i2v.modeling.fast_path import set_backend
from i2v.modeling.memory.memory_cross_attention import MemoryCrossAttention
from i2v.modeling.memory.readout import MemoryReadout

COLUMNS, ROWS, NUM_GRIDS, WIDTH, NUM_LOOSE = 5, 3, 4, 6, 7


@pytest.fixture(autouse=True)
def generator():
    torch.manual_seed(0)


def make_reader(num_heads: int = 1, scale: float = 1.0) -> MemoryCrossAttention:
    reader = MemoryCrossAttention(16, (COLUMNS, ROWS), (COLUMNS, ROWS), num_heads=num_heads, kv_in_dim=WIDTH).eval()
    with torch.no_grad():
        for parameter in reader.parameters():
            parameter.normal_(std=0.4)
        reader.q_proj.weight.mul_(scale)
    return reader


def make_readout(batch: int = 1, counts: torch.Tensor | None = None) -> MemoryReadout:
    num_tokens = NUM_GRIDS * COLUMNS * ROWS + NUM_LOOSE
    foreground = torch.rand(batch, num_tokens) > 0.5
    foreground[:, -NUM_LOOSE:] = True
    tokens, position = torch.randn(batch, num_tokens, WIDTH), torch.randn(batch, num_tokens, WIDTH)
    return MemoryReadout(tokens, position, foreground, NUM_LOOSE, counts)


def read(reader: MemoryCrossAttention, queries: torch.Tensor, readout: MemoryReadout, foreground_only: bool = False):
    """What the reference implementation reads, and what the fast one reads."""
    readout._grid_memories.clear()
    with torch.no_grad():
        set_backend(reader, "reference")
        reference = reader(queries, readout, foreground_only)
        assert not readout._grid_memories
        set_backend(reader, "fast")
        fast = reader(queries, readout, foreground_only)
        assert readout._grid_memories
        return reference, fast


@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("foreground_only", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_plain_form(num_heads, foreground_only, batch):
    queries = torch.randn(batch, COLUMNS * ROWS, 16)
    plain, ours = read(make_reader(num_heads), queries, make_readout(batch), foreground_only)
    assert ours.shape == queries.shape and plain.std() > 0.1
    assert torch.allclose(plain, ours, atol=2e-5)


def test_tiles_of_queries_do_not_show(monkeypatch):
    reader, readout = make_reader(), make_readout()
    queries = torch.randn(1, 9 * COLUMNS * ROWS, 16)
    reader.rotate_queries = type(reader.rotate_queries)(16, (9 * COLUMNS, ROWS)).eval()
    plain, at_once = read(reader, queries, readout)
    monkeypatch.setattr("i2v.modeling.memory.grid_attention.MAX_SCORES", 1)
    _, in_tiles = read(reader, queries, readout)
    assert torch.allclose(plain, at_once, atol=2e-5) and torch.allclose(at_once, in_tiles, atol=1e-5)


def test_shares_of_threads_do_not_show(monkeypatch):
    reader, readout = make_reader(), make_readout()
    assert readout.tokens.shape[1] == 67, "a prime has no shares"
    even = MemoryReadout(readout.tokens[:, 1:-6], readout.position[:, 1:-6], readout.foreground[:, 1:-6], 0, None)
    assert even.tokens.shape[1] == 60
    queries = torch.randn(1, COLUMNS * ROWS, 16)
    for case in (readout, even):
        for num_threads in (1, 2, 7, 16):
            monkeypatch.setattr(torch, "get_num_threads", lambda num=num_threads: num)
            plain, ours = read(reader, queries, case)
            assert torch.allclose(plain, ours, atol=2e-5), num_threads


@pytest.mark.parametrize("foreground_only", [False, True])
def test_counts_stand_for_copies(foreground_only):
    reader, readout = make_reader(), make_readout()
    counts = torch.ones(readout.tokens.shape[1])
    counts[: COLUMNS * ROWS] = 3
    counts[-NUM_LOOSE:-3] = 2
    grid, tail = slice(0, COLUMNS * ROWS), slice(-NUM_LOOSE, -3)

    def copied(x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x[:, grid], x[:, grid], x, x[:, tail]), dim=1)

    fields = (readout.tokens, readout.position, readout.foreground)
    copies = MemoryReadout(*map(copied, fields), num_pointer_tokens=NUM_LOOSE + NUM_LOOSE - 3)
    counted = MemoryReadout(*fields, num_pointer_tokens=NUM_LOOSE, counts=counts)
    queries = torch.randn(1, COLUMNS * ROWS, 16)
    expected, _ = read(reader, queries, copies, foreground_only)
    plain, ours = read(reader, queries, counted, foreground_only)
    assert torch.allclose(plain, expected, atol=2e-5) and torch.allclose(ours, expected, atol=2e-5)
    uncounted, _ = read(reader, queries, readout, foreground_only)
    assert not torch.allclose(expected, uncounted, atol=1e-2)


@pytest.mark.parametrize("scale", [200.0, 5000.0])
def test_scores_of_any_size(scale):
    """Scores that exp would turn into infinity or nothing are shifted first."""
    reader, readout = make_reader(scale=scale), make_readout()
    reader.q_proj.bias.data.mul_(scale)
    queries = torch.randn(1, COLUMNS * ROWS, 16)
    memory = readout.on_grid((COLUMNS, ROWS), False)[0]
    with torch.no_grad():
        heads = reader.rotate_queries(reader._split_heads(reader.q_proj(queries))) / 4
        keys = reader.rotate_keys(reader.k_proj(readout.tokens + readout.position)[:, :-NUM_LOOSE])
        assert (heads[0, 0] @ keys[0].t()).abs().max() > 200
        assert memory.average(heads[0, 0], reader._key_projections(heads.dtype)[0]).isfinite().all()
    for foreground_only in (False, True):
        plain, ours = read(reader, queries, readout, foreground_only)
        assert ours.isfinite().all() and torch.allclose(plain, ours, atol=1e-4 * scale)


def test_unread_tokens_with_huge_scores_stay_unread():
    reader, readout = make_reader(scale=200.0), make_readout()
    readout.tokens[:, ~readout.foreground[0]] *= 100
    plain, ours = read(reader, torch.randn(1, COLUMNS * ROWS, 16), readout, foreground_only=True)
    assert ours.isfinite().all() and torch.allclose(plain, ours, atol=3e-3)


def test_runs_in_half_precision():
    reader, readout = make_reader(), make_readout()
    queries = torch.randn(1, COLUMNS * ROWS, 16)
    exact, _ = read(reader, queries, readout)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, ours = read(reader, queries, readout)
    assert torch.allclose(exact, ours.float(), atol=0.1 * exact.abs().max().item())
