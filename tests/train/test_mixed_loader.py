"""The order of batches is a function of the seed, and nothing else changes what is in them."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import random
import signal
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from data_support import Numbered

from train.dataset.mixed_loader import LoaderSpec, MixedLoader
from train.dataset.structures import BatchedClip


def make(*specs: tuple[Numbered, int], seed: int = 7, **settings: int) -> MixedLoader:
    return MixedLoader([LoaderSpec(*spec) for spec in specs], seed, **settings)


def two_sets(**settings: int) -> MixedLoader:
    return make((Numbered(8), 2), (Numbered(12, base=100), 1), **settings)


def values(batches: list[BatchedClip]) -> list[list[list[float]]]:
    """Number and draw of every clip of every batch."""
    return [batch.frames[0, :, :2, 0, 0].tolist() for batch in batches]


def numbers(batches: Iterable[BatchedClip]) -> list[int]:
    """Numbers of all clips in a row."""
    return [int(clip[0]) for batch in values(list(batches)) for clip in batch]


@pytest.mark.parametrize(("gpus", "images", "videos"), [(8, 156, 6323), (32, 39, 1581)])
def test_the_published_mix_has_the_published_number_of_steps(gpus: int, images: int, videos: int) -> None:
    loader = make((Numbered(10_000), 8), (Numbered(50_583), 1), world_size=gpus)
    plan = loader.plan(0)
    assert len(loader) == len(plan) == images + videos
    assert sum(batch[0].dataset == 0 for batch in plan) == images
    assert {len(batch) for batch in plan if batch[0].dataset == 0} == {8}
    assert all(len({key.dataset for key in batch}) == 1 for batch in plan)


def test_data_sets_are_drawn_by_their_share_of_batches_until_the_end() -> None:
    loader = make((Numbered(200), 1), (Numbered(600), 1))
    kinds = np.array([batch[0].dataset for batch in loader.plan(0)])
    assert (kinds == 0).sum() == 200 and len(kinds) == 800
    assert 70 < (kinds[:400] == 0).sum() < 130
    assert (np.diff(kinds) != 0)[:100].sum() > 20  # not in blocks
    assert kinds.tolist() != [batch[0].dataset for batch in loader.plan(1)]


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own() -> None:
    loader = two_sets()
    first, second = (numbers(loader.epoch(epoch)) for epoch in (0, 1))
    wanted = sorted([*range(8), *range(100, 112)])
    assert sorted(first) == sorted(second) == wanted
    assert first != second
    assert numbers(two_sets().epoch(1)) == second
    assert numbers(two_sets(seed=8).epoch(1)) != second


def test_what_a_sample_draws_depends_on_seed_epoch_and_number_alone() -> None:
    drawn = {}
    for epoch in (0, 1):
        for batch in values(list(two_sets().epoch(epoch))):
            drawn.update({(epoch, int(number)): draw for number, draw in batch})
    assert len(set(drawn.values())) == len(drawn) == 40
    for state in range(3):
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        # Other sets and batch sizes beside it do not matter.
        alone = make((Numbered(8), 4 - state))
        for batch in values(list(alone.epoch(1))):
            assert all(draw == drawn[1, int(number)] for number, draw in batch)


def test_loading_leaves_the_global_generators_alone() -> None:
    before = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())
    list(two_sets().epoch(0, 5))
    assert (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize("start", [0, 1, 9, 16])
def test_a_resumed_epoch_goes_on_exactly(start: int) -> None:
    whole = values(list(two_sets().epoch(3)))
    assert len(whole) == 16
    assert values(list(two_sets().epoch(3, start))) == whole[start:]


def test_skipped_batches_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    original = Numbered.clip
    monkeypatch.setattr(
        Numbered, "clip", lambda self, index, generator: loaded.append(index) or original(self, index, generator)
    )
    list(make((Numbered(10), 2)).epoch(0, 4))
    assert len(loaded) == 2


def test_workers_change_nothing_and_survive_an_epoch_left_early() -> None:
    loader, wanted = two_sets(num_workers=2), two_sets()
    assert values(list(loader.epoch(0))) == values(list(wanted.epoch(0)))
    left = loader.epoch(1)
    assert values([next(left), next(left)]) == values(list(wanted.epoch(1)))[:2]
    assert values(list(loader.epoch(2, 5))) == values(list(wanted.epoch(2, 5)))


def test_workers_outlive_the_signals_that_stop_a_job() -> None:
    loader = two_sets(num_workers=1)
    batches = loader.epoch(0)
    found = [next(batches)]
    for child in multiprocessing.active_children():
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(child.pid or 0, number)
    assert values(found + list(batches)) == values(list(two_sets().epoch(0)))


def test_ranks_together_have_the_batches_of_one_process_with_the_same_total() -> None:
    sets = (Numbered(9), Numbered(22, base=100))
    one = values(list(make((sets[0], 2), (sets[1], 4)).epoch(2)))
    ranks = [values(list(make((sets[0], 1), (sets[1], 2), rank=rank, world_size=2).epoch(2))) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == one


def test_a_last_batch_is_filled_up_if_at_least_half_full_and_dropped_otherwise() -> None:
    assert [len(make((Numbered(length), 4))) for length in (2, 4, 5, 6, 9, 10)] == [1, 1, 1, 2, 2, 3]
    filled = numbers(make((Numbered(6), 4)).epoch(0))
    assert sorted(set(filled)) == [0, 1, 2, 3, 4, 5] and len(filled) == 8
    assert filled[6:] == filled[:2]


def test_phases_share_one_pass_over_the_data() -> None:
    loader = make((Numbered(12), 2), phases_per_epoch=3)
    assert len(loader) == 2
    phases = [numbers(loader.epoch(epoch)) for epoch in range(6)]
    assert sorted(itertools.chain(*phases[:3])) == sorted(itertools.chain(*phases[3:])) == list(range(12))
    assert phases[:3] != phases[3:]


def test_a_broken_sample_is_reported_and_another_one_taken_always_the_same(caplog: pytest.LogCaptureFixture) -> None:
    loader = make((Numbered(20, broken=[4, 11]), 2))
    with caplog.at_level(logging.WARNING):
        first = values(list(loader.epoch(0)))
    found = [int(clip[0]) for batch in first for clip in batch]
    assert len(found) == 20 and not {4, 11} & set(found)
    assert "/data/4.jpg: broken" in caplog.text and "/data/11.jpg: broken" in caplog.text
    assert "epoch 0, batch " in caplog.text
    assert loader.num_skipped == len(caplog.records) >= 2
    assert values(list(make((Numbered(20, broken=[4, 11]), 2)).epoch(0))) == first


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_run_of_broken_samples_stops_the_training(num_workers: int) -> None:
    loader = make((Numbered(6, broken=range(6)), 2), max_consecutive_failures=3, num_workers=num_workers)
    with pytest.raises(RuntimeError, match=r"epoch 0, batch 0: 3 samples in a row .*: /data/\d\.jpg: broken$"):
        next(loader.epoch(0))


def test_errors_of_the_program_are_not_taken_for_broken_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def clip(self: Numbered, index: int, generator: np.random.Generator) -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr(Numbered, "clip", clip)
    with pytest.raises(TypeError, match="a mistake"):
        next(make((Numbered(4), 1)).epoch(0))


def test_settings_without_sense() -> None:
    with pytest.raises(ValueError, match=r"rank: expected 0 to 1 .*, got 2"):
        make((Numbered(4), 1), rank=2, world_size=2)
    with pytest.raises(ValueError, match="data set 1: 3 samples per epoch do not fill half a batch of 4 on each of 2"):
        make((Numbered(8), 2), (Numbered(3), 4), world_size=2)
    with pytest.raises(ValueError, match=r"start: expected 0 to 4, .*, got 5"):
        next(make((Numbered(4), 1)).epoch(0, 5))
    with pytest.raises(ValueError, match="expected at least 1"):
        make((Numbered(4), 1), max_consecutive_failures=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_come_in_pinned_memory_where_there_is_a_gpu() -> None:
    batch = next(make((Numbered(4), 2)).epoch(0))
    assert batch.frames.is_pinned() and batch.masks.is_pinned() and batch.video_of.is_pinned()
    assert batch.to("cuda", non_blocking=True).frames.device.type == "cuda"
