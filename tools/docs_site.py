"""Build the documentation as a site: python tools/docs_site.py

Gathers README, docs, notebooks and all that they link to in build/site, with the API reference, and lets MkDocs make
build/docs of it. Links that lead nowhere are errors. Needs MkDocs with its theme Material, and pdoc (extra docs).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# A script has only its own folder on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.command import as_command
from tools.api_docs import write_pages

ROOT = Path(__file__).resolve().parents[1]
SOURCES, SITE = ROOT / "build" / "site", ROOT / "build" / "docs"
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
# Words after a block's language, such as those that keep tests from running it: MkDocs would take the block for text.
_FENCE_WORDS = re.compile(r"^([ ]*```\w+)[ ].*$", re.MULTILINE)
_API = "# API reference\n\n[All modules, classes and functions](reference/i2v.html), from their docstrings.\n"


@as_command("docs_site")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 failed or with warnings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    try:
        problems = build()
    except USER_ERRORS as error:
        problems = [describe_error(error)]
    for problem in problems:
        print(f"docs_site: error: {problem}", file=sys.stderr)
    if not problems:
        print(f"written to {SITE / 'index.html'}; the API reference: {SITE / 'reference' / 'i2v.html'}")
    return 1 if problems else 0


def build() -> list[str]:
    """Build the site.

    Returns:
        What is wrong.

    Raises:
        RuntimeError: If MkDocs or pdoc is not installed.
    """
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        raise RuntimeError("the site is made by MkDocs: pip install mkdocs-material (extra docs)")
    shutil.rmtree(SOURCES, ignore_errors=True)
    gather(ROOT, SOURCES)
    return write_pages(SOURCES / "reference") + render(ROOT)


def render(folder: Path) -> list[str]:
    """Let MkDocs make the site.

    Args:
        folder: Folder with mkdocs.yml, which says where the pages are.

    Returns:
        What is wrong.
    """
    # Not --quiet: what is not shown does not count for --strict, either.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(folder / "mkdocs.yml")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    finished = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if not finished.returncode:
        return []
    told = (finished.stdout + finished.stderr).splitlines()
    return [line for line in told if line.startswith(("WARNING", "ERROR", "Error"))] or told


def gather(root: Path, target: Path) -> None:
    """Copy the pages and all files that they link to, in the folders that they have in the repository.

    Args:
        root: The checkout.
        target: The new folder.
    """
    waiting = [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "notebooks").glob("*.ipynb"))]
    waiting += [root / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    seen = set(waiting)
    target.mkdir(parents=True)
    (target / "api.md").write_text(_API)
    while waiting:
        path = waiting.pop()
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix not in (".md", ".ipynb"):
            shutil.copyfile(path, copy)
            continue
        text = _FENCE_WORDS.sub(r"\1", path.read_text()) if path.suffix == ".md" else notebook_page(path)
        # Pages are made of notebooks, too; a folder's page is its README.
        copy.with_suffix(".md").write_text(text.replace(".ipynb)", ".md)"))
        new = [linked for linked in _links(path.parent, text) if linked not in seen and root in linked.parents]
        seen.update(new)
        waiting += new


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown, without outputs."""
    cells = json.loads(path.read_text())["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in texts) + "\n"


def _links(folder: Path, text: str) -> Iterator[Path]:
    """The files that a page links to, of those that exist."""
    for link in _LINK.findall(text):
        linked = (folder / link).resolve()
        if linked.is_file():
            yield linked


if __name__ == "__main__":
    sys.exit(main())
