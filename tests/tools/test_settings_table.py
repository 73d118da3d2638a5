"""The page of settings says what the configs and the checks say."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from i2v.config import ConfigError, available_configs, load_config
from tools.settings_table import PAGE, make_table
from train.settings import SETTINGS, check_settings
from train.train import training_configs


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == make_table(), "python tools/settings_table.py"


def test_all_configs_are_within_the_ranges() -> None:
    names = training_configs()
    assert {"i2v-train", "i2v-finetune", "i2v-nano-finetune"} <= set(names) <= set(available_configs())
    for name in names:
        check_settings(load_config(name))


def test_every_setting_is_one_of_some_config() -> None:
    configs = [load_config(name) for name in training_configs()] + [load_config("i2v-finetune", ["train=lora"])]
    for setting in SETTINGS:
        parent, _, name = setting.key.rpartition(".")
        # `in` a config would be False for a value that is still missing.
        nodes = (OmegaConf.select(config, parent) for config in configs)
        assert any(node is not None and name in list(node.keys()) for node in nodes) or "optim" in parent, setting.key


def test_all_that_is_wrong_is_told_at_once() -> None:
    config = load_config("i2v-train", ["scratch.num_frames=0", "trainer.mode=fast", "trainer.freeze=all"])
    with pytest.raises(ConfigError) as caught:
        check_settings(config)
    message = str(caught.value)
    assert "scratch.num_frames: expected a whole number of at least 1, got 0" in message
    assert "trainer.mode: expected one of train_only, train, val, got 'fast'" in message
    assert "trainer.freeze: expected a list of texts, got 'all'" in message
