"""Importing does nothing, and the library stands on its own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "i2v").rglob("*.py"))
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCES
    if path.name != "__main__.py"
]
CHECKOUT_ONLY = {"train", "test_pvs", "tools", "sav_dataset", "tests"}
EXTRAS = {"fastapi", "starlette", "uvicorn", "websockets", "psutil", "tensorboard"}  # may be absent

# The libraries below it are imported first, so that what is seen to change is i2v's doing.
IMPORT_ALL = """
import hashlib, json, logging, os, pickle, random, signal, sys, warnings
import av, hydra, iopath, numpy, omegaconf, PIL.Image, pycocotools.mask, torch, torchvision, tqdm
modules, extras = json.loads(sys.argv[1]), set(json.loads(sys.argv[2]))

def digest(value):
    return hashlib.sha256(pickle.dumps(value)).hexdigest()

def state():
    return {
        "torch generator": digest(torch.get_rng_state().numpy()),
        "random": digest(random.getstate()),
        "numpy generator": digest(numpy.random.get_state()),
        "sys.path": list(sys.path),
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
        "default dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        "attention": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()),
        "warnings": list(map(str, warnings.filters)),
        "logging": (logging.root.level, list(map(str, logging.root.handlers))),
        "interrupt": str(signal.getsignal(signal.SIGINT)),
    }

before = state()
imported, changes = [], []
for name in modules:
    try:
        __import__(name)
        imported.append(name)
    except ModuleNotFoundError as error:
        if error.name not in extras:
            raise
    after = state()
    changes += [f"{name} changes {key}" for key in before if after[key] != before[key]]
    before = after
print(json.dumps({"imported": imported, "changes": changes}))
"""


def run_python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def imports(path: Path) -> set[str]:
    """First components of all that a file imports, at the top or inside."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module if node.module and not node.level else "i2v")
    return {name.partition(".")[0] for name in names}


def test_importing_every_module_changes_nothing() -> None:
    outcome = json.loads(run_python(IMPORT_ALL, json.dumps(MODULES), json.dumps(sorted(EXTRAS))).splitlines()[-1])
    assert outcome["changes"] == []
    assert {"i2v", "i2v.build_i2v", "i2v.checkpoint", "i2v.config"} <= set(outcome["imported"])


def test_the_check_above_sees_a_change() -> None:
    # Setting a seed is what importing the published package did.
    code = IMPORT_ALL.replace("__import__(name)", "torch.manual_seed(0)")
    outcome = json.loads(run_python(code, json.dumps(["i2v"]), "[]").splitlines()[-1])
    assert outcome["changes"] == ["i2v changes torch generator"]


def test_importing_the_package_is_quick_and_loads_no_framework() -> None:
    code = """
import sys, time
start = time.perf_counter()
import i2v
print(time.perf_counter() - start)
print(sorted({"torch", "numpy", "hydra", "PIL", "av"} & set(sys.modules)))
"""
    seconds, loaded = run_python(code).splitlines()
    assert loaded == "[]"
    assert float(seconds) < 1


def test_public_names_come_on_first_use() -> None:
    code = """
import i2v
assert {"build_i2v_video_predictor", "I2VVideoPredictor"} <= set(dir(i2v)), dir(i2v)
from i2v.build_i2v import build_i2v_video_predictor
assert i2v.build_i2v_video_predictor is build_i2v_video_predictor
assert i2v.I2VVideoPredictor.__name__ == "I2VVideoPredictor"
try:
    i2v.nothing
except AttributeError as error:
    print(error)
"""
    assert run_python(code).strip() == "module 'i2v' has no attribute 'nothing'"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_uses_nothing_of_the_checkout(path: Path) -> None:
    assert imports(path) & CHECKOUT_ONLY == set()


def test_the_layering_check_reads_every_form_of_import(tmp_path: Path) -> None:
    inside = ["    from tools.y import z", "    from . import w", "    import os, tests as t"]
    lines = ["import train.x", "def f():", *inside]
    (tmp_path / "module.py").write_text("\n".join(lines))
    assert imports(tmp_path / "module.py") == {"train", "tools", "i2v", "os", "tests"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert prints == [] or path.parts[-2:] == ("cli", "main.py")
