"""Semi-supervised testing: prompt every object of a benchmark on its first frame, and write its masks.

python -m test_pvs.semi_infer --input gm --ckpt sam-i2v_8gpu --data_root DIR

All visible GPUs are used, or the CPU; SLURM or torchrun can spread a run over nodes. Objects whose masks exist are
skipped, so an interrupted run can be resumed.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from i2v.build_i2v import build_i2v_video_predictor, resolve_device
from i2v.checkpoint import read_checkpoint_info
from i2v.cli.arguments import add_trust_option
from i2v.cli.checkout import NAME_VARIABLE
from i2v.cli.numbers import count
from i2v.config import load_config
from i2v.errors import USER_ERRORS, describe_error, listed
from i2v.pretrained import PUBLISHED, config_of
from i2v.utils.command import as_command
from i2v.utils.output_folder import child
from i2v.utils.terminal import log_to_stderr, printable
from sav_dataset.utils.datasets import LAYOUTS, Dataset, open_dataset
from sav_dataset.utils.void_labels import read_ignore_labels
from test_pvs.prompts import PROTOCOLS, protocol
from test_pvs.run_settings import RunSettings, claim_folder
from test_pvs.sharding import Shard, balance, choose_devices, read_shard
from test_pvs.targets import Annotations, list_frames
from test_pvs.video_job import VideoJob, run_video
from test_pvs.workers import Failure, Work, run_jobs

ROOT = Path(__file__).resolve().parents[1]
NUM_WRITERS = 4  # threads per process that compress PNGs
Start = Callable[[RunSettings, str, bool], Work[VideoJob]]  # settings, device, whether the config is trusted


def make_parser() -> argparse.ArgumentParser:
    """Build the command line parser; its first four options are those of the published script."""
    parser = argparse.ArgumentParser(
        prog=os.environ.get(NAME_VARIABLE), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", choices=PROTOCOLS, required=True, help="prompt: true mask, box, or one, three or five clicks")
    add("--ckpt", required=True, help="NAME for checkpoints/NAME.pt, a path, or 'none' for random weights")
    add("--yaml", help="config: its name or path (default: the one that the checkpoint is for)")
    add_trust_option(parser)
    add("--save_dir_name", help="folder of the run below --output_root (default: the checkpoint's name)")
    add("--dataset", choices=LAYOUTS, default="sav", help="benchmark (default: %(default)s)")
    add("--data_root", type=Path, required=True, help="folder of the benchmark")
    add("--split", help="split, such as val or valid (default: the usual one)")
    add("--images", type=Path, help="folder of the videos' frames, if not at its usual place")
    add("--annotations", type=Path, help="folder of the annotations, if not at its usual place")
    add("--mask_info", type=Path, help="take prompts from here (default for sav: DATA_ROOT/mask_info, if it exists)")
    add("--ignore_labels", metavar="L,L", help="labels that are void, or none (default: 255 beside other labels)")
    add("--video_list", type=Path, help="only the videos of this list")
    add("--output_root", type=Path, default=ROOT / "test_pvs" / "output_semi", help="default: %(default)s")
    add("--device", default="auto", help="cuda, cpu, ... (default: GPUs if there are any)")
    add("--gpus", type=count, help="number of visible GPUs to use (default: all)")
    add("--workers", type=count, help="processes (default: one per GPU; on the CPU one per core, at most 8)")
    add("--threads", type=count, default=1, help="CPU threads of each process (default: %(default)s)")
    add("--shard", help="run only part I of N, as 0/4 (default: from SLURM or torchrun, else everything)")
    add("--per_object", action="store_true", help="one pass over the video per object; same masks, slower")
    add("--replay_best", action="store_true", help="clicks: repeat the best ones exactly, unlike the published script")
    add("--no_postprocessing", action="store_true", help="disable the published post-processing of masks")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="precision (default: bfloat16 on GPUs)")
    add("--overwrite", action="store_true", help="predict existing masks again")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="config overrides, such as predictor.seed=7")
    return parser


@as_command("semi_infer", "the same command resumes from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed, 130 interrupted."""
    args = make_parser().parse_args(argv)
    return tell_failures("semi_infer", lambda: run(args))


def tell_failures(command: str, run: Callable[[], list[Failure[VideoJob]]]) -> int:
    """Run videos, and print what went wrong. Returns the exit status: 0 done, 1 failed."""
    log_to_stderr(logging.WARNING, "%(levelname)s: %(message)s")
    try:
        failures = run()
    except USER_ERRORS as error:
        print(f"{command}: error: {describe_error(error)}", file=sys.stderr)
        return 1
    for failure in failures:
        print(f"{command}: error: video {printable(f'{failure.job.video}: {failure.reason}')}", file=sys.stderr)
    return 1 if failures else 0


def run(args: argparse.Namespace, start: Start | None = None) -> list[Failure[VideoJob]]:
    """Run this process's shard.

    Args:
        args: The command line, parsed.
        start: What worker processes do first, importable by them; ``start_worker`` by default.

    Returns:
        The videos that failed.
    """
    shard = read_shard(os.environ, args.shard)
    dataset = open_dataset(args.dataset, args.data_root, args.split, args.images, args.annotations, args.video_list)
    settings = _settings(args)
    load_config(
        settings.config, settings.overrides, args.trust_config
    )  # an invalid config is reported once, before processes start
    folder = run_folder(args)
    jobs = plan_jobs(args, dataset, folder, shard)
    pending = [job for job in jobs if not job.is_finished()]
    claim_folder(folder, settings, args.overwrite)
    print(
        f"{folder}: part {shard.index + 1} of {shard.count}, {len(jobs)} videos, "
        f"{len(jobs) - len(pending)} of them already finished"
    )
    starters = _starters(args, settings, shard, start or start_worker)
    begun = time.perf_counter()
    with tqdm(total=sum(job.num_frames for job in pending), unit=" frames", position=shard.local_index) as bar:
        failures = run_jobs(pending, starters, _FrameCounter(bar))
        num_frames = bar.n
    seconds = time.perf_counter() - begun
    print(f"{num_frames} frames in {seconds:.1f} s, {num_frames / max(seconds, 1e-9):.2f} frames/s")
    if failures:
        done = len(jobs) - len(failures)
        print(f"{done} of {len(jobs)} videos are finished; the same command retries the others")
    return failures


def run_folder(args: argparse.Namespace) -> Path:
    """Folder of a run's masks, named as by the published script."""
    name = Path(args.ckpt).name.removesuffix(".pt")
    benchmark = "SAVTest" if args.dataset == "sav" else args.dataset
    return Path(args.output_root) / (args.save_dir_name or name) / f"Semi_{benchmark}_{name}_{args.input}"


def find_checkpoint(name: str) -> str | None:
    """Find a checkpoint.

    Args:
        name: A path, NAME for ``checkpoints/NAME.pt``, or "none" for random weights.

    Returns:
        Its path; ``None`` for "none".

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if name == "none":
        return None
    tried = [Path(name), *(ROOT / "checkpoints" / file for file in (name, f"{name}.pt"))]
    for path in tried:
        if path.is_file():
            return str(path.resolve())
    raise FileNotFoundError(f"checkpoint {name!r} not found; tried {', '.join(map(str, tried))}")


def plan_jobs(args: argparse.Namespace, dataset: Dataset, folder: Path, shard: Shard) -> list[VideoJob]:
    """Plan the videos of a shard, longest first.

    Args:
        args: The command line.
        dataset: The benchmark.
        folder: Folder of the run.
        shard: Which videos to process here.

    Raises:
        FileNotFoundError: If any video of the benchmark has no annotations.
        ValueError: If the folder of a video's results is a symbolic link.
    """
    mask_info = args.mask_info
    if mask_info is None and args.annotations is None and args.dataset == "sav":
        beside = args.data_root / "mask_info"
        mask_info = beside if beside.is_dir() else None
    root = mask_info or dataset.annotations
    lacking = [video for video in dataset.videos if not (root / video).is_dir()]
    if lacking:
        raise FileNotFoundError(f"{root}: no annotations of {listed(lacking, 5)}")
    lengths = {video: len(list_frames(dataset.frames(video)).names) for video in dataset.videos}
    layout, ignored = dataset.layout, _ignore_labels(args)
    return [
        VideoJob(
            video,
            frames=dataset.frames(video),
            num_frames=lengths[video],
            annotations=Annotations(root / video, mask_info is not None, layout.single_object, ignored),
            output=child(folder, video),
            object_folders=layout.object_folders,
            per_object=args.per_object,
            redo=args.overwrite,
        )
        for video in balance(lengths, shard.count)[shard.index]
    ]


class _FrameCounter:
    """Shows the progress of all videos as frames on a progress bar."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar
        self._frames: dict[str, int] = {}

    def __call__(self, job: VideoJob, done: float) -> None:
        frames = round(done * job.num_frames)
        self._bar.update(frames - self._frames.get(job.video, 0))
        self._frames[job.video] = frames


def find_config(checkpoint: str | None) -> str:
    """The config that a checkpoint is for: the one that it names, or that its run wrote beside it; else the published.

    CheckpointError where it names what is no config of the package.
    """
    if checkpoint is None:
        return PUBLISHED
    return config_of(checkpoint, read_checkpoint_info(checkpoint).metadata)


def _settings(args: argparse.Namespace) -> RunSettings:
    checkpoint = find_checkpoint(args.ckpt)
    return RunSettings(
        prompt=args.input,
        config=args.yaml or find_config(checkpoint),
        checkpoint=checkpoint,
        dataset=args.dataset,
        overrides=tuple(args.overrides),
        dtype=args.dtype,
        postprocessing=not args.no_postprocessing,
        replay_best=args.replay_best,
        threads=args.threads,
        ignore_labels=_ignore_labels(args),
    )


def _ignore_labels(args: argparse.Namespace) -> tuple[int, ...] | None:
    return None if args.ignore_labels is None else read_ignore_labels(args.ignore_labels)


def _starters(
    args: argparse.Namespace, settings: RunSettings, shard: Shard, start: Start
) -> list[Callable[[], Work[VideoJob]]]:
    kind = resolve_device(None if args.device == "auto" else args.device).type
    num_gpus = torch.cuda.device_count() if kind == "cuda" else 0
    if args.gpus is not None and args.gpus > num_gpus:
        raise ValueError(f"--gpus: expected at most {num_gpus}, the GPUs that PyTorch finds, got {args.gpus}")
    chosen = num_gpus if args.gpus is None else args.gpus
    devices = choose_devices(kind, chosen, shard, args.workers, os.cpu_count() or 1)
    return [functools.partial(start, settings, device, args.trust_config) for device in devices]


def start_worker(settings: RunSettings, device: str, trust_config: bool = False) -> Work[VideoJob]:
    """Build a predictor in a worker process. Returns a function that runs a video with it."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)  # without a checkpoint, every process has the same random weights
    predictor = build_i2v_video_predictor(
        settings.config,
        settings.checkpoint,
        device,
        hydra_overrides_extra=settings.overrides,
        apply_postprocessing=settings.postprocessing,
        dtype=settings.dtype,
        trust_config=trust_config,
        random_weights=settings.checkpoint is None,
    )
    prompt = protocol(settings.prompt, settings.replay_best)
    threads = ThreadPoolExecutor(NUM_WRITERS)

    def work(job: VideoJob) -> Iterator[float]:
        return run_video(predictor, job, prompt, threads)

    return work


if __name__ == "__main__":
    sys.exit(main())
