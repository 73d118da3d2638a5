"""Who does what: parts of a run, their lengths, and their devices."""

from __future__ import annotations

import pytest

from test_pvs.sharding import Shard, balance, choose_devices, read_shard


def test_no_environment_is_one_part():
    assert read_shard({"HOME": "/root"}) == Shard(0, 1, 0, 1)


def test_torchrun():
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "SLURM_PROCID": "0"}
    assert read_shard(environment) == Shard(5, 8, 1, 4)


def test_slurm():
    environment = {"SLURM_PROCID": "3", "SLURM_NTASKS": "6", "SLURM_LOCALID": "1", "SLURM_NNODES": "3"}
    assert read_shard(environment) == Shard(3, 6, 1, 2)
    assert read_shard(environment | {"SLURM_GPUS_PER_TASK": "2"}) == Shard(3, 6, 0, 1)
    assert read_shard({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}) == Shard(1, 2, 0, 2)


def test_the_command_line_wins():
    assert read_shard({"RANK": "5", "WORLD_SIZE": "8"}, "2/3") == Shard(2, 3)


@pytest.mark.parametrize("text", ["3", "a/b", "3/", "-1/2", "1/2/3"])
def test_texts_that_name_no_part(text):
    with pytest.raises(ValueError, match=r"shard: expected INDEX/COUNT, as 0/4, got"):
        read_shard({}, text)


def test_parts_that_there_are_not():
    with pytest.raises(ValueError, match="expected a part from 0 to 1, got 2 of 2"):
        read_shard({}, "2/2")
    with pytest.raises(ValueError, match="environment: expected whole numbers, got RANK=x, WORLD_SIZE=8"):
        read_shard({"RANK": "x", "WORLD_SIZE": "8"})


def test_shares_are_of_equal_length_and_hold_everything_once():
    lengths = {f"v{i:02d}": length for i, length in enumerate([300, 20, 20, 20, 100, 100, 100, 50, 10, 280])}
    shares = balance(lengths, 3)
    assert sorted(name for share in shares for name in share) == sorted(lengths)
    sums = [sum(lengths[name] for name in share) for share in shares]
    assert max(sums) - min(sums) <= 20
    assert all(share == sorted(share, key=lambda name: (-lengths[name], name)) for share in shares)
    assert balance({"a": 3}, 2) == [["a"], []]


@pytest.mark.parametrize(
    ("shard", "workers", "devices"),
    [
        (Shard(), None, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (Shard(), 6, ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1"]),
        (Shard(5, 8, 1, 4), None, ["cuda:1"]),
        (Shard(3, 4, 1, 2), None, ["cuda:1", "cuda:3"]),
        (Shard(5, 8, 5, 8), None, ["cuda:1"]),
    ],
)
def test_gpus_are_divided_among_the_parts_of_a_machine(shard, workers, devices):
    assert choose_devices("cuda", 4, shard, workers) == devices


def test_other_devices_are_shared():
    assert choose_devices("cpu", 0, Shard(), num_cores=4) == ["cpu"] * 4
    assert choose_devices("cpu", 0, Shard(), num_cores=64) == ["cpu"] * 8
    assert choose_devices("cpu", 0, Shard(1, 8, 1, 3), num_cores=7) == ["cpu"] * 2
    assert choose_devices("mps", 0, Shard(), num_cores=4) == ["mps"]
    assert choose_devices("cpu", 0, Shard(1, 2, 1, 2), 3) == ["cpu"] * 3
    with pytest.raises(ValueError, match="PyTorch finds no GPU"):
        choose_devices("cuda", 0, Shard(), None)
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        choose_devices("cpu", 0, Shard(), 0)
