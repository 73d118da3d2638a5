"""Compiled parts give the same masks, and are not compiled again once a video is under way."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import get_args

import pytest
import torch
from support import make_predictor, render_video
from torch._dynamo.utils import counters

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.compiling import compile_model
from i2v.modeling.fast_path import Backend, set_backend
from i2v.modeling.memory.readout import MemoryReadout

pytestmark = pytest.mark.timeout(400)  # tracing takes a minute and more on a busy core


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
    predictor.policy = replace(predictor.policy, static_shapes=True)
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
    for backend in get_args(Backend):
        set_backend(reader, backend)
        with torch.no_grad():
            short, long = (reader(queries, r, foreground_only) for r in (readout, padded))
        assert torch.allclose(short, long, atol=1e-5) and short.std() > 0.01


def test_compiling_is_an_option() -> None:
    assert not make_predictor().policy.static_shapes
    assert make_predictor(compile=True).policy.static_shapes


def test_compiled_models_are_copied_and_pickled_without_what_was_compiled() -> None:
    predictor = make_predictor()
    compile_model(predictor.model, backend="eager")
    frames = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = predictor.model.image_encoder.trunk_image(frames)
        for other in (copy.deepcopy(predictor.model), pickle.loads(pickle.dumps(predictor.model))):
            trunk = other.image_encoder.trunk_image
            assert all(torch.equal(a, b) for a, b in zip(trunk(frames), expected, strict=True))
            for parameter in other.parameters():
                parameter.zero_()
            assert not any(map_.any() for map_ in trunk(frames)), "the copy has weights of its own"
            assert torch.equal(predictor.model.image_encoder.trunk_image(frames)[0], expected[0])
