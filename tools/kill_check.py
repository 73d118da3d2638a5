"""Kill and interrupt `i2v track` and training at random moments, and look at what is left.

python tools/kill_check.py --folder DIR [--kills 20] [--interrupts 10] [--terms 10] [--seed 0] [--only track]

After each signal every file has to be whole, and nothing may be left of the run before it. Every few signals a run
goes on to its end: then no hidden file may be left, and the results have to be those of a run that nobody disturbed:
the bytes of all files of `i2v track`; of training the weights, the state of the optimizer and all losses. It takes
half an hour on one core.
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
    # Run as a script, this file sees only its own folder.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.demo import render_demo_clip
from i2v.errors import USER_ERRORS, describe_error
from i2v.prompts.sampling import centroid_pixel
from i2v.results.export import read_label_png
from i2v.utils.command import as_command
from i2v.utils.picture_file import write_picture

ROOT = Path(__file__).resolve().parents[1]
NUM_FRAMES = 24  # of the clip that is tracked
NUM_STEPS = 60  # of a run of training
PATIENCE = 120.0  # seconds that anything may take
SIGNALS_PER_RUN = 10  # until a run goes on to its end
UNSTEADY = ("seconds", "data_seconds", "memory_gib")  # what a log says of the machine


class Broken(RuntimeError):
    """Something that a signal has left is not as it should be; the message says what."""


class Subject(ABC):
    """A command that is disturbed. Its results are in ``folder``.

    ``spread``: within which part of a whole run's time, from when a run has written something, a signal comes.
    """

    name: str
    spread: float

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._errors = folder.with_suffix(".stderr")

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """The words of the command, with its results in a folder."""

    @abstractmethod
    def progress(self) -> int:
        """How far the run has come, from what it has written."""

    @abstractmethod
    def check(self, is_killed: bool) -> None:
        """Check that what is there is whole. Raises Broken."""

    @abstractmethod
    def results(self, folder: Path) -> dict[str, Any]:
        """What a run that has ended has to have in common with any other one."""

    @abstractmethod
    def is_status(self, status: int, number: signal.Signals) -> bool:
        """Whether the command may end so after a signal that it has handled."""

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start the command in a group of its own, to see whether it leaves processes behind."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", *self.command(folder)]
        # To a file: the end of a pipe would be that of the last process that has it.
        with self._errors.open("w") as told:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True
            )

    def told(self) -> str:
        """What the command that was started last has written to stderr."""
        return self._errors.read_text()

    def hidden(self) -> set[Path]:
        """Unfinished files and folders."""
        return set(self.folder.rglob(".*"))


class Tracking(Subject):
    """`i2v track` of a rendered clip with the small model that comes with i2v."""

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
        """As a user would give it, again and again."""
        options = ["--click", self._click, "--out", str(folder), "--overwrite", "--device", "cpu"]
        return ["i2v", "track", str(self._video), *options]

    def progress(self) -> int:
        """Masks that are there."""
        return len(self._masks())

    def check(self, is_killed: bool) -> None:
        """Masks, JSON and video are whole; after a signal that was handled they are of the same frames."""
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
        """The bytes of all files."""
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def is_status(self, status: int, number: signal.Signals) -> bool:
        """128 and the number of the signal; 0 or the signal's own end if it came when the work was done."""
        return status in (0, 128 + number, -number)

    def _masks(self) -> list[Path]:
        return sorted((self.folder / "masks").glob("[0-9]*.png"))


class Training(Subject):
    """Training on rendered clips with a worker process, averaged weights and a save every other step."""

    name, spread = "training", 0.1

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "training")

    def command(self, folder: Path) -> list[str]:
        """The tenth-size model at 64 pixels: a step takes a fraction of a second."""
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
        """Steps that are in the log; what a killed run has logged after its last save comes again."""
        path = self.folder / "logs" / "train_stats.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def check(self, is_killed: bool) -> None:
        """All checkpoints can be read."""
        for path in (self.folder / "checkpoints").glob("[!.]*.pt"):
            torch.load(path, map_location="cpu", weights_only=True)

    def results(self, folder: Path) -> dict[str, Any]:
        """Weights, averages, the state of the optimizer, and all losses."""
        state = torch.load(folder / "checkpoints" / "checkpoint.pt", weights_only=True)
        average = torch.load(folder / "checkpoints" / "ema.pt", weights_only=True)
        lines = [json.loads(line) for line in (folder / "logs" / "train_stats.jsonl").read_text().splitlines()]
        losses = [{key: value for key, value in line.items() if key not in UNSTEADY} for line in lines]
        kept = {key: state[key] for key in ("model", "optimizer", "average", "steps", "loss")}
        return {**_flat(kept), **_flat(average, "ema"), "losses": losses}

    def is_status(self, status: int, number: signal.Signals) -> bool:
        """0: the step under way was finished and saved. While it starts or ends, the signal ends it at once."""
        return status in (0, 128 + number, -number)


def _num_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """All tensors and numbers of nested dicts and lists, tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return {name: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())}
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for part, inner in pairs for key, leaf in _flat(inner, f"{name}.{part}").items()}
    return {name: value}


@dataclass
class Count:
    """What has been seen of a command."""

    signals: Counter[str] = field(default_factory=Counter)
    runs: int = 0  # that came to their end and were compared
    leftovers: int = 0  # unfinished files that kills have left, and that were gone after the next run

    def describe(self, name: str, seconds: float) -> str:
        """A line for the report."""
        sent = ", ".join(f"{count} {which}" for which, count in sorted(self.signals.items()))
        return (
            f"{name}: {sent}; {self.runs} runs to the end with the results of an undisturbed one; "
            f"{self.leftovers} unfinished files of killed runs, all removed by the next run; {seconds:.0f} s"
        )


class Disturbance:
    """Sends signals to the runs of a command, and checks what each of them leaves. Raises Broken."""

    def __init__(self, subject: Subject, rng: random.Random) -> None:
        self._subject = subject
        self._rng = rng
        self._count = Count()

    def run(self, numbers: Sequence[signal.Signals]) -> Count:
        """Send the signals one after the other, each to a run of its own."""
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
        """Send a signal to a new run. False if that ended before."""
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
            raise Broken(f"{sorted(before & left)} is still there from the run before")
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
            raise Broken(f"{sorted(left)} is still there after a run that has ended")
        found = self._subject.results(self._subject.folder)
        differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        if differing:
            raise Broken(f"results differ from those of an undisturbed run: {', '.join(differing[:5])}")
        self._count.runs += 1
        self._subject.folder.rename(self._subject.folder.with_name(f"{self._subject.name}-{self._count.runs}"))

    def _wait_for_progress(self, process: subprocess.Popen[bytes]) -> None:
        """Until the run has written something new: from then on it has cleared what was left before it."""
        before, deadline = self._subject.progress(), time.monotonic() + PATIENCE
        known = self._newest()
        while process.poll() is None and self._newest() == known and self._subject.progress() == before:
            if time.monotonic() > deadline:
                raise Broken(f"nothing new within {PATIENCE:.0f} s")
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
            raise Broken(f"status {process.returncode}, wanted 0: {self._subject.told()[-2000:]}")

    def _wait_for_group(self, process: subprocess.Popen[bytes]) -> None:
        """Until no process of the command is left."""
        deadline = time.monotonic() + PATIENCE
        with suppress(ProcessLookupError):
            while True:
                os.killpg(process.pid, 0)
                if time.monotonic() > deadline:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise Broken(f"processes were still there {PATIENCE:.0f} s after their parent had ended")
                time.sleep(0.05)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="for clips and results; new or empty")
    add("--kills", type=int, default=20, help="SIGKILLs for each command (default: %(default)s)")
    add("--interrupts", type=int, default=10, help="SIGINTs (default: %(default)s)")
    add("--terms", type=int, default=10, help="SIGTERMs (default: %(default)s)")
    add("--seed", type=int, default=0, help="of order and moments (default: %(default)s)")
    add("--only", choices=(Tracking.name, Training.name), help="disturb this command alone")
    return parser


@as_command("kill_check")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the check. Returns the exit status: 0 all was as it should be, 1 not."""
    args = make_parser().parse_args(argv)
    try:
        for line in check(args):
            print(line, flush=True)
    except (*USER_ERRORS, subprocess.TimeoutExpired) as error:
        print(f"kill_check: error: {describe_error(error)}", file=sys.stderr)
        return 1
    return 0


def check(args: argparse.Namespace) -> Iterator[str]:
    """Disturb the commands; a line for each."""
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
