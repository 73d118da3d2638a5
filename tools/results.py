"""Score the baselines and a model on the same videos: one table, as Markdown and JSON.

python tools/results.py --data_root DIR --config i2v-infer --checkpoint FILE --output DIR
python tools/results.py --rendered 20 --config i2v-infer --checkpoint FILE --output DIR

Without --config, only the baselines are scored. Existing masks are kept, so an interrupted run can be resumed.
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
    # A script has only its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.cli.arguments import TRUST, add_trust_option
from i2v.cli.numbers import amount, count
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
PACKAGES = ("i2v", "torch", "numpy", "opencv-python-headless")  # whose versions are reported


@dataclass(frozen=True)
class BenchmarkFolder:
    """A benchmark with label images in a folder.

    Attributes:
        dataset: Name of its layout.
        root: The folder.
        video_list: List of the videos to use; ``None`` for all.
    """

    dataset: str
    root: Path
    video_list: Path | None = None

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        listed = None if self.video_list is None else str(self.video_list.resolve())
        return {"dataset": self.dataset, "root": str(self.root.resolve()), "video list": listed}

    def open(self, folder: Path) -> Dataset:
        """Find the files of the benchmark, and claim a folder for results.

        Raises:
            FileNotFoundError: If files are missing.
            ValueError: If a file is invalid, or the folder belongs to other settings.
        """
        dataset = open_dataset(self.dataset, self.root, video_list=self.video_list)
        claim_folder(folder, self, remedy=REMEDY)
        return dataset


@dataclass(frozen=True)
class Model:
    """The model that is scored with the baselines.

    Attributes:
        name: Name in the tables.
        config: Name or path of its config.
        checkpoint: Path of its weights; ``None`` for random ones.
        overrides: Config overrides.
        trust_config: Whether the config may name classes outside i2v.
    """

    name: str
    config: str
    checkpoint: str | None
    overrides: tuple[str, ...]
    trust_config: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values; the checkpoint is identified by its content."""
        sha256 = None if self.checkpoint is None else sha256_of(self.checkpoint)
        return {"name": self.name, "config": self.config, "overrides": list(self.overrides), "sha256": sha256}

    def folder_name(self) -> str:
        """Name of the folder of its masks, which differs for other weights and other configs.

        Raises:
            ConfigError: If the config is invalid.
        """
        composed = OmegaConf.to_yaml(load_config(self.config, self.overrides, self.trust_config))
        digest = hashlib.sha256(f"{composed}{self.describe()['sha256']}".encode()).hexdigest()
        return f"{self.name}-{digest[:8]}"


def make_parser() -> argparse.ArgumentParser:
    """Build the command line parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data_root", type=Path, help="folder of a benchmark, laid out as --dataset says")
    source.add_argument("--rendered", type=count, metavar="N", help="N rendered clips that no training has seen")
    add("--dataset", choices=DATASETS, default="davis2017", help="layout (default: %(default)s)")
    add("--video_list", type=Path, help="only the videos of this list")
    add("--clip_frames", type=count, default=32, help="frames of a rendered clip (default: %(default)s)")
    add("--clip_size", type=count, default=384, help="side of its square frames (default: %(default)s)")
    add("--clip_seed", type=amount, default=0, help="seed of the rendered clips (default: %(default)s)")
    add("--backgrounds", nargs="*", default=[], help="real videos, the background of half of the rendered scenes")
    add("--baselines", nargs="*", choices=BASELINES, default=list(BASELINES), help="default: all of them")
    add("--config", help="name or path of the model's config")
    add_trust_option(parser)
    add("--checkpoint", help="weights of the model: NAME for checkpoints/NAME.pt, a path, or 'none' for random ones")
    add("--name", help="name of the model in the tables (default: the checkpoint's, else the config's)")
    add("--prompts", nargs="*", choices=PROTOCOLS, default=["gm", "bb", "3c"], help="default: gm bb 3c")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="config override")
    add("--device", default="auto", help="cuda, cpu, ... (default: GPUs if there are any)")
    add("--workers", type=count, help="processes (default: one per GPU; on the CPU one per core, at most 8)")
    add("--output", type=Path, required=True, help="folder for masks and tables")
    return parser


@as_command("results", "the same command resumes from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed, 130 interrupted."""
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
    """Predict missing masks, and score everything.

    Args:
        args: The command line, parsed.
        command: The command line, for the report.

    Raises:
        ValueError: If there is nothing to score, or an argument or file is invalid.
        RuntimeError: If the model failed on a video.
    """
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
        raise ValueError("--video_list: expected --data_root, too; all rendered clips are scored")
    return RenderedClips(args.rendered, args.clip_frames, args.clip_size, args.clip_seed, tuple(args.backgrounds))


def _model(args: argparse.Namespace) -> Model | None:
    if args.config is None:
        if args.checkpoint is not None:
            raise ValueError("--checkpoint: expected --config, too")
        return None
    load_config(args.config, args.overrides, args.trust_config)  # an invalid config is reported before any work
    if args.checkpoint is None:
        raise ValueError("--config: expected --checkpoint, too: a name, a path, or 'none' for random weights")
    checkpoint = semi_infer.find_checkpoint(args.checkpoint)
    name = args.name or Path(checkpoint or args.config).stem
    return Model(name, args.config, checkpoint, tuple(args.overrides), args.trust_config)


def _predict(model: Model, prompt: str, dataset: Dataset, folder: Path, args: argparse.Namespace) -> Path:
    """Track the objects of all videos with test_pvs. Returns the folder of the masks."""
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
    """Versions of the installed packages that scores may depend on."""
    installed = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


if __name__ == "__main__":
    sys.exit(main())
