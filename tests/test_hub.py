"""Models by name: shipped ones, files, folders, and the Hugging Face hub with a folder in the form of its cache."""

from __future__ import annotations

import builtins
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import TINY, make_predictor

import i2v.hub
from i2v.automatic_mask_generator import I2VAutomaticMaskGenerator
from i2v.build_i2v import build_i2v_hf, build_i2v_image_predictor_hf, build_i2v_video_predictor_hf
from i2v.checkpoint import read_checkpoint, save_checkpoint
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.modeling.i2v_model import I2VModel
from i2v.pretrained import NANO, ModelChoice, find_pretrained, nano_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def check_equal(model: I2VModel, weights: dict[str, torch.Tensor]) -> None:
    assert model.state_dict().keys() == weights.keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[name].to(value.dtype), rtol=0, atol=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    predictor = make_predictor("predictor.fill_hole_area=3")
    return predictor.save_pretrained(tmp_path_factory.mktemp("models") / "mine")


@pytest.fixture
def cache(tmp_path: Path, saved: Path) -> Path:
    """A cache in the layout of huggingface_hub, with a model at the main branch and at a tag."""
    repo = tmp_path / "hub" / "models--someone--tiny"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for path in saved.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    (repo / "refs").mkdir()
    for ref in ("main", "v1"):
        (repo / "refs" / ref).write_text(COMMIT)
    return tmp_path / "hub"


@pytest.mark.parametrize("kind", [I2VVideoPredictor, I2VImagePredictor, I2VAutomaticMaskGenerator])
def test_the_shipped_model_comes_by_its_name(kind: Any) -> None:
    built = kind.from_pretrained("i2v-nano", device="cpu")
    predictor = built.predictor if kind is I2VAutomaticMaskGenerator else built
    check_equal(predictor.model, read_checkpoint(nano_checkpoint()))
    assert predictor.image_size == 320


def test_a_checkpoint_file_says_its_config(tmp_path: Path) -> None:
    copied = tmp_path / "copied.pt"
    copied.write_bytes(nano_checkpoint().read_bytes())
    for given in (copied, str(copied)):
        assert find_pretrained(given) == ModelChoice(NANO, str(copied))
    (tmp_path / "folder").mkdir()
    copied.rename(tmp_path / "folder" / "other.pt")
    assert find_pretrained(tmp_path / "folder") == ModelChoice(NANO, str(tmp_path / "folder" / "other.pt"))


def test_a_saved_model_is_built_with_its_config(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.yaml", "model.pt"]
    predictor = I2VVideoPredictor.from_pretrained(saved, device="cpu")
    check_equal(predictor.model, make_predictor().model.state_dict())
    assert predictor.image_size == 64 and predictor.settings.fill_hole_area == 3
    assert I2VImagePredictor.from_pretrained(saved, device="cpu").max_hole_area == 3
    by_file = I2VVideoPredictor.from_pretrained(saved / "model.pt", device="cpu")
    assert by_file.image_size == 64 and by_file.settings.fill_hole_area == 3
    changed = I2VVideoPredictor.from_pretrained(saved, device="cpu", hydra_overrides_extra=["model.image_size=96"])
    assert changed.image_size == 96


def test_a_model_is_saved_once_and_in_half_precision_on_demand(tmp_path: Path) -> None:
    predictor = make_predictor()
    predictor.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"m has a config\.yaml and a model\.pt already"):
        predictor.save_pretrained(tmp_path / "m")
    predictor.save_pretrained(tmp_path / "m", overwrite=True, dtype=torch.float16)
    assert {v.dtype for v in read_checkpoint(tmp_path / "m" / "model.pt").values() if v.is_floating_point()} == {
        torch.float16
    }
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="the config of this model is unknown"):
        I2VImagePredictor(predictor.model).save_pretrained(tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_a_strangers_config_runs_nothing(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes((saved / "model.pt").read_bytes())
    text = (saved / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("i2v.inference.policy.PredictorSettings", "os.system", 1))
    with pytest.raises(ValueError, match=r"os\.system"):
        I2VVideoPredictor.from_pretrained(tmp_path, device="cpu")


def test_models_of_the_hub_come_from_its_cache(cache: Path) -> None:
    pytest.importorskip("huggingface_hub")
    where = {"cache_dir": cache, "local_files_only": True, "device": "cpu"}
    expected = make_predictor().model.state_dict()
    for build in (build_i2v_video_predictor_hf, build_i2v_image_predictor_hf):
        check_equal(build("someone/tiny", **where).model, expected)
    check_equal(build_i2v_hf("someone/tiny", revision="v1", **where), expected)
    check_equal(I2VVideoPredictor.from_pretrained("someone/tiny", revision=COMMIT, **where).model, expected)
    for name, revision in (("someone/other", None), ("someone/tiny", "v2")):
        with pytest.raises(FileNotFoundError, match=f"{name}: .*not obtained from the cache of the Hugging Face hub"):
            I2VVideoPredictor.from_pretrained(name, revision=revision, **where)


def test_a_folder_here_goes_before_the_hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "tiny").symlink_to(saved)
    assert find_pretrained("someone/tiny").checkpoint == "someone/tiny/model.pt"


def test_a_push_uploads_what_is_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[str, Any]] = []

    class Api:
        def __init__(self, token: str | None) -> None:
            calls.append(("token", token))

        def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
            calls.append(("create", (repo_id, private, exist_ok)))

        def upload_folder(self, repo_id: str, folder_path: str, revision: Any, commit_message: str) -> Any:
            calls.append(("upload", (repo_id, revision, commit_message)))
            for path in Path(folder_path).iterdir():
                (tmp_path / path.name).write_bytes(path.read_bytes())
            return SimpleNamespace(commit_url="https://hub.example/commit/1")

    monkeypatch.setattr(i2v.hub, "_import_hub", lambda: SimpleNamespace(HfApi=Api))
    predictor = make_predictor()
    assert predictor.push_to_hub("someone/tiny", private=True, token="secret") == "https://hub.example/commit/1"
    assert calls == [
        ("token", "secret"),
        ("create", ("someone/tiny", True, True)),
        ("upload", ("someone/tiny", None, "Upload a model of i2v")),
    ]
    check_equal(I2VVideoPredictor.from_pretrained(tmp_path, device="cpu").model, predictor.model.state_dict())
    with pytest.raises(ValueError, match="repo_id: expected OWNER/NAME, got 'tiny'"):
        predictor.push_to_hub("tiny")


class NoConnection(Exception):
    """As the errors of httpx, derived from nothing that the standard library has."""


def test_a_hub_that_is_out_of_reach_is_an_error_that_names_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise NoConnection("[Errno -2] Name or service not known")

    api = SimpleNamespace(create_repo=fail, upload_folder=fail)
    hub = SimpleNamespace(HfApi=lambda token: api, snapshot_download=fail)
    monkeypatch.setattr(i2v.hub, "_import_hub", lambda: hub)
    with pytest.raises(ConnectionError, match=r"someone/tiny: not pushed to the Hugging Face hub: .*service not known"):
        make_predictor().push_to_hub("someone/tiny")
    with pytest.raises(FileNotFoundError, match=r"models/mina: no file or folder of this name in .*, and not obtained"):
        I2VVideoPredictor.from_pretrained("models/mina")


def test_weights_are_saved_in_a_dtype_by_name_and_in_no_other_than_those_of_models(tmp_path: Path) -> None:
    predictor = make_predictor()
    saved = read_checkpoint(predictor.save_pretrained(tmp_path / "half", dtype="float16") / "model.pt")
    assert {value.dtype for value in saved.values() if value.is_floating_point()} == {torch.float16}
    for wrong in ("half", torch.int8, torch.complex64):
        with pytest.raises(ValueError, match="dtype: expected float32, bfloat16, float16, got"):
            predictor.save_pretrained(tmp_path / "wrong", dtype=wrong)
    assert not list((tmp_path / "wrong").iterdir())


def test_no_name_at_all_is_named() -> None:
    with pytest.raises(TypeError, match="model_id: expected the name of a model, a path or OWNER/NAME, got None"):
        I2VVideoPredictor.from_pretrained(None)  # type: ignore[arg-type]


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_hub(name: str, *rest: Any) -> Any:
        if name == "huggingface_hub":
            raise ModuleNotFoundError("No module named 'huggingface_hub'", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_hub)
    with pytest.raises(RuntimeError, match=r"need huggingface_hub: pip install 'i2v\[hub\]'"):
        I2VVideoPredictor.from_pretrained("someone/tiny")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("i2v-huge", FileNotFoundError, "model 'i2v-huge': expected i2v-nano, a checkpoint file, a folder"),
        ("a/b/c", FileNotFoundError, "model 'a/b/c': expected i2v-nano"),
        ("none/w.pt", FileNotFoundError, r"checkpoint none/w\.pt does not exist"),
        ("empty", ValueError, r"empty: expected model\.pt or one other checkpoint in this folder, got none"),
        ("two", ValueError, r"two: expected model\.pt or one other checkpoint in this folder, got 2: a\.pt, b\.pth"),
    ],
)
def test_what_is_no_model_is_told(
    name: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for file in ("a.pt", "b.pth"):
        save_checkpoint(torch.nn.Linear(1, 1), tmp_path / "two" / file)
    with pytest.raises(error, match=message):
        I2VVideoPredictor.from_pretrained(name)


def test_options_that_name_another_model_are_refused() -> None:
    for option in ({"config": str(TINY)}, {"ckpt_path": "w.pt"}, {"random_weights": True}):
        with pytest.raises(TypeError, match="i2v-nano has a config and weights of its own: expected no others"):
            I2VVideoPredictor.from_pretrained("i2v-nano", **option)
