"""What the ONNX runtime computes in NumPy equals what the library computes with PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from i2v.export.description import SelectionRules
from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.memory.selectors import SimilaritySelector
from i2v.modeling.structures import Prompt, TrackingStep
from i2v.onnx_runtime.mask_arrays import fill_holes, resize, suppress_overlap, to_model_mask
from i2v.onnx_runtime.memory_selection import Memory, MemoryDraws, lay_out, select_memories
from i2v.onnx_runtime.prompt_answers import Crop, PointPrompt
from i2v.prompts.parsing import read_mask
from i2v.results.export import label_map
from i2v.utils import masks as torch_masks

RULES = SelectionRules(16, 4, 4, 2, -1, True, "topk", 123)
# MKL draws exponentials there, see MemoryDraws.
on_intel = "GenuineIntel" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (33, 7), (8, 200), (5, 5)])
@pytest.mark.parametrize("antialias", [False, True])
def test_resize(rng: np.random.Generator, size: tuple[int, int], antialias: bool) -> None:
    x = rng.normal(size=(2, 1, 16, 16)).astype(np.float32)
    expected = F.interpolate(
        torch.from_numpy(x), size=size, mode="bilinear", align_corners=False, antialias=antialias
    ).numpy()
    np.testing.assert_allclose(resize(x, size, antialias), expected, atol=1e-5)


@pytest.mark.parametrize("max_area", [0, 1, 4, 8])
def test_holes(rng: np.random.Generator, max_area: int) -> None:
    # Smoothed noise has components of all sizes, also at the border.
    noise = resize(rng.normal(size=(4, 1, 12, 12)).astype(np.float32), (32, 32)) + 0.4
    filled = fill_holes(noise, max_area)
    assert np.array_equal(filled, torch_masks.fill_holes(torch.from_numpy(noise), max_area).numpy())
    assert (max_area == 0) == np.array_equal(filled, noise)


def test_overlap_and_label_maps(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(3, 1, 9, 11)).astype(np.float32)
    tensor = torch.from_numpy(logits)
    assert np.array_equal(suppress_overlap(logits), torch_masks.suppress_overlap(tensor).numpy())
    for number in (0, 1, 3):
        labels = [7, 2, 255][:number]
        assert np.array_equal(label_map(logits[:number], labels), label_map(tensor[:number], labels))


@pytest.mark.parametrize("place", [(10, 20, 25, 30), (5, 1, 2, 2), (0, 5, 1, 1), (30, 0, 1, 60), (3, 3, 0, 0)])
def test_user_masks(place: tuple[int, int, int, int]) -> None:
    top, left, height, width = place
    mask = np.zeros((240, 320), bool)
    mask[top : top + height, left : left + width] = True
    expected = read_mask(mask, (240, 320), 64, "here")[0, 0].numpy()
    assert np.array_equal(to_model_mask(mask, 64, (240, 320)), expected)
    assert expected.any() == mask.any()


@pytest.mark.skipif(on_intel, reason="PyTorch draws with MKL on this CPU")
@pytest.mark.parametrize("seed", [123, 0, 2**40 + 7])
def test_draws_are_those_of_pytorch(seed: int) -> None:
    generator, draws = torch.Generator().manual_seed(seed), MemoryDraws(seed & 0xFFFFFFFF)
    scores = np.random.default_rng(seed).uniform(0.3, 1, size=16).astype(np.float32)
    for length, count in ((16, 4), (4, 2), (3, 3), (1, 1), (16, 4)):
        weights = torch.from_numpy(scores[:length]).softmax(0)
        expected = torch.multinomial(weights, count, replacement=False, generator=generator)
        assert draws.draw(scores[:length], count) == sorted(expected.tolist())


@pytest.mark.parametrize("rules", [RULES, SelectionRules(0, 1, 6, 3, 2, False, "topk", 1)])
@pytest.mark.parametrize("conditioning", [[0], [30], [0, 5, 12, 30]])
@pytest.mark.parametrize("frame", [0, 1, 4, 9, 25])
def test_selection_equals_that_of_sessions(
    rng: np.random.Generator, rules: SelectionRules, conditioning: list[int], frame: int
) -> None:
    def unit() -> np.ndarray:
        x = rng.normal(size=20).astype(np.float32)
        return x / np.linalg.norm(x)

    def memory(index: int) -> Memory:
        return Memory(
            index, np.zeros((2, 1, 1), np.float32), np.ones((1, 1), bool), np.full(4, index, np.float32), unit()
        )

    known = {i: memory(i) for i in range(31)}
    tracked = [i for i in range(min(conditioning), frame) if i not in conditioning]
    bank = MemoryBank(*(tuple(_as_tensors(known[i]) for i in frames) for frames in (conditioning, tracked)))
    now = unit()
    selector = SimilaritySelector(
        rules.global_window,
        rules.num_global,
        rules.local_window,
        rules.num_local,
        rules.max_conditioning,
        rules.only_past_pointers,
        "topk",
    )
    (expected,) = selector.select(TrackingStep(frame), [bank], torch.from_numpy(now), [None])
    found = select_memories(
        rules, frame, [known[i] for i in conditioning], [known[i] for i in tracked], now, MemoryDraws(1)
    )
    assert [(m.frame, slot) for m, slot in found.memories] == [(m.frame, slot) for m, slot in expected.memories]
    assert [(int(p[0]), d) for p, d in found.pointers] == [(int(p[0, 0]), d) for p, d in expected.pointers]
    assert (found.repeats, found.pointer_repeats) == (expected.repeats, expected.pointer_repeats)
    readout = lay_out([found, found], 2)
    length = readout.slots.shape[1]
    assert length in (2, 4, 8, 16) and length >= len(found.memories)
    counts = readout.memory_counts[1, : len(found.memories)].tolist()
    assert counts == [1 + found.repeats, *[1] * (len(found.memories) - 1)]
    assert not readout.memory_counts[:, len(found.memories) :].any()


def _as_tensors(memory: Memory) -> FrameMemory:
    features, foreground = torch.from_numpy(memory.features)[None], torch.from_numpy(memory.foreground)[None, None]
    return FrameMemory(
        memory.frame, features, foreground, torch.from_numpy(memory.pointer)[None], torch.from_numpy(memory.embedding)
    )


def test_crops_are_those_of_the_refiner(rng: np.random.Generator) -> None:
    from i2v.inference import crop_refinement

    low, high = np.array([3, 4], np.float32), np.array([9, 6], np.float32)
    ours = Crop.around(low, high, 32)
    theirs = crop_refinement.Crop.around(torch.from_numpy(low), torch.from_numpy(high), 32)
    assert ours is not None and theirs is not None and vars(ours) == vars(theirs)
    assert Crop.around(low * 0, high * 3, 32) is None
    logits = rng.normal(size=(32, 32)).astype(np.float32)
    tensor = torch.from_numpy(logits)[None, None]
    np.testing.assert_allclose(ours.paste(logits), theirs.paste(tensor)[0, 0].numpy(), atol=1e-5)
    points, labels = rng.uniform(0, 128, size=(3, 2)).astype(np.float32), np.array([2, 3, 1], np.int32)
    given = Prompt.click(torch.from_numpy(points)[None], torch.from_numpy(labels)[None]).with_prior(tensor)
    closer, expected = ours.prompt(PointPrompt(points, labels, logits), 128), theirs.prompt(given, 128)
    assert closer.prior is not None and expected.prior is not None and expected.points is not None
    np.testing.assert_allclose(closer.points, expected.points[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(closer.prior, expected.prior[0, 0].numpy(), atol=1e-5)
    turned, mirrored = closer.mirrored(128), crop_refinement._mirror_image(expected, 128)
    assert turned.prior is not None and mirrored.prior is not None and mirrored.points is not None
    np.testing.assert_allclose(turned.points, mirrored.points[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(turned.prior, mirrored.prior[0, 0].numpy(), atol=1e-5)
