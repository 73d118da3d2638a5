"""The same run in one process or several, under signals, and as a job."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch.multiprocessing import ProcessExitedException
from train_support import losses_of, run_in_own_folder, run_with_a_bad_clip, tiny_run

import train.launch
from i2v.config import ConfigError
from train.build import run
from train.launch import StopRequest, run_on_this_node, submit
from train.train import compose, main, parse

ROOT = Path(__file__).parents[2]

# Batch statistics and dropout are drawn by each process for itself; all else is shared out.
SHARED_OUT = (
    "trainer.freeze_batch_norm=true",
    *(f"model.memory_attention.layer{part}.dropout=0" for part in ("", ".self_attention", ".cross_attention")),
    *(f"model.memory_prompt_generator{part}.dropout=0" for part in ("", ".self_attention", ".cross_attention")),
)


def slow(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that starts processes, each of which takes seconds to import PyTorch."""
    return pytest.mark.slow(pytest.mark.timeout(300)(test))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(folder: Path, *overrides: str) -> list[str]:
    """The command line of a tiny run."""
    config = folder / "tiny.yaml"
    if not config.exists():
        config.write_text(OmegaConf.to_yaml(tiny_run(folder / "unused")))
    return [sys.executable, "-m", "train.train", "-c", str(config), *overrides]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    arguments = command(folder, *overrides)
    # Its own group, as a shell would make it, to which signals can be sent without hitting the tests.
    return subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_step(folder: Path, step: int, seconds: float = 100) -> None:
    path, deadline = folder / "logs" / "train_stats.jsonl", time.monotonic() + seconds
    while not (path.exists() and path.read_text().count("\n") >= step):
        assert time.monotonic() < deadline, f"no step {step} within {seconds} s"
        time.sleep(0.05)


@slow
def test_two_processes_are_as_good_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    shared = ("dataset.num_videos=8", *SHARED_OUT)
    run(tiny_run(tmp_path / "one", "scratch.train_batch_size=2", *shared))
    run_on_this_node(run, tiny_run(tmp_path / "two", "scratch.train_batch_size=1", *shared), 2)
    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=2e-4)


@slow
def test_a_loss_that_is_not_finite_on_one_rank_is_left_out_on_all(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "dataset.num_videos=6", *SHARED_OUT)
    run_on_this_node(run_with_a_bad_clip, config, 2)
    lines = (tmp_path / "logs" / "train_stats.jsonl").read_text()
    assert '"step": 3' in lines and "NaN" not in lines


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, ...]]:
    """Losses of ten steps in one go, in this process and without workers."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(tiny_run(folder, "dataset.num_videos=10"))
    return losses_of(folder)


@slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM], ids=lambda kill: kill.name)
def test_an_ended_run_goes_on_exactly(
    tmp_path: Path, kill: signal.Signals, uninterrupted: list[tuple[float, ...]]
) -> None:
    settings = (
        "dataset.num_videos=10",
        "scratch.num_train_workers=1",
        "trainer.checkpoint.save_steps=2",
        f"launcher.experiment_log_dir={tmp_path / 'ended'}",
    )
    process = start(tmp_path, *settings)
    wait_for_step(tmp_path / "ended", 3)
    os.killpg(process.pid, kill)  # to all processes at once, as clusters and terminals do
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if kill == signal.SIGKILL else 0), errors
    assert "Traceback" not in errors
    if kill != signal.SIGKILL:
        assert "the same command resumes from there" in errors
    assert 3 <= len(losses_of(tmp_path / "ended")) < 10
    assert main(command(tmp_path, *settings)[3:]) == 0
    assert losses_of(tmp_path / "ended") == uninterrupted


@slow
def test_machines_without_a_common_folder_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tiny_run(tmp_path / "rank0"))
    with pytest.raises(ProcessExitedException, match="terminated with exit code 1"):
        run_on_this_node(run_in_own_folder, tiny_run(tmp_path / "rank", "trainer.resume_changed=true"), 2)
    told = capfd.readouterr().err
    assert "has to be the same folder on all machines" in told
    assert "Traceback" not in told
    assert "Traceback" in (tmp_path / "rank0" / "logs" / "log.txt").read_text()


@slow
def test_sigterm_reaches_all_processes_through_the_first(tmp_path: Path) -> None:
    settings = ("dataset.num_videos=60", "launcher.gpus_per_node=2", f"launcher.experiment_log_dir={tmp_path / 'run'}")
    process = start(tmp_path, *settings)
    wait_for_step(tmp_path / "run", 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert (tmp_path / "run" / "checkpoints" / "checkpoint.pt").exists()
    assert len(losses_of(tmp_path / "run")) < 30


@slow
def test_a_job_of_submitit_is_the_same_run(tmp_path: Path, uninterrupted: list[tuple[float, ...]]) -> None:
    folder = f"launcher.experiment_log_dir={tmp_path / 'job'}"
    job = ("--use-cluster", "1", "submitit.cluster=local", "dataset.num_videos=10", folder)
    finished = subprocess.run(command(tmp_path, *job), cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0 and "submitted job" in finished.stderr, finished.stderr
    assert losses_of(tmp_path / "job") == uninterrupted


@slow
def test_torchrun_starts_the_same_run(tmp_path: Path, uninterrupted: list[tuple[float, ...]]) -> None:
    arguments = command(tmp_path, "dataset.num_videos=10", f"launcher.experiment_log_dir={tmp_path / 'torchrun'}")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    finished = subprocess.run(
        [arguments[0], *launcher, *arguments[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert losses_of(tmp_path / "torchrun") == uninterrupted


def test_a_second_signal_acts_at_once_but_for_echoes_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest()
    before = signal.getsignal(signal.SIGINT)
    with stop.listening():
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # within a second
        assert stop()
        monkeypatch.setattr(train.launch, "REPEAT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_published_options_set_their_keys() -> None:
    arguments = ["-c", "configs/i2v-train", "--num-gpus", "8", "--num-nodes", "4", "--use-cluster", "1"]
    arguments += [
        "--partition",
        "gpu",
        "--account",
        "me",
        "--qos",
        "high",
        "scratch.num_frames=4",
        "dataset.root=/data",
    ]
    config = compose(parse(arguments))
    assert (config.launcher.gpus_per_node, config.launcher.num_nodes) == (8, 4)
    assert (config.submitit.partition, config.submitit.account, config.submitit.qos) == ("gpu", "me", "high")
    assert config.submitit.use_cluster == 1 and config.scratch.num_frames == 4
    assert config.launcher.experiment_log_dir == "logs/i2v-train"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "i2v-trian"], "'i2v-trian' not found"),
        (["-c", "i2v-train", "scratch.base_lrr=1"], "unknown key 'scratch.base_lrr'; did you mean"),
        (["-c", "i2v-train", "data=synthetic", "trainer.mode=val"], "trainer.mode=val needs held-out videos"),
        (["-c", "i2v-train", "data=synthetic", "--num-nodes", "2"], "start several nodes through torchrun"),
        (["-c", "i2v-train", "data=synthetic", "--use-cluster", "1"], "expected the number of processes"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], message: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with caplog.at_level(logging.ERROR):
        assert main(arguments) == 1
    assert message in caplog.text


def test_missing_paths_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert main(["-c", "i2v-train"]) == 1
    assert "missing settings: dataset.root, dataset.sa1b_file_list_txt" in caplog.text


@pytest.mark.parametrize("key", ["comment", "partition", "name", "srun_args.cpu_bind", None])
def test_no_setting_of_a_job_becomes_a_command(tmp_path: Path, key: str | None) -> None:
    """submitit writes its settings into a shell script, one a line."""
    config = tiny_run(tmp_path, "submitit.cluster=local")
    folder = tmp_path / "jobs"
    if key:
        OmegaConf.update(config, f"submitit.{key}", "a\ntouch marker")
    else:
        folder = tmp_path / "jobs\ntouch marker"
    with pytest.raises(ConfigError, match=r"submitit\.\w+: expected one line of plain text, got .*touch marker"):
        submit(run, config, folder, 1, 1, on_gpus=False)
