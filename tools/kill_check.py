"""Kill and interrupt `i2v track` and training at random moments, and check what they leave behind.

python tools/kill_check.py --folder DIR [--kills 20] [--interrupts 10] [--terms 10] [--seed 0] [--only track]

After each signal, every file must be complete, and no temporary files of the previous run may be left. After every few
signals a run is completed: then no hidden file may be left, and the results must equal those of an undisturbed run: all
bytes of the files of `i2v track`; weights, optimizer state and losses of training. It takes half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import torch
from PIL import Image

if not __package__:
    # A script has only its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.demo import render_demo_clip
from i2v.errors import USER_ERRORS, describe_error
from i2v.prompts.sampling import centroid_pixel
from i2v.results.export import read_label_png
from i2v.utils.command import as_command
from i2v.utils.picture_file import write_picture

ROOT = Path(__file__).resolve().parents[1]
NUM_FRAMES = 24  # of the tracked clip
NUM_STEPS = 60  # of a training run
PATIENCE = 120.0  # timeout in seconds for everything
SIGNALS_PER_RUN = 10  # before a run is completed
UNSTEADY = ("seconds", "data_seconds", "memory_gib")  # logged values that depend on the machine


class Broken(RuntimeError):
    """A check failed after a signal; the message says which."""


class Subject(ABC):
    """A command to be disturbed.

    Attributes:
        name: Name of the command.
        spread: A signal is sent within this fraction (0..1) of the duration of a whole run, counted from its first
            output.
        folder: Folder of its results.
    """

    name: str
    spread: float

    def __init__(self, folder: Path) -> None:
        """Prepare the command, with its results in ``folder``."""
        self.folder = folder
        self._errors = folder.with_suffix(".stderr")

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """Module and arguments of the command, with results in a folder."""

    @abstractmethod
    def progress(self) -> int:
        """Progress of the run, from its output."""

    @abstractmethod
    def check(self, is_killed: bool) -> None:
        """Check that all files are complete.

        Args:
            is_killed: Whether the run had no chance to handle the signal.

        Raises:
            Broken: If a file is not.
        """

    @abstractmethod
    def results(self, folder: Path) -> dict[str, Any]:
        """Results of a completed run, which must be equal for all runs."""

    @abstractmethod
    def is_status(self, status: int, number: signal.Signals) -> bool:
        """Whether this exit status is allowed after a handled signal."""

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start the command in its own process group, to check that it leaves no processes behind."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", *self.command(folder)]
        # To a file: a pipe would stay open until the last process that inherited it ends.
        with self._errors.open("w") as told:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True
            )

    def told(self) -> str:
        """Output of the last started command on stderr."""
        return self._errors.read_text()

    def hidden(self) -> set[Path]:
        """Temporary files and folders."""
        return set(self.folder.rglob(".*"))


class Tracking(Subject):
    """`i2v track` on a rendered clip with the small model that is shipped with i2v."""

    name, spread = "track", 0.4

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "track")
        clip = render_demo_clip(NUM_FRAMES)
        self._video = folder / "clip"
        self._click = ",".join(map(str, centroid_pixel(clip.masks[0])))
        self._video.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(clip.frames):
            write_picture(self._video / f"{number:05d}.png", Image.fromarray(frame), "PNG")

    def command(self, folder: Path) -> list[str]:
        """The command as a user would repeat it."""
        options = ["--click", self._click, "--out", str(folder), "--overwrite", "--device", "cpu"]
        return ["i2v", "track", str(self._video), *options]

    def progress(self) -> int:
        """Number of masks."""
        return len(self._masks())

    def check(self, is_killed: bool) -> None:
        """Check that masks, JSON and video are complete, and after a handled signal that they have the same frames."""
        numbers = [int(path.stem) for path in self._masks()]
        for path in self._masks():
            read_label_png(path)
        rles, video = self.folder / "masks.json", self.folder / "overlay.mp4"
        listed = [entry["frame"] for entry in json.loads(rles.read_text())["frames"]] if rles.exists() else None
        shown = _num_frames(video) if video.exists() else None
        if (self.folder / "contact_sheet.png").exists():
            Image.open(self.folder / "contact_sheet.png").load()
        if not is_killed and numbers and (listed != numbers or shown != len(numbers)):
            raise Broken(f"masks of the frames {numbers}, JSON of {listed}, {shown} frames of video")

    def results(self, folder: Path) -> dict[str, Any]:
        """Bytes of all files."""
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def is_status(self, status: int, number: signal.Signals) -> bool:
        """Allow 128 plus the signal's number, and 0 or death by the signal if it came when the work was done."""
        return status in (0, 128 + number, -number)

    def _masks(self) -> list[Path]:
        return sorted((self.folder / "masks").glob("[0-9]*.png"))


class Training(Subject):
    """Training on rendered clips with a worker process, averaged weights and a checkpoint every other step."""

    name, spread = "training", 0.1

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "training")

    def command(self, folder: Path) -> list[str]:
        """Train the mini model at 64 pixels, so that a step takes a fraction of a second."""
        settings = {
            "model": "i2v-mini",
            "data": "synthetic",
            "launcher.gpus_per_node": 1,
            "launcher.experiment_log_dir": folder,
            "scratch.resolution": 64,
            "scratch.num_frames": 2,
            "scratch.num_epochs": 2,
            "scratch.num_train_workers": 1,
            "dataset.num_videos": NUM_STEPS // 2,
            "trainer.accelerator": "cpu",
            "trainer.optim.amp.enabled": "false",
            "trainer.ema_decay": 0.9,
            "trainer.checkpoint.initial": "none",
            "trainer.checkpoint.save_steps": 2,
            "trainer.logging.log_freq": 1,
            "trainer.logging.tensorboard": "false",
        }
        return ["train.train", "-c", "i2v-train", *(f"{key}={value}" for key, value in settings.items())]

    def progress(self) -> int:
        """Number of logged steps; those after the last checkpoint of a killed run are repeated."""
        path = self.folder / "logs" / "train_stats.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def check(self, is_killed: bool) -> None:
        """Check that all checkpoints can be read."""
        for path in (self.folder / "checkpoints").glob("[!.]*.pt"):
            torch.load(path, map_location="cpu", weights_only=True)

    def results(self, folder: Path) -> dict[str, Any]:
        """Weights, averaged weights, optimizer state and all losses."""
        state = torch.load(folder / "checkpoints" / "checkpoint.pt", weights_only=True)
        average = torch.load(folder / "checkpoints" / "ema.pt", weights_only=True)
        lines = [json.loads(line) for line in (folder / "logs" / "train_stats.jsonl").read_text().splitlines()]
        losses = [{key: value for key, value in line.items() if key not in UNSTEADY} for line in lines]
        kept = {key: state[key] for key in ("model", "optimizer", "average", "steps", "loss")}
        return {**_flat(kept), **_flat(average, "ema"), "losses": losses}

    def is_status(self, status: int, number: signal.Signals) -> bool:
        """Allow 0, after finishing and saving the current step, and death by the signal while it starts or ends."""
        return status in (0, 128 + number, -number)


def _num_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Flatten nested dicts and lists; tensors become bytes."""
    if isinstance(value, torch.Tensor):
        return {name: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())}
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for part, inner in pairs for key, leaf in _flat(inner, f"{name}.{part}").items()}
    return {name: value}


@dataclass
class Count:
    """Statistics of a command.

    Attributes:
        signals: Number of signals sent, by name.
        runs: Completed runs that were compared.
        leftovers: Temporary files that kills left behind, all removed by the next run.
    """

    signals: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    leftovers: int = 0

    def describe(self, name: str, seconds: float) -> str:
        """Format a line of the report."""
        sent = ", ".join(f"{count} {which}" for which, count in sorted(self.signals.items()))
        return (
            f"{name}: {sent}; {self.runs} completed runs with the results of an undisturbed one; "
            f"{self.leftovers} temporary files of killed runs, all removed by the next run; {seconds:.0f} s"
        )


class Disturbance:
    """Sends signals to runs of a command, and checks what each leaves behind."""

    def __init__(self, subject: Subject, rng: random.Random) -> None:
        """Start without any signal sent.

        Args:
            subject: The command.
            rng: Draws the moments of the signals.
        """
        self._subject = subject
        self._rng = rng
        self._count = Count()

    def run(self, numbers: Sequence[signal.Signals]) -> Count:
        """Send the signals in turn, each to a run of its own.

        Raises:
            Broken: If a check fails.
        """
        reference = self._subject.folder.with_name(f"{self._subject.name}-undisturbed")
        start = time.monotonic()
        self._finish(self._subject.start(reference))
        wanted = self._subject.results(reference)
        seconds = time.monotonic() - start
        waiting, sent = list(numbers), 0
        while waiting:
            is_hit = self._disturb(waiting[-1], seconds)
            if is_hit:
                self._count.signals[waiting.pop().name] += 1
                sent += 1
            if not is_hit or sent == SIGNALS_PER_RUN or not waiting:
                self._complete(wanted)
                sent = 0
        return self._count

    def _disturb(self, number: signal.Signals, seconds: float) -> bool:
        """Send a signal to a new run. Returns whether it was still running."""
        before = self._subject.hidden()
        process = self._subject.start(self._subject.folder)
        try:
            self._wait_for_progress(process)
            time.sleep(self._rng.uniform(0, self._subject.spread * seconds))
            is_hit = process.poll() is None
            if is_hit:
                process.send_signal(number)
            process.wait(timeout=PATIENCE)
        finally:
            process.kill()
        self._wait_for_group(process)
        told = self._subject.told()
        is_killed = process.returncode == -signal.SIGKILL
        left = self._subject.hidden()
        if before & left:
            raise Broken(f"{sorted(before & left)} is left from the previous run")
        if left and not is_killed:
            raise Broken(f"{sorted(left)} was left after {number.name}")
        if not is_killed and (not self._subject.is_status(process.returncode, number) or "Traceback" in told):
            raise Broken(f"status {process.returncode} after {number.name}: {told[-2000:]}")
        self._subject.check(is_killed)
        self._count.leftovers += len(left)
        return is_hit

    def _complete(self, wanted: dict[str, Any]) -> None:
        self._finish(self._subject.start(self._subject.folder))
        if left := self._subject.hidden():
            raise Broken(f"{sorted(left)} is left after a completed run")
        found = self._subject.results(self._subject.folder)
        differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        if differing:
            raise Broken(f"results differ from those of an undisturbed run: {', '.join(differing[:5])}")
        self._count.runs += 1
        self._subject.folder.rename(self._subject.folder.with_name(f"{self._subject.name}-{self._count.runs}"))

    def _wait_for_progress(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the run has written something new: it has then removed what the previous run left."""
        before, deadline = self._subject.progress(), time.monotonic() + PATIENCE
        known = self._newest()
        while process.poll() is None and self._newest() == known and self._subject.progress() == before:
            if time.monotonic() > deadline:
                raise Broken(f"no new output within {PATIENCE:.0f} s")
            time.sleep(0.01)

    def _newest(self) -> float:
        files = [path for path in self._subject.folder.rglob("[!.]*") if path.suffix in (".png", ".jsonl")]
        with suppress(FileNotFoundError):  # replaced meanwhile
            return max((path.stat().st_mtime for path in files), default=0.0)
        return -1.0

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(timeout=10 * PATIENCE)
        finally:
            process.kill()
        if process.returncode != 0:
            raise Broken(f"expected status 0, got {process.returncode}: {self._subject.told()[-2000:]}")

    def _wait_for_group(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until no process of the command is left."""
        deadline = time.monotonic() + PATIENCE
        with suppress(ProcessLookupError):
            while True:
                os.killpg(process.pid, 0)
                if time.monotonic() > deadline:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise Broken(f"processes were still running {PATIENCE:.0f} s after their parent had ended")
                time.sleep(0.05)


def make_parser() -> argparse.ArgumentParser:
    """Build the command line parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="for clips and results; new or empty")
    add("--kills", type=int, default=20, help="SIGKILLs per command (default: %(default)s)")
    add("--interrupts", type=int, default=10, help="SIGINTs (default: %(default)s)")
    add("--terms", type=int, default=10, help="SIGTERMs (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of order and moments (default: %(default)s)")
    add("--only", choices=(Tracking.name, Training.name), help="disturb only this command")
    return parser


@as_command("kill_check")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 passed, 1 failed."""
    args = make_parser().parse_args(argv)
    try:
        for line in check(args):
            print(line, flush=True)
    except (*USER_ERRORS, subprocess.TimeoutExpired) as error:
        print(f"kill_check: error: {describe_error(error)}", file=sys.stderr)
        return 1
    return 0


def check(args: argparse.Namespace) -> Iterator[str]:
    """Disturb the commands, and yield a line of the report for each.

    Raises:
        FileExistsError: If the folder is not empty.
        Broken: If a check fails.
    """
    args.folder.mkdir(parents=True, exist_ok=True)
    if any(args.folder.iterdir()):
        raise FileExistsError(f"{args.folder} is not empty")
    numbers = [signal.SIGKILL] * args.kills + [signal.SIGINT] * args.interrupts + [signal.SIGTERM] * args.terms
    for kind in (Tracking, Training):
        if args.only in (None, kind.name):
            rng = random.Random(args.seed)
            rng.shuffle(numbers)
            start = time.monotonic()
            count = Disturbance(kind(args.folder.resolve()), rng).run(numbers)
            yield count.describe(kind.name, time.monotonic() - start)


if __name__ == "__main__":
    sys.exit(main())
