"""What a config may do that nobody vouches for: name classes that are made for configs, and refer to its own values.

A config decides what is imported and called, so one from elsewhere is a program unless it is held to this:

- `_target_` names a class that configs are meant to name: one that the configs of this package name, or one that is
  defined in a module of theirs or below `i2v.modeling`, `train.dataset` or `train.model`, or an optimizer of PyTorch.
  That is decided by reading source text. Nothing is imported for it, and no attribute of a module is followed.
- `${...}` refers to a value of the config itself, or is `${grid:...}`. Resolvers could read the environment.
- What its references stand for, written out, is small.

Whoever trusts a config says so (`--trust-config`, `trust_config=True`), and none of this is asked of it.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from i2v.config_files import ConfigError

_ROOT = Path(__file__).parents[1]
_OURS = ("i2v", "train")  # packages that lie beside each other in a checkout
_PACKAGES = ("i2v.modeling", "train.dataset", "train.model")
_OPTIMIZERS = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "SGD")
_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
_NAMED = re.compile(r"\b_target_:\s*([\w.]+)", re.ASCII)

MAX_RESOLVED = 1_000_000  # characters and values of a config with every reference written out
MAX_KEY = 64  # names in one key
MAX_CHAIN = 50  # references that lead to one another
_INNERMOST = re.compile(r"\$\{([^{}]*)\}")
_PART = r"[^\\{}()\[\]:.\s'\"$\0]+"
_KEY = re.compile(rf"\s*\.*{_PART}(?:[.\[\]]+{_PART})*\]?\s*")
_GRID = re.compile(r"\s*grid\s*:[^$]*")
_REFERENCE = "\0"  # stands for a reference inside another one

_TRUSTED = "i2v_trusted"  # a flag of OmegaConf: it stays with copies and parts of a config, and no file can set it
_REMEDY = "if you trust the config as you would a program: --trust-config, or trust_config=True in Python"

_Key = tuple[Any, ...]


def trust(config: DictConfig) -> None:
    """Vouch for a composed config, and for what is copied from it."""
    config._set_flag(_TRUSTED, True)


def is_trusted(config: DictConfig) -> bool:
    """Whether somebody vouched for it, or for what it was copied from."""
    return bool(config._get_flag(_TRUSTED))


def check_config(config: DictConfig, package_configs: Path) -> None:
    """Hold a composed config to the rules above, unless it is trusted. Raises ConfigError, which names the key."""
    if is_trusted(config):
        return
    try:
        plain = OmegaConf.to_container(config, resolve=False)
        _Sizes(plain).of(())
        AllowedTargets(package_configs).check(plain)
    except RecursionError:
        raise ConfigError(
            "the config is nested too deep, or its values refer to one another in too long a chain"
        ) from None


def check_resolved(plain: Any, where: _Key = ()) -> None:
    """Check that nothing in resolved values would be resolved once more. Raises ConfigError, which names the key."""
    if isinstance(plain, str) and "${" in plain:
        raise ConfigError(f"{_dotted(where)}: {plain!r} looks like a reference once it is resolved, which it must not")
    for name, value in _children(plain):
        check_resolved(value, (*where, name))


class AllowedTargets:
    """Which classes a config may name that nobody vouches for. Found by reading files; nothing is imported."""

    def __init__(self, package_configs: Path) -> None:
        texts = [path.read_text(encoding="utf-8") for path in package_configs.rglob("*.yaml")]
        self._named = {name for text in texts for name in _NAMED.findall(text)}
        self._named |= {f"torch.optim.{name}" for name in _OPTIMIZERS}
        self._modules = {name.rpartition(".")[0] for name in self._named}

    def __contains__(self, target: object) -> bool:
        if not isinstance(target, str) or not _NAME.fullmatch(target):
            return False
        if not target.startswith(_below(_OURS)):
            return target in self._named
        module, _, name = target.rpartition(".")
        return (module in self._modules or module.startswith(_below(_PACKAGES))) and _defines(module, name)

    def check(self, plain: Any, where: _Key = ()) -> None:
        """Check every `_target_` in nested dicts and lists. Raises ConfigError, which names the key."""
        if isinstance(plain, dict) and "_target_" in plain and plain["_target_"] not in self:
            raise ConfigError(
                f"{_dotted((*where, '_target_'))}: {plain['_target_']!r} is no class that is made for configs, and "
                f"nothing else may be named (see SECURITY.md); {_REMEDY}"
            )
        for name, value in _children(plain):
            self.check(value, (*where, name))


def _below(packages: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{package}." for package in packages)


def _defines(module: str, name: str) -> bool:
    """Whether a module of this checkout defines a class, and Python would import that very module."""
    package = module.partition(".")[0]
    spec = importlib.util.find_spec(package)  # imports nothing for a name without dots
    path = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    ours = spec is not None and spec.origin == str(_ROOT / package / "__init__.py")
    return ours and path.is_file() and name in _classes(path, path.stat().st_mtime_ns)


@cache
def _classes(path: Path, _changed: int) -> frozenset[str]:
    """Names of the classes that a source file defines at its top level."""
    return frozenset(node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef))


class _Sizes:
    """How much the values of a config are with every reference written out, found without writing it out."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self._known: dict[_Key, tuple[int, int]] = {}
        self._open: set[_Key] = set()

    def of(self, key: _Key) -> tuple[int, int]:
        """Size of what stands at a key, and its longest chain of references. ConfigError if either is too much."""
        if key not in self._known:
            if key in self._open:
                raise ConfigError(f"{_dotted(key)} refers to itself")
            if len(key) > MAX_KEY:
                raise ConfigError(f"{_dotted(key[:4])}... is nested more than {MAX_KEY} deep")
            self._open.add(key)
            self._known[key] = self._measure(key, _at(self._plain, key))
            self._open.remove(key)
        return self._known[key]

    def _measure(self, key: _Key, node: Any) -> tuple[int, int]:
        parts = [self.of((*key, name)) for name, _ in _children(node)]
        size, chain = 1 + sum(part[0] for part in parts), max((part[1] for part in parts), default=0)
        if isinstance(node, str):
            keys = [self._meant(key, reference) for reference in references(node, _dotted(key))]
            meant = [self.of(key) for key in keys if key is not None]
            size = 1 + len(node) + sum(part[0] for part in meant)
            chain = max((1 + part[1] for part in meant), default=0)
        if size > MAX_RESOLVED:
            raise ConfigError(
                f"{_dotted(key)} stands for more than {MAX_RESOLVED:,} values with all references written out"
            )
        if chain > MAX_CHAIN:
            raise ConfigError(f"{_dotted(key)} leads through more than {MAX_CHAIN} references")
        return size, chain

    def _meant(self, holder: _Key, reference: str) -> _Key | None:
        """The key that a reference means, or that of a reference on the way there; None if there is no such key."""
        dots = len(reference) - len(reference.lstrip("."))
        key: _Key = holder[: max(0, len(holder) - dots)] if dots else ()
        for part in filter(None, re.split(r"[.\[\]]", reference)):
            node = _at(self._plain, key)
            if isinstance(node, str):
                return key
            names = {str(name): name for name, _ in _children(node)}
            if part not in names:
                return None
            key = (*key, names[part])
        return key


def references(text: str, where: str) -> Iterator[str]:
    """The keys that a value refers to, as they are written there. Raises ConfigError for anything else in `${...}`."""
    rest = text
    while match := _INNERMOST.search(rest):
        if _KEY.fullmatch(match[1]):
            yield match[1].strip()
        elif not _GRID.fullmatch(match[1]):
            raise _foreign(match[0], where)
        rest = rest[: match.start()] + _REFERENCE + rest[match.end() :]
    if "${" in rest:
        raise _foreign(rest, where)


def _foreign(text: str, where: str) -> ConfigError:
    shown = text.replace(_REFERENCE, "${...}")
    return ConfigError(
        f"{where}: {shown!r} is no plain reference to a value of this config, and nothing else may be asked for (see "
        f"SECURITY.md); {_REMEDY}"
    )


def _at(plain: Any, key: _Key) -> Any:
    for name in key:
        plain = plain[name]
    return plain


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list | tuple):
        yield from enumerate(node)


def _dotted(key: _Key) -> str:
    return ".".join(map(str, key)) or "the config"
