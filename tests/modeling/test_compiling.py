"""Compiled parts give the same masks, and are not compiled again once a video is under way."""

from __future__ import annotations

import pytest
import torch
from support import make_predictor, render_video
from torch._dynamo.utils import counters

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.compiling import compile_model
from i2v.modeling.structures import MemoryReadout


def track(predictor: I2VVideoPredictor, count_after: int) -> tuple[list[torch.Tensor], list[int]]:
    """Masks of two objects, and how many graphs were there on each frame from one on."""
    masks, graphs = [], []
    with predictor.init_state(render_video(12)) as state:
        predictor.add_new_points_or_box(state, 0, 1, [[16, 19]], [1])
        predictor.add_new_points_or_box(state, 0, 2, [[48, 31]], [1])
        for frame, _, logits in predictor.propagate_in_video(state):
            masks.append(logits)
            if frame >= count_after:
                graphs.append(counters["stats"]["unique_graphs"])
    return masks, graphs


def test_masks_are_the_same_and_nothing_is_compiled_again() -> None:
    wanted, _ = track(make_predictor(), 0)
    predictor = make_predictor()
    # This backend traces and guards as others do, and then runs what it has traced: no compiler is needed.
    compile_model(predictor.model, backend="eager")
    torch._dynamo.reset()
    counters.clear()
    # After five frames the window of frames has no repeats any more, which count as another case.
    got, graphs = track(predictor, count_after=5)
    assert graphs[0] > 5 and set(graphs) == {graphs[0]}
    for ours, plain in zip(got, wanted, strict=True):
        assert torch.allclose(ours, plain, atol=1e-3)
        assert plain.std() > 0.1


@pytest.mark.parametrize("foreground_only", [False, True])
def test_what_is_padded_is_not_read(foreground_only: bool) -> None:
    predictor = make_predictor()
    reader = predictor.model.memory_attention.layers[0].cross_attn_image
    columns, rows = reader.rotate_keys.grid
    width = reader.k_proj.in_features
    generator = torch.Generator().manual_seed(0)
    tokens, position = torch.randn(2, 1, 2 * columns * rows + 3, width, generator=generator)
    readout = MemoryReadout(tokens, position, torch.rand(tokens.shape[:2], generator=generator) > 0.3, 3)
    padded = readout.padded(4 * columns * rows, 8)
    assert padded.tokens.shape[1] == 4 * columns * rows + 8 and padded.num_pointer_tokens == 8
    assert torch.equal(padded.tokens[:, -8:-5], tokens[:, -3:]) and not padded.tokens[:, -5:].any()
    queries = torch.randn(1, columns * rows, reader.q_proj.in_features, generator=generator)
    for grad in (False, True):  # the form of a CPU, and that of a GPU
        with torch.set_grad_enabled(grad):
            short, long = (reader(queries, reader.prepare(r, foreground_only)) for r in (readout, padded))
        assert torch.allclose(short, long, atol=1e-5) and short.std() > 0.01


def test_compiling_is_an_option() -> None:
    assert not make_predictor().model.static_shapes
    assert make_predictor(compile=True).model.static_shapes
