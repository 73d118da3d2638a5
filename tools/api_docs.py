"""Write the API reference from the docstrings: python tools/api_docs.py [FOLDER]

HTML pages for every module of the library, with search; open FOLDER/index.html. Needs pdoc (extra docs).
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

# A script has only its own folder on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import i2v
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command

ROOT = Path(__file__).resolve().parents[1]
# Programs, not a public API.
LEFT_OUT = ("__main__", "cli", "annotator", "serve")


@as_command("api_docs")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed or with warnings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "docs", help="default: %(default)s")
    folder = parser.parse_args(argv).folder
    try:
        problems = write_pages(folder)
    except USER_ERRORS as error:
        problems = [describe_error(error)]
    for problem in problems:
        print(f"api_docs: error: {problem}", file=sys.stderr)
    if not problems:
        print(f"written to {folder / 'index.html'}")
    return 1 if problems else 0


def write_pages(folder: Path) -> list[str]:
    """Write the pages to a folder.

    Returns:
        pdoc's warnings.

    Raises:
        RuntimeError: If pdoc is not installed.
    """
    try:
        pdoc = importlib.import_module("pdoc")
    except ImportError as error:
        raise RuntimeError("the pages are made by pdoc: pip install pdoc (extra docs)") from error
    show_all_of_the_package()
    pdoc.render.configure(docformat="google", footer_text=f"i2v {i2v.__version__}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        pdoc.pdoc("i2v", output_directory=folder)
    return [str(warning.message) for warning in caught if "pdoc" in Path(warning.filename).parts]


def show_all_of_the_package() -> None:
    """Let pdoc see lazily imported names, and modules that ``__all__`` does not list."""
    for name in i2v.__all__:
        setattr(i2v, name, getattr(i2v, name))
    modules = (module.name for module in pkgutil.iter_modules(i2v.__path__))
    i2v.__all__ += [name for name in modules if name not in (*LEFT_OUT, *i2v.__all__)]


if __name__ == "__main__":
    sys.exit(main())
