"""Configs are found, composed and overridden; builders turn them into models."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from torch import nn

from i2v import build_i2v as builders
from i2v import config as config_module
from i2v.checkpoint import CheckpointError, save_checkpoint
from i2v.config import ConfigError, load_config
from i2v.inference.policy import InferencePolicy


@dataclass(frozen=True)
class ToyMasks:
    dynamic_multimask_via_stability: bool = True
    dynamic_multimask_stability_delta: float = 0.05
    dynamic_multimask_stability_thresh: float = 0.98
    binarize_mask_from_pts_for_mem_enc: bool = True


@dataclass(frozen=True)
class ToySettings:
    fill_hole_area: int = 8
    non_overlap_masks: bool = False


class ToyModel(nn.Module):
    device = torch.device("cpu")

    def __init__(self, image_size: int, widths: list[int]) -> None:
        super().__init__()
        if image_size % 16:
            raise ValueError(f"image_size: expected a multiple of 16, got {image_size}")
        self.image_size, self.widths = image_size, widths
        self.layer = nn.Linear(widths[0], widths[1])
        self.weights_seen_by_eval: torch.Tensor | None = None

    def train(self, mode: bool = True) -> ToyModel:
        if not mode:
            self.weights_seen_by_eval = self.layer.weight.detach().clone()
        return super().train(mode)


class ToyPredictor:
    def __init__(self, model: nn.Module, policy: InferencePolicy, dtype: torch.dtype | None, tf32: bool) -> None:
        self.model, self.policy, self.dtype, self.tf32 = model, policy, dtype, tf32


TREE = {
    "toy.yaml": """
defaults: [model: small, selector@model.selector: similarity, _self_]
scratch: {resolution: 32}
model: {image_size: "${scratch.resolution}"}
predictor: {_target_: HERE.ToySettings}
""",
    "bare.yaml": """
defaults: [model: small, selector@model.selector: recent, _self_]
""",
    "model/small.yaml": """
_target_: HERE.ToyModel
image_size: 64
widths: [2, 3]
masks: {_target_: HERE.ToyMasks}
""",
    "model/wide.yaml": """
_target_: HERE.ToyModel
image_size: 64
widths: [4, 5]
masks: {_target_: HERE.ToyMasks}
""",
    "selector/similarity.yaml": "num_maskmem_global_all: 16\nnum_maskmem_local: ???\n",
    "selector/recent.yaml": "num_maskmem: 7\n",
}


def write_tree(root: Path, tree: dict[str, str]) -> None:
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.replace("HERE", __name__))


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of toy configs, seen from an empty working directory."""
    configs = tmp_path / "package" / "configs"
    write_tree(configs, TREE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(config_module, "PACKAGE_CONFIGS", configs)
    monkeypatch.setattr(builders, "I2VVideoPredictor", ToyPredictor)
    return configs


@pytest.mark.parametrize(
    "name",
    [
        "toy",
        "toy.yaml",
        "configs/toy",
        "configs/toy.yaml",
        "./configs/toy.yaml",
        "i2v/configs/toy.yaml",
        "./i2v/configs/toy.yaml",
        "../i2v/configs/toy.yaml",
        "../../i2v/configs/toy",
        Path("configs/toy.yaml"),
    ],
)
def test_a_name_is_found_from_any_folder(name: str | Path) -> None:
    config = load_config(name)
    assert config.model.image_size == 32
    assert config.model.selector.num_maskmem_global_all == 16
    assert "hydra" not in config and "defaults" not in config


def test_an_absolute_path_needs_no_suffix(package: Path) -> None:
    assert load_config(package / "toy.yaml") == load_config(str(package / "toy")) == load_config("toy")


def test_a_users_file_may_use_the_groups_of_the_package(tmp_path: Path) -> None:
    mine = "defaults: [model: small, selector@model.selector: mine, _self_]\nmodel: {image_size: 16}\n"
    write_tree(tmp_path / "elsewhere", {"toy.yaml": mine, "selector/mine.yaml": "num: 1"})
    config = load_config("./toy.yaml")
    assert config.model.image_size == 16
    assert config.model.widths == [2, 3]
    assert config.model.selector == {"num": 1}
    assert load_config("./toy") == load_config(tmp_path / "elsewhere" / "toy") == config


def test_a_bare_name_is_never_a_file_of_the_working_directory(tmp_path: Path) -> None:
    ours = load_config("toy")
    write_tree(tmp_path / "elsewhere", {"toy.yaml": "a: 1", "mine.yaml": "a: 2", "model/small.yaml": "a: 3"})
    assert load_config("toy") == load_config("toy.yaml") == load_config(Path("toy.yaml")) == ours
    with pytest.raises(FileNotFoundError, match=r"'mine' not found; .* a file needs a path: \./mine\.yaml"):
        load_config("mine")
    assert load_config("./mine") == {"a": 2}


def test_a_path_that_may_mean_two_configs_means_none(tmp_path: Path, package: Path) -> None:
    write_tree(tmp_path / "elsewhere", {"configs/toy.yaml": "a: 1", "i2v/configs/toy.yaml": TREE["toy.yaml"]})
    for name in ("configs/toy", "./configs/toy.yaml", Path("configs/toy.yaml")):
        with pytest.raises(ConfigError, match=r"may mean .*elsewhere.configs.toy\.yaml or .*package.configs.toy\.yaml"):
            load_config(name)
    assert load_config(tmp_path / "elsewhere" / "configs" / "toy.yaml") == {"a": 1}
    assert load_config("./i2v/configs/toy.yaml") == load_config("toy")  # a checkout of what is installed


@pytest.mark.parametrize("name", ["nothing", "configs/nothing.yaml", "/nowhere/toy.yaml", "other/toy.yaml", "./toy"])
def test_a_missing_config_lists_what_was_tried(name: str) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        load_config(name)
    assert (str(Path.cwd() / name) if "/" in name else "a file needs a path: ./nothing") in str(raised.value)
    assert "the package has bare, toy" in str(raised.value)


def test_a_file_that_is_no_yaml_config_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path / "elsewhere", {"a.json": "{}", "bad.yaml": "a: [1", "group.yaml": "defaults: [model: huge]"})
    with pytest.raises(ConfigError, match=r"ends in \.yaml, got .*a\.json"):
        load_config("./a.json")
    with pytest.raises(ConfigError, match=r"cannot compose .*bad\.yaml"):
        load_config("./bad")
    with pytest.raises(ConfigError, match=r"model/huge(.|\n)*small(.|\n)*wide"):
        load_config("./group")


def test_the_last_override_wins() -> None:
    config = load_config("toy", ["model.image_size=48", "scratch.resolution=64", "++model.image_size=80"])
    assert config.model.image_size == 80


def test_groups_are_chosen_and_values_set_in_one_go() -> None:
    config = load_config("toy", ["model.widths=[6,7]", "model=wide", "selector@model.selector=recent"])
    assert config.model.widths == [6, 7]
    assert config.model.selector == {"num_maskmem": 7}


def test_a_key_that_only_the_constructor_knows_can_be_set() -> None:
    config = load_config("toy", ["model.masks.dynamic_multimask_stability_delta=0.1"])
    assert config.model.masks.dynamic_multimask_stability_delta == 0.1


def test_keys_are_added_and_removed() -> None:
    config = load_config("toy", ["+scratch.extra={a: 1}", "+scratch.extra.b=2", "~model.widths"])
    assert config.scratch.extra == {"a": 1, "b": 2}
    assert "widths" not in config.model


@pytest.mark.parametrize("prefix", ["", "+", "++"])
@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("model.fill_hole_area=3", "predictor.fill_hole_area"),
        ("model.num_maskmem_global_all=3", "model.selector.num_maskmem_global_all"),
        ("model.num_maskmem_local=3", "model.selector.num_maskmem_local"),
        (
            "model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=3",
            "model.masks.dynamic_multimask_stability_thresh",
        ),
        (
            "model.sam_mask_decoder_extra_args={dynamic_multimask_stability_thresh: 3}",
            "model.masks.dynamic_multimask_stability_thresh",
        ),
        ("model.binarize_mask_from_pts_for_mem_enc=3", "model.masks.binarize_mask_from_pts_for_mem_enc"),
        ("model.image_size=3", "model.image_size"),
    ],
)
def test_published_keys_reach_ours(prefix: str, published: str, ours: str) -> None:
    assert OmegaConf.select(load_config("toy", [prefix + published]), ours) == 3


def test_published_keys_without_a_meaning_must_have_their_value() -> None:
    harmless = [
        "++model.iou_threshold=0",
        "++model.compile_image_encoder=false",
        "model.pred_obj_scores=true",
    ]
    assert load_config("toy", harmless) == load_config("toy")
    with pytest.raises(ConfigError, match=r"model\.use_high_res_features_in_sam is fixed at False here, got True"):
        load_config("toy", ["++model.use_high_res_features_in_sam=true"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "++model.fil_hole_area=0",
            "unknown key 'model.fil_hole_area'; did you mean predictor.fill_hole_area?",
        ),
        ("model.image_sise=32", "did you mean model.image_size?"),
        ("++scratch.resolutoin=32", "did you mean scratch.resolution?"),
        ("+model.masks.stability=1", "unknown key 'model.masks.stability'"),
        ("~model.width", "did you mean model.widths?"),
        ("modle.image_size=32", "this config has no node 'modle', only model, scratch, predictor"),
        ("scratch.resolution.deep=1", "unknown key 'scratch.resolution.deep'"),
        ("model.masks=1", "model.masks holds the settings _target_: set one of these, got model.masks=1"),
        ("nothing@model.selector=similarity", "there is no config group 'nothing'"),
        ("selector@model.selector=huge", "similarity"),
        ("model.image_size=1,2", "expected one value, got a sweep"),
        ("model.image_size", "cannot read the override 'model.image_size'"),
    ],
)
def test_a_bad_override_is_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config("toy", [override])
    assert message in str(raised.value)


def test_a_composed_config_is_copied() -> None:
    given = load_config("toy")
    OmegaConf.set_readonly(given, True)
    changed = load_config(given, ["++model.fill_hole_area=5", "scratch.resolution=16"])
    assert (changed.predictor.fill_hole_area, changed.model.image_size) == (5, 16)
    assert given == load_config("toy")


def test_the_callers_hydra_is_left_alone(package: Path) -> None:
    with initialize_config_dir(str(package), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        load_config("toy", ["model=wide"])
        assert GlobalHydra.instance().hydra is before
        assert compose("toy").model.widths == [2, 3]
    assert not GlobalHydra.instance().is_initialized()


def test_threads_may_load_at_once() -> None:
    results: dict[int, DictConfig] = {}

    def load(number: int) -> None:
        results[number] = load_config("toy", [f"scratch.resolution={16 * number}"])

    threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: config.model.image_size for number, config in results.items()} == {
        number: 16 * number for number in range(8)
    }


def build(**arguments: object) -> ToyPredictor:
    overrides = ["model.selector.num_maskmem_local=2", *arguments.pop("hydra_overrides_extra", ())]
    given = {"config": "toy", "device": "cpu", "random_weights": True, "hydra_overrides_extra": overrides, **arguments}
    return builders.build_i2v_video_predictor(**given)


def test_a_predictor_has_the_published_postprocessing() -> None:
    predictor = build()
    assert predictor.policy.masks == ToyMasks(True, 0.05, 0.98, True)
    assert predictor.policy.settings == ToySettings(fill_hole_area=8)
    assert predictor.dtype == torch.float32
    assert predictor.model.widths == [2, 3] and type(predictor.model.widths) is list
    assert predictor.policy.selector == {"num_maskmem_global_all": 16, "num_maskmem_local": 2}


def test_users_beat_the_postprocessing_and_can_leave_it_out() -> None:
    published = "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=false"
    predictor = build(hydra_overrides_extra=["++model.fill_hole_area=0", published])
    assert predictor.policy.settings.fill_hole_area == 0
    assert predictor.policy.masks == ToyMasks(False, 0.05, 0.98, True)
    plain = build(apply_postprocessing=False)
    assert plain.policy.settings == ToySettings(fill_hole_area=0)
    assert plain.policy.masks == ToyMasks(False, 0.05, 0.98, False)


def test_the_model_alone_needs_no_predictor_settings() -> None:
    model = builders.build_i2v("bare", device="cpu")
    assert model.widths == [2, 3]
    with pytest.raises(ConfigError, match="the config has no node 'predictor', only model"):
        builders.build_i2v_video_predictor("bare", device="cpu")
    with pytest.raises(ConfigError, match="this config has no node 'predictor', only model"):
        builders.build_i2v_video_predictor("bare", device="cpu", apply_postprocessing=False)


def test_weights_are_there_before_eval_mode(tmp_path: Path) -> None:
    source = builders.build_i2v("bare", device="cpu")
    save_checkpoint(source, tmp_path / "toy.pt")
    model = builders.build_i2v("bare", tmp_path / "toy.pt", device="cpu")
    assert not model.training
    assert torch.equal(model.weights_seen_by_eval, source.layer.weight)
    assert builders.build_i2v("bare", tmp_path / "toy.pt", "cpu", mode="train").training
    with pytest.raises(CheckpointError, match=r"toy\.pt does not fit this ToyModel"):
        builders.build_i2v("bare", tmp_path / "toy.pt", "cpu", hydra_overrides_extra=["model=wide"])


def test_random_weights_are_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        builders.build_i2v("bare", device="cpu")
    assert [record.message for record in caplog.records] == [
        "no checkpoint was given: the weights of the model are random"
    ]


def test_a_predictor_never_has_random_weights_by_oversight(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="toy has no weights of its own: give ckpt_path, or random_weights=True"):
        build(random_weights=False)
    with pytest.raises(ValueError, match="toy has no weights of its own"):
        build(random_weights=False, ckpt_path=None)
    with pytest.raises(ValueError, match="toy has no weights of its own"):
        build(random_weights=False, config=None, config_file="toy")
    save_checkpoint(build().model, tmp_path / "toy.pt")
    assert build(random_weights=False, ckpt_path=tmp_path / "toy.pt").model.widths == [2, 3]
    with pytest.raises(ValueError, match=r"expected a checkpoint or random_weights=True, got both: .*toy\.pt"):
        build(ckpt_path=tmp_path / "toy.pt")


def test_the_published_keyword_for_the_config_works() -> None:
    assert builders.build_i2v(config_file="bare", device="cpu").widths == [2, 3]
    for arguments in ({}, {"config": "bare", "config_file": "bare"}):
        with pytest.raises(TypeError, match="expected one config"):
            builders.build_i2v(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "test"}, ValueError, "mode: expected 'eval' or 'train', got 'test'"),
        ({"device": "cpuu"}, ValueError, "device 'cpuu'"),
        ({"device": "cuda:99"}, ValueError, "device 'cuda:99': PyTorch finds"),
        ({"hydra_overrides_extra": "model.image_size=32"}, TypeError, "expected a list of strings"),
        ({"hydra_overrides_extra": ["model.image_size=31"]}, ConfigError, "multiple of 16, got 31"),
        ({"hydra_overrides_extra": ["~model.widths"]}, ConfigError, "missing 1 required .* 'widths'"),
        ({"hydra_overrides_extra": ["model.widths=???"]}, ConfigError, "model.widths"),
        ({"fill_holes": True}, TypeError, "fill_holes"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        builders.build_i2v(**{"config": "bare", "device": "cpu", **arguments})


def test_dtypes_are_named_or_follow_the_device() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert builders.resolve_dtype(None, cpu) == torch.float32
    assert builders.resolve_dtype(None, cuda) == torch.bfloat16
    assert builders.resolve_dtype("float16", cpu) == builders.resolve_dtype(torch.float16, cpu) == torch.float16
    for wrong in ("half", torch.int64):
        with pytest.raises(ValueError, match="dtype: expected float32, bfloat16, float16, got"):
            builders.resolve_dtype(wrong, cpu)


def test_a_config_can_ask_for_the_side_of_the_feature_map(tmp_path: Path) -> None:
    write_tree(tmp_path / "elsewhere", {"sided.yaml": "image_size: 64\ngrid: ${grid:${image_size}}\n"})
    assert load_config("./sided", ["image_size=48"]).grid == 3
