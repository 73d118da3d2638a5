"""Config files from anywhere: small ones stay small, and none leads to a file elsewhere."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from i2v.config import ConfigError, load_config
from i2v.config_files import MAX_DEPTH

MODULE = "package_of_a_stranger"
LAUGHS = "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 12))
HUGE = {
    "aliases": f"b0: &b0 [lol, lol]\n{LAUGHS}",
    "aliases in mappings": "b0: &b0 {x: 1}\n"
    + LAUGHS.replace("[", "[{y: ").replace("]", "}]").replace(", ", "}, {y: "),
    "merged mappings": "b0: &b0 {x: 1}\n" + LAUGHS.replace("[", "{<<: [").replace("]", "]}"),
    "an alias of itself": "a: &a [1, *a]",
    "an alias of what is around it": "a: &a {b: {c: [*a]}}",
    "brackets": f"a: {'[' * 5000}",
    "whole brackets": f"a: {'[' * 200}{']' * 200}",
    "braces": f"a: {'{a: ' * 5000}",
    "indented": "".join(f"{' ' * i}a:\n" for i in range(400)),
    "dashes": f"a:\n  {'- ' * 5000}1",
    "aliases in one another": "b0: &b0 [1]\n" + "".join(f"b{i}: &b{i} [*b{i - 1}]\n" for i in range(1, 200)),
    "many values": f"a: [{'1, ' * 60_000}]",
    "many keys": "".join(f"k{i}: 1\n" for i in range(15_000)),
    "a long value": f"a: {'x' * 20_000}",
    "a long number": f"a: {'1' * 20_000}",
    "a long file": "# " + "x" * 300_000,
    "strings of references": "b0: lol\n" + "".join(f"b{i}: '{f'${{b{i - 1}}}' * 10}'\n" for i in range(1, 12)),
    "nodes of references": "b0: {x: 1}\n"
    + "".join(f"b{i}: {{{', '.join(f'k{k}: ${{b{i - 1}}}' for k in range(10))}}}\n" for i in range(1, 12)),
    "a reference to itself": "a: {b: '${a}'}",
    "references in a ring": "a: ${b}\nb: x${c}\nc: ${a}",
    "references in a chain": "a0: 1\n" + "".join(f"a{i}: ${{a{i - 1}}}\n" for i in range(1, 3000)),
    "references in a chain, last first": "".join(f"a{i}: ${{a{i + 1}}}\n" for i in range(3000)) + "a3000: 1\n",
    "no mapping": "[1, 2]",
    "two documents": "a: 1\n---\nb: 2",
    "no UTF-8": b"a: \xff\xfe",
    "a zero": b"a: \0",
    "a Python object": "a: !!python/object/apply:os.system ['true']",
    "a Python name": "a: !!python/name:os.system",
    "an unhashable key": "? [1, 2]\n: 3",
    "the same key twice": "a: 1\na: 2",
    "a header": "# @package a b c\na: 1",
    "a deep header": f"# @package {'.'.join('a' * 240)}\na: 1",
    "a deep package": f"defaults: [other@{'.'.join('a' * 4000)}, _self_]\na: 1",
}


def write(folder: Path, text: str | bytes, name: str = "config.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE.keys())
def test_what_would_take_long_or_much_is_refused_at_once(tmp_path: Path, text: str | bytes) -> None:
    path = write(tmp_path, text)
    write(tmp_path, "x: 1", "other.yaml")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ConfigError) as raised:
        OmegaConf.to_container(load_config(path), resolve=True)
    assert time.process_time() - started < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB
    assert len(str(raised.value)) < 2000


@pytest.mark.timeout(60)
def test_defaults_that_name_each_other_again_and_again_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "x: 1", "b0.yaml")
    for i in range(1, 12):
        names = ", ".join(f"b{i - 1}@k{k}" for k in range(9))
        write(tmp_path, f"defaults: [{names}, _self_]", f"b{i}.yaml")
    with pytest.raises(ConfigError, match="again and again"):
        load_config(tmp_path / "b11.yaml")
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, "defaults: [config]"))


@pytest.mark.parametrize(
    "defaults",
    [
        "{}/away/secret",
        "/{}/away/secret",
        "../away/secret",
        "../away@a: secret",
        "optional ../away: secret",
        "/../away: secret",
        "group: {}/away/secret",
        "group: ../../away/secret",
        "group: [../../away/secret]",
        "group/../../away: secret",
        "file://{}/away/secret",
        "pkg://package_of_a_stranger/secret",
        "group: '${{oc.env:HOME}}'",
        "group: '${{${{name}}:HOME}}'",
        "group: '${{oc.decode:../../away/secret}}'",
    ],
)
def test_defaults_stay_below_the_folder_of_the_config(tmp_path: Path, defaults: str) -> None:
    write(tmp_path, "word: secret", "away/secret.yaml")
    write(tmp_path, "a: 1", "config/group/own.yaml")
    item = defaults.format(tmp_path)
    path = write(
        tmp_path / "config", f"defaults: [{{{item}}}, _self_]" if ": " in item else f"defaults: ['{item}', _self_]"
    )
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert "word" not in str(raised.value) and str(Path.home()) not in str(raised.value)


@pytest.mark.parametrize("searchpath", ["pkg://package_of_a_stranger", "file://{}/away", "{}/away"])
def test_no_search_path_leads_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searchpath: str) -> None:
    write(tmp_path, f"open({str(tmp_path / 'marker')!r}, 'w')", f"{MODULE}/__init__.py")
    write(tmp_path, "word: secret", f"{MODULE}/secret.yaml")
    write(tmp_path, "word: secret", "away/secret.yaml")
    monkeypatch.syspath_prepend(str(tmp_path))
    place = searchpath.format(tmp_path)
    text = f"defaults: [secret]\nhydra: {{searchpath: ['{place}']}}"
    for config, overrides in (
        (write(tmp_path, text, "config/a.yaml"), []),
        (write(tmp_path, "defaults: [secret]", "config/b.yaml"), [f"hydra.searchpath=['{place}']"]),
        (write(tmp_path, f"# @package hydra\nsearchpath: ['{place}']\ndefaults: [secret]", "config/c.yaml"), []),
        (write(tmp_path, "hydra: {job: {env_copy: [HOME]}}", "config/d.yaml"), []),
    ):
        with pytest.raises(ConfigError):
            load_config(config, overrides)
    assert not (tmp_path / "marker").exists() and MODULE not in sys.modules


def test_plugins_of_hydra_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, f"open({str(tmp_path / 'marker')!r}, 'w')", "hydra_plugins/stranger.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_config(write(tmp_path, "a: 1")).a == 1
    assert not (tmp_path / "marker").exists()
    assert not GlobalHydra.instance().is_initialized()


def test_what_is_no_yaml_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "a: 1", "config.yml")
    with pytest.raises(ConfigError, match=r"ends in \.yaml, got .*config\.yml"):
        load_config(tmp_path / "config.yml")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("endless.yaml", "folder.yaml"):
        with pytest.raises(FileNotFoundError):
            load_config(tmp_path / name)
    (tmp_path / "linked.yaml").symlink_to(write(tmp_path, "a: 1", "real.yaml"))
    assert load_config(tmp_path / "linked.yaml").a == 1


def test_an_ordinary_file_has_room(tmp_path: Path) -> None:
    deep = "".join(f"{'  ' * i}k{i}:\n" for i in range(MAX_DEPTH - 3)) + "  " * (MAX_DEPTH - 3) + "end: 1\n"
    text = f"base: &base {{x: 1, y: [2, 3]}}\nmany: [{', '.join(['*base'] * 1000)}]\n{deep}"
    config = load_config(write(tmp_path, text))
    assert config.many[999] == {"x": 1, "y": [2, 3]}
    assert load_config(write(tmp_path, "")) == {}
