"""Reading a config's YAML files within limits, and composing them by Hydra's rules.

Files may be untrusted. Only files in the requested file's folder, below it, or among the package's configs are read,
and a small file cannot expand to a large config.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from i2v.utils.terminal import printable

MAX_BYTES = 256 << 10  # of one file; the package's longest has 6 KiB
MAX_NODES = 20_000  # keys, values and containers of one file, with aliases expanded
MAX_DEPTH = 32  # nested containers
MAX_SCALAR = 10_000  # characters of one key or value
# Limit on all files of a config together: `defaults` can name the same files repeatedly.
_MAX_COST, _COST_OF_A_FILE = 100_000, 100

# Errors that Hydra, OmegaConf and PyYAML raise on malformed files; these are not documented.
_COMPOSITION_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    yaml.YAMLError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    RecursionError,
)

# Hydra fills its registries on first use, without locking.
hydra_lock = threading.Lock()


class ConfigError(ValueError):
    """A config or an override is invalid; the message names the file or key."""


def compose(path: Path, package: Path, overrides: Sequence[Override]) -> tuple[DictConfig, list[Override]]:
    """Compose a config file.

    Args:
        path: Path of the file. Its ``defaults`` are searched in its folder, then in ``package``.
        package: Folder of the package's configs.
        overrides: Parsed overrides. Those that select other files are applied.

    Returns:
        The composed config, and the overrides that remain to be applied: those that set values.

    Raises:
        ConfigError: If a file is malformed, too large, or outside these folders.
    """
    try:
        with hydra_lock:
            files = _Files(path.parent, package)
            choices = [override for override in overrides if _chooses_a_file(files, override)]
            defaults = create_defaults_list(files, path.name, choices, prepend_hydra=False, skip_missing=False)
            # hydra.compose needs the process-wide GlobalHydra, which the caller may be using.
            loader = ConfigLoaderImpl(ConfigSearchPathImpl())
            composed = loader._compose_config_from_defaults_list(defaults.defaults, files)
    except ConfigError as error:
        raise ConfigError(f"cannot compose {path}: {error}") from error
    except _COMPOSITION_ERRORS as error:
        raise ConfigError(f"cannot compose {path}: {printable(error) or type(error).__name__}") from error
    return composed, [override for override in overrides if override not in choices]


def read_config_text(path: Path) -> str:
    """Read a YAML file that is also small once parsed.

    Raises:
        OSError: If the file cannot be read.
        ConfigError: If it is not UTF-8, or exceeds the limits on size and nesting.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes, which no config needs")
    try:
        text = content.decode("utf-8")
        _check_size(yaml.parse(text, Loader=yaml.SafeLoader))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8, got the byte {content[error.start]:#04x}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return text


@dataclass
class _Branch:
    """Size of a container or an anchor, counted while the events of a file are parsed."""

    anchor: str | None
    nodes: int = 1
    depth: int = 1


def _check_size(events: Iterator[yaml.Event]) -> None:
    """Count what the events would build without building it. An alias costs as much as what it refers to."""
    root = _Branch(None, nodes=0)
    above, anchors = [root], dict[str, _Branch]()
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            above.append(_Branch(event.anchor))
            if event.anchor:
                anchors[event.anchor] = above[-1]
        elif isinstance(event, yaml.CollectionEndEvent):
            _add(above[-2], above.pop(), event)
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_SCALAR:
                raise ConfigError(
                    f"{_place(event)} has a value of {len(event.value):,} characters, {MAX_SCALAR:,} at most"
                )
            leaf = _Branch(event.anchor, depth=0)
            if event.anchor:
                anchors[event.anchor] = leaf
            _add(above[-1], leaf, event)
        elif isinstance(event, yaml.AliasEvent) and event.anchor in anchors:
            meant = anchors[event.anchor]
            if any(branch is meant for branch in above):
                raise ConfigError(f"{_place(event)} contains itself, through the alias {event.anchor!r}")
            _add(above[-1], meant, event)
        if len(above) > MAX_DEPTH:
            raise ConfigError(f"{_place(event)} is nested more than {MAX_DEPTH} deep")


def _add(parent: _Branch, child: _Branch, event: yaml.Event) -> None:
    parent.nodes += child.nodes
    parent.depth = max(parent.depth, 1 + child.depth)
    if parent.nodes > MAX_NODES:
        raise ConfigError(f"{_place(event)} stands for more than {MAX_NODES:,} values with all aliases written out")
    if parent.depth > MAX_DEPTH:
        raise ConfigError(f"{_place(event)} is nested more than {MAX_DEPTH} deep")


def _place(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}"


class _CheckedSource(FileConfigSource):
    """Reads the files of a folder within limits."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        text = read_config_text(path)
        config = OmegaConf.load(io.StringIO(text))
        if OmegaConf.is_dict(config) and "hydra" in config:
            # hydra.searchpath would import packages by name, and other settings only matter to a Hydra app.
            raise ConfigError(
                f"{path} has settings of a Hydra app under 'hydra', which have no use here: take them out"
            )
        header = self._get_header_dict(text[:512])
        return ConfigResult(config=config, path=f"{self.scheme()}://{self.path}", provider=self.provider, header=header)


class _Repository(ConfigRepository):
    """Folders, and the nodes that the program has registered with Hydra's ConfigStore."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        super().__init__(ConfigSearchPathImpl())

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        # Create the sources directly: Hydra's registry would import every installed plugin.
        folders = [_CheckedSource(folder.name, f"file://{folder}") for folder in self._folders]
        self.sources = [*folders, StructuredConfigSource("schema", "structured://")]


class _Files(CachingConfigRepository):
    """The files that a config can consist of. Every look-up must stay inside the folders, and its cost is counted."""

    def __init__(self, *folders: Path) -> None:
        super().__init__(_Repository(*folders))
        self._cost = 0

    def load_config(self, config_path: str) -> ConfigResult | None:
        found = super().load_config(_inside(config_path))
        for default in (found and found.defaults_list) or ():
            if re.search(r"\$\{.*:", f"{default.get_name()}"):
                raise ConfigError(f"{config_path}: `defaults` ask for {default.get_name()}, expected a name")
        self._cost += _COST_OF_A_FILE + (0 if found is None else _num_nodes(found.config))
        if self._cost > _MAX_COST:
            raise ConfigError(f"{config_path}: `defaults` name files again and again, more than any config needs")
        return found

    def group_exists(self, config_path: str) -> bool:
        return super().group_exists(_inside(config_path))

    def config_exists(self, config_path: str) -> bool:
        return super().config_exists(_inside(config_path))

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        return super().get_group_options(_inside(group_name), results_filter)


def _inside(config_path: str) -> str:
    """Return a path if it stays below the config folder; otherwise raise ConfigError."""
    paths = PurePosixPath(config_path), PureWindowsPath(config_path)
    if any(path.anchor or ".." in path.parts for path in paths):
        raise ConfigError(f"`defaults` name {config_path!r}, expected a name below the folder of the config")
    return config_path


def _num_nodes(config: object) -> int:
    """Count keys, values and containers of an unresolved config."""
    if OmegaConf.is_dict(config) or OmegaConf.is_list(config):
        plain = OmegaConf.to_container(config, resolve=False)
        return _count(plain)
    return 1


def _count(plain: object) -> int:
    if isinstance(plain, dict):
        return 1 + sum(1 + _count(value) for value in plain.values())
    return 1 + sum(_count(value) for value in plain) if isinstance(plain, list) else 1


def _chooses_a_file(files: _Files, override: Override) -> bool:
    is_group = bool(files.get_group_options(override.key_or_group))
    return is_group and not isinstance(override.value(), dict)
