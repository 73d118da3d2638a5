"""Batches from several data sets, in an order that depends on the seed only, not on workers and restarts."""

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
    """What random numbers are used for; the streams of one seed are independent."""

    MIX = 0
    ORDER = 1
    SAMPLE = 2


@dataclass(frozen=True)
class LoaderSpec:
    """A data set of the mix.

    Attributes:
        dataset: The data set.
        batch_size: Clips per step on every rank.
        weight: Share of its clips in an epoch, relative to the weights of the others; ``None`` for all it has. Either
            all data sets of a mix have weights, or none.
    """

    dataset: ClipDataset
    batch_size: int
    weight: float | None = None


@dataclass(frozen=True)
class SampleKey:
    """A sample of an epoch; its random choices depend on the key and the seed only.

    Attributes:
        dataset: Number of the data set in the mix.
        epoch: Number of the epoch.
        index: Number of the sample in the data set.
    """

    dataset: int
    epoch: int
    index: int


@dataclass(frozen=True)
class _Loaded:
    """What a worker returns: a batch or ``None``, and why samples were skipped."""

    batch: BatchedClip | None
    skipped: tuple[str, ...]

    def pin_memory(self) -> _Loaded:  # called by DataLoader
        return _Loaded(None if self.batch is None else self.batch.pin_memory(), self.skipped)


class MixedLoader:
    """Mixes data sets by the published rule: each step draws one of them, the same on all ranks.

    Probabilities are proportional to the number of batches of each data set; an exhausted data set is no longer drawn,
    and the epoch ends when all are exhausted. Batch k of an epoch depends only on the seed, k and the global batch
    sizes: with half the batch size on twice the ranks, the ranks' batches together are the same.
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

        Args:
            loaders: The data sets and their batch sizes.
            seed: Seed of order and samples.
            rank: Rank of this process.
            world_size: Number of processes.
            num_workers: Loading processes, shared by all data sets; 0 loads between steps.
            prefetch_factor: Batches that each worker prepares ahead.
            max_consecutive_failures: An unreadable sample is replaced by another of its data set, at most this many
                times in a row.
            phases_per_epoch: Number of epochs into which one pass over the data is split.
            pin_memory: Whether to load into page-locked memory; ``None`` does if there is a GPU.

        Raises:
            ValueError: If a setting is out of range or leaves a data set without a batch.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: expected 0 to {world_size - 1} for a world size of {world_size}, got {rank}")
        if phases_per_epoch < 1 or max_consecutive_failures < 1:
            raise ValueError("phases_per_epoch and max_consecutive_failures: expected at least 1")
        self._specs = _weighted(loaders)
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._phases = phases_per_epoch
        self._counts = [self._num_batches(i, spec) for i, spec in enumerate(self._specs)]
        self.num_skipped = 0  # unreadable samples of this rank so far
        self._batches: list[list[SampleKey]] = []  # of the current epoch, read by the DataLoader
        sources = [spec.dataset for spec in self._specs]
        self._loader: DataLoader[VideoClip] = DataLoader(
            _Samples(sources, seed, max_consecutive_failures),
            batch_sampler=_Plan(self._batches),
            collate_fn=_collate,
            # DataLoader draws a seed for its workers, by default from the global generator, which dropout uses.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            **(_worker_settings(num_workers, prefetch_factor) if num_workers else {}),
        )

    @property
    def specs(self) -> tuple[LoaderSpec, ...]:
        """The data sets of the mix."""
        return self._specs

    def __len__(self) -> int:
        """Number of batches per epoch and rank."""
        return sum(self._counts)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchedClip]:
        """Iterate over the batches of an epoch. Only one iterator can be in use at a time.

        Args:
            epoch: Number of the epoch.
            start: Number of the first batch; earlier ones are not loaded.

        Raises:
            ValueError: If ``start`` is out of range.
            RuntimeError: If too many samples in a row cannot be read.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start: expected 0 to {len(self)}, the batches of an epoch, got {start}")
        self._batches[:] = self.plan(epoch)[start:]
        for number, loaded in enumerate(self._loader, start):
            self._report(loaded, f"epoch {epoch}, batch {number}")
            assert loaded.batch is not None
            yield loaded.batch

    def plan(self, epoch: int) -> list[list[SampleKey]]:
        """List the samples of this rank's batches of an epoch, in order."""
        orders = [iter(self._order(i, epoch)) for i in range(len(self._specs))]
        plan = []
        for i in self._mix(epoch):
            size = self._specs[i].batch_size
            everyone = list(itertools.islice(orders[i], size * self._world_size))
            mine = everyone[self._rank * size : (self._rank + 1) * size]
            plan.append([SampleKey(i, epoch, index) for index in mine])
        return plan

    def _num_batches(self, i: int, spec: LoaderSpec) -> int:
        """Number of batches of a data set per epoch: its samples, rounded to whole batches over all ranks."""
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
        """Shuffle the samples of data set ``i`` for all ranks; a last batch is filled up from the start."""
        data_epoch, phase = divmod(epoch, self._phases)
        length = len(self._specs[i].dataset)
        order = _generator(self._seed, _Stream.ORDER, i, data_epoch).permutation(length)
        chunk = order[phase * (length // self._phases) :][: length // self._phases]
        return np.resize(chunk, self._counts[i] * self._specs[i].batch_size * self._world_size).tolist()

    def _mix(self, epoch: int) -> list[int]:
        """Draw the data set of every step."""
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
                f"{where}: {len(loaded.skipped)} samples in a row could not be read, the last one: {loaded.skipped[-1]}"
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
    """Batch sampler of a DataLoader that is kept for all epochs: the list is replaced in place."""

    def __init__(self, batches: list[list[SampleKey]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class _Samples(Dataset[VideoClip]):
    """Loads samples by key in the worker."""

    def __init__(self, datasets: Sequence[ClipDataset], seed: int, max_consecutive_failures: int) -> None:
        self._datasets, self._seed, self._max_failures = tuple(datasets), seed, max_consecutive_failures
        self._too_short: set[tuple[int, int]] = set()  # samples that this worker need not look at again

    def __getitem__(self, key: SampleKey) -> tuple[VideoClip | None, list[str]]:  # type: ignore[override]
        """Load the clip of a key, or of another sample if that cannot be read. Returns the new errors, too."""
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
            except (OSError, ValueError) as error:  # the documented errors of RawDataset; anything else is a bug
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
    """DataLoader options for worker processes."""
    # A forked child would inherit the locks of this process's threads, possibly held.
    context = multiprocessing.get_context("spawn")
    exiting = context.Event()
    # At exit, multiprocessing runs finalizers of this priority before it terminates and joins the workers.
    Finalize(None, exiting.set, exitpriority=100)
    return {
        "num_workers": num_workers,
        "prefetch_factor": prefetch_factor,
        "persistent_workers": True,
        "multiprocessing_context": context,
        "worker_init_fn": functools.partial(_begin_worker, exiting),
    }


def _begin_worker(exiting: Event, worker: int) -> None:
    """Let a worker end with its parent, and not earlier.

    A worker ignores Ctrl-C, SIGHUP and SIGTERM, which all processes of a job get: the parent may need more batches. It
    obeys SIGTERM once the parent is exiting without having closed the loader.
    """
    end_with_parent()

    def terminate(number: int, frame: FrameType | None) -> None:
        if exiting.is_set():
            os._exit(0)

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)


def _generator(seed: int, *path: int) -> np.random.Generator:
    """Create a generator that is independent for every seed and path."""
    return np.random.default_rng(np.random.SeedSequence([seed, *path]))
