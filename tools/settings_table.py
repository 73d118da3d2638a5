"""Make docs/settings.md, the table of the settings of training, from the configs and from train/settings.py.

python tools/settings_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

if not __package__:
    # Run as a script, this file sees only its own folder.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i2v.config import load_config
from i2v.utils.files import replacing
from train.settings import SETTINGS

CONFIGS = ("i2v-train", "i2v-finetune", "i2v-nano-finetune")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
_HEAD = """# Settings of training

Made by `python tools/settings_table.py` from the configs. `i2v train CONFIG KEY=VALUE ...` changes one,
`--print-config` shows all of them, and `--check` what a run would be like. A dash: the config has no such key, or
no value for it.

| key | {configs} | range | effect |
|---|{lines}---|---|
"""


def make_table() -> str:
    """The page's text."""
    configs = [load_config(name) for name in CONFIGS]
    rows = [
        (f"`{s.key}`", *(_default(config, s.key) for config in configs), s.range, s.effect.replace("|", "\\|"))
        for s in SETTINGS
    ]
    head = _HEAD.format(configs=" | ".join(f"`{name}`" for name in CONFIGS), lines="---|" * len(CONFIGS))
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _default(config: DictConfig, key: str) -> str:
    try:
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent)
        if node is None or name not in node or OmegaConf.is_missing(node, name):
            return "-"
        value: Any = node[name]
    except OmegaConfBaseException:  # it refers to a key without a value
        return "-"
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def main() -> int:
    """Write the page; returns the exit status."""
    with replacing(PAGE) as temporary:
        temporary.write_text(make_table(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
