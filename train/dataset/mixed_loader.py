"""Batches of several data sets in one order that a seed fixes, whatever the number of workers and restarts."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from multiprocessing.synchronize import Event
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from i2v.errors import describe_error
from i2v.utils.worker_pool import end_with_parent
from train.dataset.structures import BatchedClip, VideoClip, collate
from train.dataset.vos_dataset import ClipDataset
from train.dataset.vos_sampler import TooShortError

log = logging.getLogger(__name__)


class _Stream(IntEnum):
    """What random numbers are for; streams of one seed do not repeat each other."""

    MIX = 0
    ORDER = 1
    SAMPLE = 2


@dataclass(frozen=True)
class LoaderSpec:
    """A data set of the mix. A step takes `batch_size` of its clips on every rank.

    `weight`: how many clips an epoch has of it in relation to the weights of the others, None for all it has. Either
    all data sets of a mix have weights, or none.
    """

    dataset: ClipDataset
    batch_size: int
    weight: float | None = None


@dataclass(frozen=True)
class SampleKey:
    """One sample of one epoch: all that its random choices depend on, beside the seed."""

    dataset: int
    epoch: int
    index: int


@dataclass(frozen=True)
class _Loaded:
    """What a worker hands over: a batch, or why there is none, and what it skipped on the way."""

    batch: BatchedClip | None
    skipped: tuple[str, ...]

    def pin_memory(self) -> _Loaded:  # called by DataLoader
        return _Loaded(None if self.batch is None else self.batch.pin_memory(), self.skipped)


class MixedLoader:
    """Mixes data sets by the published rule: each step draws one of them, the same on all ranks.

    The probabilities are the shares of the data sets in all batches; one that is used up is drawn no more, and the
    epoch ends with the last. Batch k of an epoch is a function of the seed, k, and the batch sizes over all ranks
    alone: with half the batch size on twice the ranks, the ranks' batches put together are the same.
    """

    def __init__(
        self,
        loaders: Sequence[LoaderSpec],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch_factor: int = 2,
        max_consecutive_failures: int = 10,
        phases_per_epoch: int = 1,
        pin_memory: bool | None = None,
    ) -> None:
        """Plan the mix.

        `num_workers`: processes that load, for all data sets together; 0 loads between steps. `prefetch_factor`:
        batches that each prepares ahead. A sample that cannot be read is replaced by another of its data set, at
        most `max_consecutive_failures` times in a row. `phases_per_epoch`: how many epochs one pass over the data
        takes. `pin_memory`: None for where there is a GPU. ValueError for settings that give no batch.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: got {rank}, expected 0 to {world_size - 1} for a world size of {world_size}")
        if phases_per_epoch < 1 or max_consecutive_failures < 1:
            raise ValueError("phases_per_epoch and max_consecutive_failures: expected at least 1")
        self._specs = _weighted(loaders)
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._phases = phases_per_epoch
        self._counts = [self._num_batches(i, spec) for i, spec in enumerate(self._specs)]
        self.num_skipped = 0  # samples that this rank could not read so far
        self._batches: list[list[SampleKey]] = []  # of the epoch under way; the DataLoader reads it
        sources = [spec.dataset for spec in self._specs]
        self._loader: DataLoader[VideoClip] = DataLoader(
            _Samples(sources, seed, max_consecutive_failures),
            batch_sampler=_Plan(self._batches),
            collate_fn=_collate,
            # DataLoader draws a seed for its workers, by default from the generator that dropout uses.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            **(_worker_settings(num_workers, prefetch_factor) if num_workers else {}),
        )

    @property
    def specs(self) -> tuple[LoaderSpec, ...]:
        """The data sets of the mix."""
        return self._specs

    def __len__(self) -> int:
        """Batches per epoch and rank."""
        return sum(self._counts)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchedClip]:
        """Batches of an epoch from number `start` on; those before are not loaded.

        RuntimeError if too many samples in a row cannot be read. One iterator can be in use at a time.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start: got {start}, expected 0 to {len(self)}, the batches of an epoch")
        self._batches[:] = self.plan(epoch)[start:]
        for number, loaded in enumerate(self._loader, start):
            self._report(loaded, f"epoch {epoch}, batch {number}")
            assert loaded.batch is not None
            yield loaded.batch

    def plan(self, epoch: int) -> list[list[SampleKey]]:
        """The samples of this rank's batches, in order."""
        orders = [iter(self._order(i, epoch)) for i in range(len(self._specs))]
        plan = []
        for i in self._mix(epoch):
            size = self._specs[i].batch_size
            everyone = list(itertools.islice(orders[i], size * self._world_size))
            mine = everyone[self._rank * size : (self._rank + 1) * size]
            plan.append([SampleKey(i, epoch, index) for index in mine])
        return plan

    def _num_batches(self, i: int, spec: LoaderSpec) -> int:
        """Batches of a data set per epoch, as its samples rounded to whole batches over all ranks."""
        samples = len(spec.dataset) // self._phases
        together = spec.batch_size * self._world_size
        count = (2 * samples + together) // (2 * together)
        if count == 0:
            raise ValueError(
                f"data set {i}: {samples} samples per epoch do not fill half a batch of {spec.batch_size} on "
                f"each of {self._world_size} processes: use a smaller batch, or a multiplier for the data set"
            )
        return count

    def _order(self, i: int, epoch: int) -> list[int]:
        """Samples of data set `i` for all ranks, shuffled; a last batch at least half full is filled from the start."""
        data_epoch, phase = divmod(epoch, self._phases)
        length = len(self._specs[i].dataset)
        order = _generator(self._seed, _Stream.ORDER, i, data_epoch).permutation(length)
        chunk = order[phase * (length // self._phases) :][: length // self._phases]
        return np.resize(chunk, self._counts[i] * self._specs[i].batch_size * self._world_size).tolist()

    def _mix(self, epoch: int) -> list[int]:
        """The data set of every step."""
        generator = _generator(self._seed, _Stream.MIX, epoch)
        left = np.array(self._counts)
        steps = []
        for draw in generator.random(len(self)):
            shares = np.cumsum(np.where(left > 0, self._counts, 0))
            chosen = int(np.searchsorted(shares, draw * shares[-1], side="right"))
            left[chosen] -= 1
            steps.append(chosen)
        return steps

    def _report(self, loaded: _Loaded, where: str) -> None:
        for problem in loaded.skipped:
            self.num_skipped += 1
            log.warning("%s: skipped a sample, %d so far: %s", where, self.num_skipped, problem)
        if loaded.batch is None:
            raise RuntimeError(
                f"{where}: {len(loaded.skipped)} samples in a row could not be read, the last because: "
                f"{loaded.skipped[-1]}"
            )


@dataclass(frozen=True)
class _Resampled:
    """A data set as if it had another length: its samples again and again, or a different part of them each epoch."""

    dataset: ClipDataset
    length: int

    def __len__(self) -> int:
        return self.length

    def clip(self, index: int, generator: np.random.Generator) -> VideoClip:
        total = len(self.dataset)
        # Of more samples than are wanted, each stands for several, of which the generator takes one.
        choices = max(math.ceil((total - index) / self.length), 1)
        return self.dataset.clip((index + self.length * int(generator.integers(choices))) % total, generator)


def _weighted(specs: Sequence[LoaderSpec]) -> tuple[LoaderSpec, ...]:
    """Data sets whose lengths are as their weights, and together what they were."""
    weights = [spec.weight for spec in specs]
    given = [weight for weight in weights if weight is not None]
    if not given:
        return tuple(specs)
    if len(given) < len(weights) or min(given) <= 0:
        raise ValueError(f"weights of data sets: expected one above 0 for each, got {weights}")
    total = sum(len(spec.dataset) for spec in specs)
    shares = [max(round(total * weight / sum(given)), 1) for weight in given]
    return tuple(
        replace(spec, dataset=_Resampled(spec.dataset, share)) for spec, share in zip(specs, shares, strict=True)
    )


class _Plan:
    """The batch sampler of a DataLoader that lives through all epochs."""

    def __init__(self, batches: list[list[SampleKey]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class _Samples(Dataset[VideoClip]):
    """Samples by key, in the worker."""

    def __init__(self, datasets: Sequence[ClipDataset], seed: int, max_consecutive_failures: int) -> None:
        self._datasets, self._seed, self._max_failures = tuple(datasets), seed, max_consecutive_failures
        self._too_short: set[tuple[int, int]] = set()  # samples that this worker need not look at again

    def __getitem__(self, key: SampleKey) -> tuple[VideoClip | None, list[str]]:  # type: ignore[override]
        """The clip of a key, or of another sample if that cannot be read, and what could not and was not known."""
        dataset = self._datasets[key.dataset]
        problems: list[str] = []
        index = key.index
        for attempt in range(self._max_failures):
            generator = _generator(self._seed, _Stream.SAMPLE, key.dataset, key.epoch, key.index, attempt)
            if attempt:
                index = int(generator.integers(len(dataset)))
            if (key.dataset, index) in self._too_short:
                continue
            try:
                return dataset.clip(index, generator), problems
            except (OSError, ValueError) as error:  # as RawDataset says; anything else is a fault
                problems.append(describe_error(error))
                if isinstance(error, TooShortError):
                    self._too_short.add((key.dataset, index))
        return None, problems or ["all that were drawn are too short, as was said before"]


def _collate(samples: Iterable[tuple[VideoClip | None, list[str]]]) -> _Loaded:
    clips, problems = zip(*samples, strict=True)
    for clip, reasons in zip(clips, problems, strict=True):
        if clip is None:
            return _Loaded(None, tuple(reasons))
    return _Loaded(collate(clips), tuple(itertools.chain.from_iterable(problems)))


def _worker_settings(num_workers: int, prefetch_factor: int) -> dict[str, Any]:
    """What DataLoader is told of its workers."""
    # A forked child would inherit locks of this process's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    exiting = context.Event()
    # When this process exits, multiprocessing calls these before it terminates workers and waits for their end.
    Finalize(None, exiting.set, exitpriority=100)
    return {
        "num_workers": num_workers,
        "prefetch_factor": prefetch_factor,
        "persistent_workers": True,
        "multiprocessing_context": context,
        "worker_init_fn": functools.partial(_begin_worker, exiting),
    }


def _begin_worker(exiting: Event, worker: int) -> None:
    """End with the parent, and no earlier.

    The Ctrl-C, SIGHUP or SIGTERM that all processes of a job get is outlived: the parent may want more batches. Its own
    SIGTERM, when it exits without having closed the loader, is obeyed.
    """
    end_with_parent()

    def terminate(number: int, frame: FrameType | None) -> None:
        if exiting.is_set():
            os._exit(0)

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)


def _generator(seed: int, *path: int) -> np.random.Generator:
    """Random numbers of their own for every seed and path."""
    return np.random.default_rng(np.random.SeedSequence([seed, *path]))
