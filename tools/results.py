"""Score the baselines and a model on the same videos: one table, as Markdown and JSON.

python tools/results.py --data_root DIR --config i2v-infer --checkpoint FILE --output DIR
python tools/results.py --rendered 20 --config i2v-infer --checkpoint FILE --output DIR

Without --config: the baselines only. What is there already is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

if not __package__:
    # Run as a script, this file sees only its own folder.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.cli.arguments import TRUST, add_trust_option
from i2v.config import load_config
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.files import sha256_of
from i2v.utils.output_folder import child
from sav_dataset.utils.datasets import Dataset, open_dataset
from sav_dataset.utils.report import write_text
from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate
from test_pvs import semi_infer
from test_pvs.prompts import PROTOCOLS
from test_pvs.run_settings import claim_folder
from tools.baselines import BASELINES, DATASETS, predict
from tools.rendered_clips import REMEDY, RenderedClips
from tools.result_tables import Results

VIDEO_LIST = "videos.txt"  # which videos were scored
PACKAGES = ("i2v", "torch", "numpy", "opencv-python-headless")  # whose versions the tables name


@dataclass(frozen=True)
class BenchmarkFolder:
    """A benchmark with label images that lies in a folder; of its videos all, or those of a list."""

    dataset: str
    root: Path
    video_list: Path | None = None

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        listed = None if self.video_list is None else str(self.video_list.resolve())
        return {"dataset": self.dataset, "root": str(self.root.resolve()), "video list": listed}

    def open(self, folder: Path) -> Dataset:
        """Find its files, and claim a folder for results. Raises as ``open_dataset`` and ``claim_folder`` do."""
        dataset = open_dataset(self.dataset, self.root, video_list=self.video_list)
        claim_folder(folder, self, remedy=REMEDY)
        return dataset


@dataclass(frozen=True)
class Model:
    """What is scored beside the baselines."""

    name: str
    config: str
    checkpoint: str | None
    overrides: tuple[str, ...]
    trust_config: bool = False

    def describe(self) -> dict[str, Any]:
        """As JSON values; a checkpoint by its contents."""
        sha256 = None if self.checkpoint is None else sha256_of(self.checkpoint)
        return {"name": self.name, "config": self.config, "overrides": list(self.overrides), "sha256": sha256}

    def folder_name(self) -> str:
        """Another one for other weights and for another config. Raises as ``load_config`` does."""
        composed = OmegaConf.to_yaml(load_config(self.config, self.overrides, self.trust_config))
        digest = hashlib.sha256(f"{composed}{self.describe()['sha256']}".encode()).hexdigest()
        return f"{self.name}-{digest[:8]}"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data_root", type=Path, help="folder of a benchmark, laid out as --dataset says")
    source.add_argument("--rendered", type=int, metavar="N", help="N rendered clips that no training has seen")
    add("--dataset", choices=DATASETS, default="davis2017", help="layout (default: %(default)s)")
    add("--video_list", type=Path, help="only the videos of this list")
    add("--clip_frames", type=int, default=32, help="frames of a rendered clip (default: %(default)s)")
    add("--clip_size", type=int, default=384, help="side of its square frames (default: %(default)s)")
    add("--clip_seed", type=int, default=0, help="other clips for another number (default: %(default)s)")
    add("--backgrounds", nargs="*", default=[], help="real videos that half of the rendered scenes play before")
    add("--baselines", nargs="*", choices=BASELINES, default=list(BASELINES), help="default: all of them")
    add("--config", help="the model: its config's name or path")
    add_trust_option(parser)
    add("--checkpoint", help="its weights: NAME for checkpoints/NAME.pt, or a path (default: random ones)")
    add("--name", help="its name in the tables (default: the checkpoint's, else the config's)")
    add("--prompts", nargs="*", choices=PROTOCOLS, default=["gm", "bb", "3c"], help="default: gm bb 3c")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change the config")
    add("--device", default="auto", help="cuda, cpu, ... (default: GPUs if there are any)")
    add("--workers", type=int, help="processes (default: one per GPU; on the CPU one per core, at most 8)")
    add("--output", type=Path, required=True, help="folder for masks and tables")
    return parser


@as_command("results", "the same command resumes from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Make the tables, print and write them. Returns the exit status: 0 done, 1 failed, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = make_parser().parse_args(argv)
    try:
        results = run(args, argv)
        print(results.as_markdown())
        results.save(args.output)
    except USER_ERRORS as error:
        print(f"results: error: {describe_error(error)}", file=sys.stderr)
        return 1
    print(f"written to {args.output / 'results.md'} and results.json")
    return 0


def run(args: argparse.Namespace, command: Sequence[str]) -> Results:
    """Predict what is not there yet, and score all of it."""
    source, model = _source(args), _model(args)
    if model is None and not args.baselines:
        raise ValueError("nothing to score: expected --config, --baselines or both")
    dataset = source.open(args.output)
    write_text(args.output / VIDEO_LIST, "".join(f"{video}\n" for video in dataset.videos))
    trees = {}
    for baseline in args.baselines:
        trees[baseline] = args.output / "masks" / baseline
        predict(dataset, baseline, trees[baseline])
    if model is not None:
        folder = child(args.output / "masks", model.folder_name())
        for prompt in args.prompts:
            trees[f"{model.name} {prompt}"] = _predict(model, prompt, dataset, folder, args)
    layout = dataset.layout
    settings = EvaluationSettings(layout.skip, single_object=layout.single_object, num_processes=args.workers)
    scores = {name: evaluate(dataset.annotations, tree, settings, dataset.videos) for name, tree in trees.items()}
    return Results(scores, _facts(command, source, model))


def _source(args: argparse.Namespace) -> BenchmarkFolder | RenderedClips:
    if args.rendered is None:
        return BenchmarkFolder(args.dataset, args.data_root, args.video_list)
    if args.video_list is not None:
        raise ValueError("--video_list: expected --data_root, too; of rendered clips all count")
    return RenderedClips(args.rendered, args.clip_frames, args.clip_size, args.clip_seed, tuple(args.backgrounds))


def _model(args: argparse.Namespace) -> Model | None:
    if args.config is None:
        if args.checkpoint is not None:
            raise ValueError("--checkpoint: expected --config, too")
        return None
    load_config(args.config, args.overrides, args.trust_config)  # its mistakes are told before anything is made
    checkpoint = None if args.checkpoint is None else semi_infer.find_checkpoint(args.checkpoint)
    name = args.name or Path(checkpoint or args.config).stem
    return Model(name, args.config, checkpoint, tuple(args.overrides), args.trust_config)


def _predict(model: Model, prompt: str, dataset: Dataset, folder: Path, args: argparse.Namespace) -> Path:
    """Follow the objects of all videos, as test_pvs does. Returns the folder of the masks."""
    options = {
        "input": prompt,
        "ckpt": model.checkpoint or "none",
        "yaml": model.config,
        "dataset": dataset.name,
        "images": dataset.images,
        "annotations": dataset.annotations,
        "data_root": dataset.images.parent,
        "video_list": args.output / VIDEO_LIST,
        "output_root": folder.parent,
        "save_dir_name": folder.name,
        "device": args.device,
        "workers": args.workers,
    }
    words = [word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))]
    words += [TRUST] if model.trust_config else []
    parsed = semi_infer.make_parser().parse_args([*words, "--", *model.overrides])
    failures = semi_infer.run(parsed)
    if failures:
        raise RuntimeError("; ".join(f"video {failure.job.video}: {failure.reason}" for failure in failures))
    return semi_infer.run_folder(parsed)


def _facts(command: Sequence[str], source: BenchmarkFolder | RenderedClips, model: Model | None) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "tools/results.py", *command]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "videos": source.describe(),
        "model": {} if model is None else model.describe(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    """Of the packages that figures may depend on, as far as they are installed."""
    installed = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


if __name__ == "__main__":
    sys.exit(main())
