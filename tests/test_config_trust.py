"""A config that nobody vouches for can make nothing happen but what configs are made for."""

from __future__ import annotations

import ast
import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from support import TINY

from i2v.build_i2v import build_i2v, build_i2v_video_predictor
from i2v.checkpoint import CheckpointError, save_checkpoint
from i2v.cli.main import main
from i2v.config import PACKAGE_CONFIGS, ConfigError, instantiate, load_config
from i2v.config_trust import AllowedTargets
from i2v.pretrained import choose_model, nano_checkpoint

ROOT = Path(__file__).parents[1]
MODULE = "module_of_a_stranger"
TARGETS = (
    "os.system",
    "os.remove",
    "posix.system",
    "subprocess.run",
    "shutil.copy",
    "shutil.rmtree",
    "pathlib.Path",
    "pathlib.Path.write_text",
    "builtins.open",
    "builtins.eval",
    "importlib.import_module",
    "numpy.load",
    "numpy.save",
    "torch.load",
    "torch.hub.load",
    "torch.utils.collect_env.run",
    "torch.optim.Optimizer.load_state_dict",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.nn.Module",
    "functools.partial",
    "hydra.utils.call",
    "hydra.utils.get_method",
    # What our own packages do in files, or have imported from elsewhere.
    "i2v.cli.main.main",
    "i2v.config.os.system",
    "i2v.config.load_config",
    "i2v.build_i2v.build_i2v",
    "i2v.checkpoint.save_checkpoint",
    "i2v.results.export.ResultFolder",
    "i2v.results.overlay.VideoWriter",
    "i2v.utils.files.replacing",
    "i2v.video.video_file.VideoFile",
    "i2v.annotator.server.serve",
    "i2v.modeling.i2v_model.torch.load",
    "i2v.modeling.layers.nn.Module",
    "i2v.modeling.layers.gelu",
    "i2v.modeling.layers.MLP.load_state_dict",
    "i2v.modeling.layers.MLP.__init__",
    "i2v.modeling.layers.__builtins__.eval",
    "i2v.modeling.nowhere.MLP",
    "i2v.modeling.layers",
    "i2v.modeling..layers.MLP",
    "i2v.modeling.layers.MLP ",
    " i2v.modeling.layers.MLP",
    "i2v.modeling.layers:MLP",
    "i2v/modeling/layers.MLP",
    "../i2v.modeling.layers.MLP",
    "i2v.inference.inference_state.torch.load",
    "train.launch.submit",
    "train.launch.ClusterJob",
    "train.checkpointing.CheckpointFolder",
    "train.metrics.MetricLog",
    "train.train.main",
    "train.dataset.vos_raw_dataset.os.remove",
    "train.dataset.frame_reader.read_image",
    "train.optimizer.sys.exit",
    "test_pvs.semi_infer.main",
    "tools.benchmark.main",
    f"{MODULE}.Thing",
    MODULE,
    "",
)


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module that shows when it is imported or called; it can be imported."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    marker = folder / "marker"
    (folder / f"{MODULE}.py").write_text(
        f"from pathlib import Path\n\n\ndef leave(word):\n    Path({str(marker)!r}).write_text(word)\n\n\n"
        "class Thing:\n    def __init__(self, word='called', **other):\n        leave(word)\n\n\nleave('imported')\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    yield folder
    assert not marker.exists(), marker.read_text()
    assert MODULE not in sys.modules


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "_target_")
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from targets(value)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_a_class_for_configs_may_be_named(stranger: Path, target: str) -> None:
    config = OmegaConf.create({"model": {"_target_": "i2v.modeling.layers.MLP", "x": {"_target_": target}}})
    with pytest.raises(ConfigError, match=r"model\.x\._target_: .* is no class that is made for configs"):
        build_i2v_video_predictor(write(stranger, OmegaConf.to_yaml(config)), device="cpu")
    with pytest.raises(ConfigError, match="made for configs"):
        instantiate(config, "model")  # one that was never loaded


@pytest.mark.parametrize(
    "node",
    [
        "_target_: {0}",
        "a: {{_target_: {0}}}",
        "a: [1, [{{b: {{_target_: {0}}}}}]]",
        "model: {{_target_: i2v.modeling.layers.MLP, _args_: [{{_target_: {0}}}]}}",
        "model: {{_target_: i2v.modeling.layers.MLP, _recursive_: false, input_dim: {{_target_: {0}}}}}",
        "model: {{_target_: {0}, _partial_: true}}",
        "model: {{_target_: {0}, _convert_: object, _args_: [called]}}",
        "x: &x {{_target_: {0}}}\nmodel: *x",
        "x: &x {{_target_: {0}}}\nmodel: {{<<: *x, word: a}}",
        "name: {0}\nmodel: {{_target_: '${{name}}'}}",
        "name: Thing\nmodel: {{_target_: 'module_of_a_stranger.${{name}}'}}",
        "x: {{_target_: {0}}}\nmodel: ${{x}}",
        "model: {{_target_: [{0}]}}",
        "model: {{_target_: {{a: {0}}}}}",
        "model: {{? _target_ : {0}}}",
        'model: {{"_targ\\x65t_": {0}}}',
        "model: {{_target_: 5}}",
        "model: {{_target_: null}}",
    ],
)
def test_no_place_in_a_config_is_left_out(stranger: Path, node: str) -> None:
    path = write(stranger, node.format(f"{MODULE}.Thing"))
    for overrides in ((), ("+model.word=a",), ("++model.x.y=1",)):
        with pytest.raises(ConfigError):
            load_config(path, overrides)
    with pytest.raises(ConfigError):
        build_i2v(OmegaConf.load(path), device="cpu")


def test_overrides_are_held_to_it_before_the_next_one_looks_at_a_constructor(stranger: Path) -> None:
    path = write(stranger, TINY.read_text())
    target = f"model.selector._target_={MODULE}.Thing"
    for overrides in ([target], [target, "model.selector.word=a"], [f"++model.selector={{_target_: {MODULE}.Thing}}"]):
        with pytest.raises(ConfigError, match="made for configs"):
            load_config(path, overrides)


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "a ${oc.env:HOME} b",
        "${ oc.env : HOME }",
        "${oc.env:NOTHING,${x}}",
        "${oc.decode:'{_target_: os.system}'}",
        "${oc.create:{_target_: os.system}}",
        "${oc.select:x}",
        "${${name}:HOME}",
        "${oc.${x}:HOME}",
        "${${x}}",
        "${x.${y}}",
        "${grid:${oc.env:HOME}}",
        "${grid:{a: '${oc.env:HOME}'}}",
        r"\${oc.env:HOME}",
        "${x",
        "${}",
        "${unknown:1}",
    ],
)
def test_a_reference_is_to_the_config_itself(stranger: Path, value: str) -> None:
    text = value.replace("'", "''")
    path = write(stranger, f"x: 16\ny: 1\nname: oc.env\ndeep: [{{a: '{text}'}}]\n")
    with pytest.raises(ConfigError, match=r"deep\.0\.a: .* is no plain reference|cannot compose"):
        load_config(path)


def test_plain_references_are_resolved(stranger: Path) -> None:
    text = "a: {b: [1, 2], c: '${.b[1]}', d: 'x${a.b.0}y${ a.c }', e: '${..z}'}\nz: '${grid:${side}}'\nside: 64\n"
    config = load_config(write(stranger, text))
    assert OmegaConf.to_container(config, resolve=True)["a"] == {"b": [1, 2], "c": 2, "d": "x1y2", "e": 4}


@pytest.mark.parametrize("value", ["${d}{oc.env:HOME}", "${d}{e}{oc.env:HOME}"])
def test_a_reference_cannot_be_put_together(stranger: Path, value: str) -> None:
    config = load_config(write(stranger, f"d: $\ne: $\nmodel: {{_target_: i2v.modeling.layers.MLP, x: '{value}'}}"))
    with pytest.raises(ConfigError, match=r"model\.x: .* looks like a reference once it is resolved"):
        instantiate(config, "model")


def test_whoever_trusts_a_config_says_so(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "mine")
    path = write(stranger, f"thing: {{_target_: {MODULE}.Thing, word: '${{oc.env:WORD}}'}}")
    with pytest.raises(ConfigError, match="--trust-config, or trust_config=True"):
        load_config(path)
    config = load_config(path, ["thing.word=a"], trust_config=True)
    try:
        assert (stranger / "marker").read_text() == "imported"  # to see what the constructor takes
        trusted = load_config(path, trust_config=True)
        for same in (trusted, copy.deepcopy(trusted), load_config(trusted), pickle.loads(pickle.dumps(trusted))):
            instantiate(same, "thing")
            assert (stranger / "marker").read_text() == "mine"
        instantiate(config, "thing")
        assert (stranger / "marker").read_text() == "a"
        with pytest.raises(ConfigError, match="made for configs"):
            load_config(OmegaConf.create(OmegaConf.to_container(config)))
    finally:
        (stranger / "marker").unlink()
        sys.modules.pop(MODULE, None)


def test_a_package_of_the_same_name_is_not_ours(stranger: Path) -> None:
    write(stranger, "class Rule:\n    pass\n", "train/optimizer.py")
    write(stranger, "open('marker', 'w')\n", "train/__init__.py")
    path = write(stranger, "a: {_target_: train.optimizer.Rule}")
    code = f"from i2v.config import instantiate, load_config; load_config({str(path)!r})"
    environment = {"PYTHONPATH": f"{stranger}:{ROOT}", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=stranger, env=environment, capture_output=True, text=True)
    assert "ConfigError: a._target_: 'train.optimizer.Rule' is no class" in done.stderr


def test_every_class_of_the_configs_of_this_package_may_be_named() -> None:
    allowed = AllowedTargets(PACKAGE_CONFIGS)
    named = {
        name
        for path in PACKAGE_CONFIGS.rglob("*.yaml")
        for name in targets(OmegaConf.to_container(OmegaConf.load(path)))
    }
    assert len(named) > 30
    assert [name for name in sorted(named) if name not in allowed] == []
    # And what their authors may write beside them, without an edit anywhere.
    for name in ("i2v.modeling.layers.MLP", "train.dataset.vos_sampler.EvalSampler", "torch.optim.SGD"):
        assert name in allowed


def test_no_class_that_may_be_named_writes_or_runs_anything() -> None:
    """The modules of such classes call nothing that changes files, starts programs or imports by name."""
    harmful = {
        *("unlink", "rmtree", "remove", "rmdir", "rename", "mkdir", "makedirs", "symlink_to", "chmod", "touch"),
        *("write", "write_text", "write_bytes", "replacing", "save_atomically", "tofile"),
        *("system", "Popen", "run", "kill", "exec", "eval", "compile", "import_module", "__import__", "resolve_name"),
    }
    allowed = AllowedTargets(PACKAGE_CONFIGS)
    sources = [path for tree in ("i2v", "train") for path in (ROOT / tree).rglob("*.py")]
    looked_at = 0
    for path in sources:
        tree = ast.parse(path.read_text())
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if any(isinstance(node, ast.ClassDef) and f"{module}.{node.name}" in allowed for node in tree.body):
            looked_at += 1
            calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
            names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
            assert not names & harmful, path
            modes = [
                ast.unparse(node)
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and "open(" in ast.unparse(node.func) + "("
            ]
            assert not [call for call in modes if any(mode in call for mode in ("'w", "'a", "'x", "+'"))], path
    assert looked_at > 25


@pytest.mark.parametrize(
    "named", ["{}/cfg.yaml", "{}/cfg", "cfg.yaml", "./cfg.yaml", "../stranger/cfg", "cfg", "", 5, "a\x1b[2Jb"]
)
def test_a_checkpoint_names_a_config_of_this_package_or_none(stranger: Path, named: Any, capsys: Any) -> None:
    write(stranger, f"model: {{_target_: {MODULE}.Thing}}", "cfg.yaml")
    named = named.format(stranger) if isinstance(named, str) else named
    save_checkpoint(torch.nn.Linear(2, 2), stranger / "m.pt", config=named)
    with pytest.raises(CheckpointError, match=r"says that it is for the config .*, expected one of this package"):
        choose_model(None, str(stranger / "m.pt"))
    write(stranger, "", "clip.mp4")
    for command in (["info", "m.pt"], ["track", "clip.mp4", "--click", "1,1", "--checkpoint", "m.pt"]):
        assert main(command) == 1
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith("i2v: error: m.pt says that it is for the config") and error.isprintable()


def test_a_checkpoint_can_be_used_with_a_config_of_the_users(stranger: Path, capsys: Any) -> None:
    save_checkpoint(torch.nn.Linear(2, 2), stranger / "m.pt", config=str(stranger / "cfg.yaml"))
    assert choose_model(str(TINY), "m.pt").config == str(TINY)
    assert main(["info", "m.pt", "--config", str(TINY)]) == 1  # looked into, and does not fit
    assert "no; " in capsys.readouterr().out


def test_a_foreign_folder_does_not_choose_the_config(stranger: Path, capsys: Any) -> None:
    for name in ("i2v-nano-infer.yaml", "i2v-infer.yaml", "model/i2v-nano.yaml", "selector/similarity.yaml"):
        write(stranger, f"_target_: {MODULE}.Thing\nmodel: {{_target_: {MODULE}.Thing}}", name)
    assert main(["info", str(nano_checkpoint())]) == 0
    assert main(["info", str(nano_checkpoint()), "--config", "i2v-nano-infer.yaml"]) == 0
    assert capsys.readouterr().out.count("yes; all entries fit") == 2
    assert main(["info", str(nano_checkpoint()), "--config", "./i2v-nano-infer.yaml"]) == 1
    assert "made for configs" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "track", "demo", "annotate"])
def test_commands_hold_a_config_to_it(stranger: Path, command: str, capsys: Any) -> None:
    path = write(stranger, f"model: {{_target_: {MODULE}.Thing}}\npredictor: {{_target_: {MODULE}.Thing}}")
    frames = stranger / "frames"
    frames.mkdir()
    Image.new("RGB", (8, 8)).save(frames / "0.png")
    given = {
        "info": [str(nano_checkpoint())],
        "track": [str(frames), "--click", "1,1", "--random-weights"],
        "demo": ["--random-weights"],
        "annotate": [str(frames), "--no-browser", "--random-weights"],
    }
    assert main([command, *given[command], "--config", str(path)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("i2v: error")]
    assert len(errors) == 1 and "made for configs" in errors[0]


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "train.train", "-c", "{}"],
        ["-m", "test_pvs.semi_infer", "--input", "gm", "--ckpt", "none", "--data_root", ".", "--yaml", "{}"],
        ["tools/benchmark.py", "speed", "--config", "{}"],
        ["-m", "train.scripts.export_checkpoint", "a.pt", "b.pt", "--config", "{}"],
    ],
    ids=lambda command: command[1],
)
def test_other_commands_do_too_and_take_trust(stranger: Path, command: list[str]) -> None:
    path = write(stranger, f"model: {{_target_: {MODULE}.Thing}}\npredictor: {{_target_: {MODULE}.Thing}}")
    (stranger / "sav_test" / "JPEGImages_24fps" / "v").mkdir(parents=True)
    arguments = [part.format(path) for part in command]
    arguments = [str(ROOT / arguments[0]), *arguments[1:]] if arguments[0].endswith(".py") else arguments
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=stranger,
        env={"PYTHONPATH": f"{ROOT}:{stranger}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    trusting = subprocess.run(
        [sys.executable, *arguments, "--help"],
        cwd=stranger,
        env={"PYTHONPATH": f"{ROOT}:{stranger}", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert "--trust-config" in trusting.stdout


def test_classes_of_an_older_config_are_found_where_they_are_now(tmp_path: Path) -> None:
    path = tmp_path / "inference.yaml"
    path.write_text(
        "model: {selector: {_target_: i2v.modeling.memory_associator.SimilaritySelector, num_maskmem_local: 1}}\n"
        "predictor: {_target_: i2v.inference_state.PredictorSettings, seed: 5}\n"
    )
    config = load_config(str(path))
    assert instantiate(config, "model.selector").num_local == 1
    assert instantiate(config, "predictor").seed == 5
