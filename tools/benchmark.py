"""Run a benchmark: python tools/benchmark.py speed|objects|memory|data|eval|... [--json FILE] ..."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# A script has only its own folder on the path.
sys.path.insert(0, str(Path(__file__).parents[1]))

from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from i2v.utils.files import replacing
from i2v.utils.terminal import log_to_stderr
from tools import benchmarks


@as_command("benchmark")
def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark, print its table and write its JSON. Returns the exit status: 0 done, 1 failed."""
    log_to_stderr(logging.ERROR, "%(levelname)s: %(message)s")
    modules = load_benchmarks()
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in modules.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
        module.add_arguments(command)
    args = parser.parse_args(argv)
    try:
        report = modules[args.benchmark].run(args)
    except USER_ERRORS as error:
        print(f"benchmark: error: {describe_error(error)}", file=sys.stderr)
        return 1
    report["command"] = " ".join(["tools/benchmark.py", *(sys.argv[1:] if argv is None else argv)])
    print(table(report["rows"]))
    for key, value in report.items():
        if key != "rows":
            print(f"{key}: {value}")
    if args.json:
        with replacing(args.json) as path:
            path.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def load_benchmarks() -> dict[str, ModuleType]:
    """Import the benchmarks by name: all modules of tools/benchmarks with a function ``run``."""
    names = [info.name for info in pkgutil.iter_modules(benchmarks.__path__)]
    modules = {name: importlib.import_module(f"tools.benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows as aligned text: the first column left-aligned, the others right-aligned."""
    if not rows:
        return "(nothing measured)"
    columns = list(rows[0])
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]

    def show(line: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join((first, *rest)).rstrip()

    return "\n".join([show(cells[0]), "  ".join("-" * w for w in widths), *map(show, cells[1:])])


if __name__ == "__main__":
    sys.exit(main())
