"""Which model is meant where not all is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import make_predictor

import i2v.pretrained
from i2v.build_i2v import build_i2v, build_i2v_video_predictor
from i2v.checkpoint import read_checkpoint, read_checkpoint_info, save_checkpoint
from i2v.pretrained import NANO, PUBLISHED, ModelChoice, choose_model, find_pretrained, nano_checkpoint

MOST_BYTES, MOST_PARAMETERS = 25_000_000, 8_000_000


def test_nothing_said_means_the_small_model() -> None:
    nano = ModelChoice(NANO, str(nano_checkpoint()))
    assert choose_model() == choose_model(NANO) == nano and nano.is_nano
    assert choose_model("i2v-infer") == ModelChoice("i2v-infer", None)
    assert not choose_model("mine.yaml").is_nano
    by_path = str(Path(i2v.__file__).parent / "configs" / "i2v-nano-infer.yaml")
    assert choose_model(by_path) == ModelChoice(by_path, str(nano_checkpoint())) and choose_model(by_path).is_nano


def test_a_checkpoint_says_for_which_config_it_is(tmp_path: Path) -> None:
    told, untold = tmp_path / "told.pt", tmp_path / "untold.pt"
    save_checkpoint(torch.nn.Linear(2, 2), told, config="i2v-train")
    save_checkpoint(torch.nn.Linear(2, 2), untold)
    assert choose_model(None, str(told)) == ModelChoice("i2v-train", str(told))
    assert choose_model("other", str(told)) == ModelChoice("other", str(told))
    assert choose_model(None, str(untold)) == ModelChoice(PUBLISHED, str(untold))
    # Those of a training run are for the config that it wrote.
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(untold.read_bytes())
    (tmp_path / "run" / "inference.yaml").write_text("model: {}\n")
    assert (
        find_pretrained(best).config == choose_model(None, str(best)).config == str(best.parents[1] / "inference.yaml")
    )


def test_the_small_model_is_small_and_complete() -> None:
    path = nano_checkpoint()
    assert path.stat().st_size < MOST_BYTES
    info = read_checkpoint_info(path)
    assert info.metadata["config"] == NANO and "float16" in info.dtypes
    model = build_i2v(NANO, path, device="cpu")
    assert sum(p.numel() for p in model.parameters()) < MOST_PARAMETERS


@pytest.mark.parametrize("how", ["nothing", "name", "file name", "path", "published keyword", "checkpoint alone"])
def test_a_predictor_of_the_small_model_has_its_weights(how: str) -> None:
    path = Path(i2v.pretrained.__file__).parent / "configs" / f"{NANO}.yaml"
    arguments: dict[str, Any] = {
        "nothing": {},
        "name": {"config": NANO},
        "file name": {"config": f"{NANO}.yaml"},
        "path": {"config": path},
        "published keyword": {"config_file": NANO},
        "checkpoint alone": {"ckpt_path": nano_checkpoint()},
    }[how]
    predictor = build_i2v_video_predictor(device="cpu", **arguments)
    wanted = read_checkpoint(nano_checkpoint())
    for name, value in predictor.model.state_dict().items():
        torch.testing.assert_close(value, wanted[name].to(value.dtype), rtol=0, atol=0)


def test_the_small_model_can_have_random_weights() -> None:
    predictor = build_i2v_video_predictor(NANO, device="cpu", random_weights=True)
    name, value = next((n, v) for n, v in predictor.model.state_dict().items() if v.ndim > 1)
    assert not torch.equal(value, read_checkpoint(nano_checkpoint())[name].to(value.dtype))


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(i2v.pretrained, "_PLACES", (tmp_path,))
    with pytest.raises(FileNotFoundError, match=r"i2v-nano\.pt, the small model .* is not in"):
        choose_model()


def test_an_empty_name_is_not_the_folder_one_is_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_checkpoint(make_predictor().model, tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="model '': expected i2v-nano, a checkpoint file, a folder"):
        find_pretrained("")
