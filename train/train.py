"""Train a model: `i2v train CONFIG key=value ...`, or `python -m train.train -c CONFIG key=value ...`.

The config sets the number of processes, unless torchrun or a cluster starts them. See docs/training.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from i2v.build_i2v import resolve_device
from i2v.cli.arguments import add_trust_option
from i2v.cli.checkout import NAME_VARIABLE
from i2v.cli.numbers import count
from i2v.config import ConfigError, available_configs, load_config
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.terminal import log_to_stderr, printable
from train.build import check, run
from train.launch import run_on_this_node, submit, under_launcher
from train.run_check import check_run
from train.settings import NUM_COMMON, SETTINGS

log = logging.getLogger(__name__)

# Options of the published command line, and the config keys that they set.
_OPTIONS = {
    "num_gpus": "launcher.gpus_per_node",
    "num_nodes": "launcher.num_nodes",
    "use_cluster": "submitit.use_cluster",
    "partition": "submitit.partition",
    "account": "submitit.account",
    "qos": "submitit.qos",
}


@as_command("train", "the same command resumes from the last checkpoint")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments; ``None`` reads them from ``sys.argv``.

    Returns:
        The exit status: 0 when done or stopped, 1 after a failure; wrong usage exits with 2.
    """
    log_to_stderr(logging.INFO, "%(message)s")
    try:
        args = parse(arguments)
        config = compose(args)
        if args.print_config:
            print(OmegaConf.to_yaml(config), end="")
            return 0
        check(config)
        if args.check:
            for line in check_run(config, num_processes(config) * config.launcher.num_nodes):
                print(printable(line), flush=True)
            return 0
        start(config)
    except USER_ERRORS as error:
        log.error("error: %s", describe_error(error))
        return 1
    except (ProcessRaisedException, ProcessExitedException) as error:
        log.error("%s", error)  # includes the traceback of the failed process, unless that printed its error itself
        return 1
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=os.environ.get(NAME_VARIABLE, "python -m train.train"),
        usage="%(prog)s CONFIG [KEY=VALUE ...] [options]",
        description="Train a model, go on with a run that was stopped, or look at what it would do.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-c", "--config", metavar="CONFIG", help="name or path; or give it first, without -c")
    parser.add_argument("--check", action="store_true", help="tell of data, steps, memory and more; take no step")
    parser.add_argument("--print-config", action="store_true", help="print the whole config, and do nothing else")
    parser.add_argument("--num-gpus", type=count, metavar="N", help="processes on each node; default: all GPUs")
    parser.add_argument("--num-nodes", type=count, metavar="N", help="nodes; several need torchrun or a cluster")
    parser.add_argument("--use-cluster", type=int, choices=(0, 1), help="submit a job, see `submitit` in the config")
    for name in ("partition", "account", "qos"):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"SLURM {name}")
    add_trust_option(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change the config")
    args = parser.parse_intermixed_args(arguments)
    if args.config is None:
        if not args.overrides or "=" in args.overrides[0]:
            parser.error(f"expected a CONFIG first, one of {', '.join(training_configs())}, or the path of one")
        args.config = args.overrides.pop(0)
    return args


def training_configs() -> list[str]:
    """The configs of this package that train."""
    return [name for name in available_configs() if not name.endswith("-infer")]


def _epilog() -> str:
    width = max(len(setting.key) for setting in SETTINGS[:NUM_COMMON])
    lines = [f"  {setting.key:<{width}}  {setting.effect}" for setting in SETTINGS[:NUM_COMMON]]
    configs = "".join(f"  {name}\n" for name in training_configs())
    return f"configs:\n{configs}\nsettings that people change:\n" + "\n".join(lines) + "\n\nall: docs/settings.md"


def compose(arguments: argparse.Namespace) -> DictConfig:
    """Compose the config from the command line.

    Raises:
        ConfigError: If the config cannot be loaded, is not one of training, or an override is invalid.
    """
    given = {key: getattr(arguments, name) for name, key in _OPTIONS.items()}
    options = [f"{key}={value}" for key, value in given.items() if value is not None]
    config = load_config(arguments.config, [*options, *arguments.overrides], arguments.trust_config)
    lacking = [section for section in ("trainer", "launcher", "submitit") if section not in config]
    if lacking:
        raise ConfigError(
            f"{arguments.config} is no config of training: it has no {lacking[0]!r}; expected one like "
            f"{', '.join(training_configs())}"
        )
    if config.launcher.experiment_log_dir is None:
        config.launcher.experiment_log_dir = f"logs/{Path(arguments.config).stem}"
    return config


def start(config: DictConfig) -> None:
    """Start the processes of the run, or run as one of them under a launcher.

    Raises:
        ConfigError: If the config asks for several nodes without a launcher.
    """
    if under_launcher():
        run(config)
    elif config.submitit.use_cluster:
        start_job(config)
    elif config.launcher.num_nodes != 1:
        raise ConfigError(
            f"launcher.num_nodes={config.launcher.num_nodes}: start several nodes through torchrun "
            "(train/multi_node_train_4_nodes.sh) or as a cluster's job (--use-cluster 1)"
        )
    else:
        run_on_this_node(run, config, num_processes(config))


def start_job(config: DictConfig) -> None:
    """Submit the run as a job, and wait for it if it runs on this machine.

    Raises:
        ConfigError: If the number of processes is not set for a SLURM job.
    """
    is_local = config.submitit.cluster != "slurm"
    if not is_local and config.launcher.gpus_per_node is None:
        raise ConfigError("launcher.gpus_per_node: expected the number of processes for a job (--num-gpus N), got null")
    # The login node may have no GPU itself.
    on_gpus = on_cuda(config) if is_local else config.trainer.accelerator != "cpu"
    folder = Path(config.launcher.experiment_log_dir) / "submitit"
    job = submit(run, config, folder, config.launcher.num_nodes, num_processes(config), on_gpus)
    log.info("submitted job %s; its output is in %s", job.job_id, folder.absolute())
    if is_local:
        job.results()


def num_processes(config: DictConfig) -> int:
    """Number of processes on each node."""
    return config.launcher.gpus_per_node or (torch.cuda.device_count() if on_cuda(config) else 1)


def on_cuda(config: DictConfig) -> bool:
    """Whether the run would use GPUs on this machine."""
    return resolve_device(config.trainer.accelerator).type == "cuda"


if __name__ == "__main__":
    sys.exit(main())
