"""What an untrusted config may do: name classes made for configs, and refer to its own values.

A config decides what is imported and called, so an untrusted one must be restricted, or it is a program:

- ``_target_`` must be a class that the package's configs name, a class defined in one of their modules or below
  ``i2v.modeling``, ``train.dataset`` or ``train.model``, or an optimizer of PyTorch. This is decided by reading source
  code: nothing is imported, and no attribute of a module is followed.
- ``${...}`` must refer to a value of the config itself, or be ``${grid:...}``. Other resolvers could read the
  environment.
- With all references expanded, the config must be small.

With ``--trust-config`` or ``trust_config=True``, none of this applies.
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
_OURS = ("i2v", "train")  # packages of a checkout
_PACKAGES = ("i2v.modeling", "train.dataset", "train.model")
_OPTIMIZERS = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "SGD")
_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
_NAMED = re.compile(r"\b_target_:\s*([\w.]+)", re.ASCII)

MAX_RESOLVED = 1_000_000  # characters and values of a config with all references expanded
MAX_KEY = 64  # parts of a dotted key
MAX_CHAIN = 50  # references to references
_INNERMOST = re.compile(r"\$\{([^{}]*)\}")
_PART = r"[^\\{}()\[\]:.\s'\"$\0]+"
_KEY = re.compile(rf"\s*\.*{_PART}(?:[.\[\]]+{_PART})*\]?\s*")
_GRID = re.compile(r"\s*grid\s*:[^$]*")
_REFERENCE = "\0"  # placeholder for a reference inside another one

_TRUSTED = "i2v_trusted"  # an OmegaConf flag: copies and sub-configs inherit it, and no file can set it
_REMEDY = "if you trust the config as you would a program: --trust-config, or trust_config=True in Python"

_Key = tuple[Any, ...]


def trust(config: DictConfig) -> None:
    """Mark a composed config, and its copies, as trusted."""
    config._set_flag(_TRUSTED, True)


def is_trusted(config: DictConfig) -> bool:
    """Whether the config, or the one it was copied from, was marked as trusted."""
    return bool(config._get_flag(_TRUSTED))


def check_config(config: DictConfig, allowed: AllowedTargets) -> None:
    """Check an untrusted config against the rules above. A trusted one is not checked.

    Args:
        config: The composed config.
        allowed: The allowed classes.

    Raises:
        ConfigError: If it breaks a rule; the message names the key.
    """
    if is_trusted(config):
        return
    try:
        plain = OmegaConf.to_container(config, resolve=False)
        _Sizes(plain).of(())
        allowed.check(plain)
    except RecursionError:
        raise ConfigError(
            "the config is nested too deep, or its values refer to one another in too long a chain"
        ) from None


def check_resolved(plain: Any, where: _Key = ()) -> None:
    """Check that resolved values contain no further references.

    Args:
        plain: The values.
        where: Key of the values, for messages.

    Raises:
        ConfigError: If one does; the message names its key.
    """
    if isinstance(plain, str) and "${" in plain:
        raise ConfigError(f"{_dotted(where)}: {plain!r} looks like a reference once it is resolved, which it must not")
    for name, value in _children(plain):
        check_resolved(value, (*where, name))


class AllowedTargets:
    """The classes that an untrusted config may name. Found by reading files; nothing is imported."""

    def __init__(self, package_configs: Path) -> None:
        """Collect the classes named by the package's configs.

        Args:
            package_configs: Folder of the package's configs.
        """
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
        """Check every ``_target_`` in nested dicts and lists.

        Args:
            plain: The values.
            where: Key of the values, for messages.

        Raises:
            ConfigError: If one is not allowed; the message names its key.
        """
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
    """Whether a module of this checkout defines a class, and Python would import that same module."""
    package = module.partition(".")[0]
    spec = importlib.util.find_spec(package)  # imports nothing for a name without dots
    path = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    ours = spec is not None and spec.origin == str(_ROOT / package / "__init__.py")
    return ours and path.is_file() and name in _classes(path, path.stat().st_mtime_ns)


@cache
def _classes(path: Path, _changed: int) -> frozenset[str]:
    """Return the names of the classes that a source file defines at top level."""
    return frozenset(node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef))


class _Sizes:
    """Sizes of a config's values with all references expanded, computed without expanding them."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self._known: dict[_Key, tuple[int, int]] = {}
        self._open: set[_Key] = set()

    def of(self, key: _Key) -> tuple[int, int]:
        """Return the size of the value at a key and the length of its longest chain of references, within limits."""
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
        """Return the key that a reference leads to, or of another reference on the way; ``None`` if there is none."""
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
    """Yield the keys that a value refers to, as written.

    Args:
        text: The value.
        where: Dotted key of the value, for messages.

    Raises:
        ConfigError: If ``${...}`` contains anything else.
    """
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
