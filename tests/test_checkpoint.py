"""Checkpoints are read safely, loaded strictly and written whole."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from i2v.checkpoint import (
    CheckpointError,
    Mismatch,
    StateDictReport,
    compare_state_dict,
    load_checkpoint,
    load_tinysam,
    read_checkpoint,
    read_checkpoint_info,
    save_atomically,
    save_checkpoint,
)


def toy(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class RunsCode:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_weights_come_back_as_saved(tmp_path: Path) -> None:
    source, target = toy(), toy()
    save_checkpoint(source, tmp_path / "toy.pt", config="toy", steps=7)
    assert equal(read_checkpoint(tmp_path / "toy.pt"), source.state_dict())
    load_checkpoint(target, str(tmp_path / "toy.pt"))
    assert equal(target.state_dict(), source.state_dict())


def test_the_file_is_summed_up(tmp_path: Path) -> None:
    save_checkpoint(toy(), tmp_path / "toy.pt", dtype=torch.float16, config="toy", steps=7)
    info = read_checkpoint_info(tmp_path / "toy.pt")
    assert (info.num_entries, info.num_values, info.dtypes) == (7, 6 + 3 + 4 * 3 + 1, ("float16", "int64"))
    assert info.metadata == {"config": "toy", "steps": 7}
    torch.save({"model": toy().state_dict(), "optimizer": {"state": [1]}, "epoch": 3}, tmp_path / "train.pt")
    info = read_checkpoint_info(tmp_path / "train.pt")
    assert (info.num_entries, info.dtypes) == (7, ("float32", "int64"))
    assert (info.metadata, info.other_keys) == ({"epoch": 3}, ("optimizer",))


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_and_training_state_are_read(tmp_path: Path, zipped: bool) -> None:
    source, target = toy(), toy()
    content = {"model": source.state_dict(), "optimizer": {"lr": 0.1}, "epoch": 3}
    torch.save(content, tmp_path / "train.pt", _use_new_zipfile_serialization=zipped)
    load_checkpoint(target, tmp_path / "train.pt")
    assert equal(target.state_dict(), source.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loads_into_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    source, target = toy(), toy()
    save_checkpoint(source.state_dict(), tmp_path / "half.pt", dtype=dtype)
    load_checkpoint(target, tmp_path / "half.pt")
    assert target[0].weight.dtype == torch.float32
    assert torch.equal(target[0].weight, source[0].weight.to(dtype).float())
    assert read_checkpoint(tmp_path / "half.pt")["1.num_batches_tracked"].dtype == torch.int64


def test_half_precision_that_overflows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"scale: values up to 1e\+05 do not fit torch.float16"):
        save_checkpoint({"scale": torch.tensor([1.0, -1e5])}, tmp_path / "half.pt", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_views_are_saved_alone(tmp_path: Path) -> None:
    save_checkpoint({"row": torch.zeros(1000, 1000)[0]}, tmp_path / "row.pt")
    assert (tmp_path / "row.pt").stat().st_size < 20_000


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    save_checkpoint(toy(), tmp_path / "toy.pt")
    before = (tmp_path / "toy.pt").read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_atomically({"model": lambda: None}, tmp_path / "toy.pt")
    assert (tmp_path / "toy.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["toy.pt"]


def test_metadata_cannot_replace_the_weights(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model"):
        save_checkpoint(toy(), tmp_path / "toy.pt", **{"model": "mine"})


def test_files_that_hold_no_checkpoint_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*file\.pt does not exist"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="is a folder, expected a checkpoint file"):
        read_checkpoint(tmp_path)
    contents = {
        b"": "is empty",
        b"<!DOCTYPE html>": "is not a checkpoint of torch.save: it starts with b'<!DOCTYPE html'",
        pickle.dumps({"model": {}}): "is not a checkpoint of torch.save",
        b"PK\x03\x04 and then nonsense": "is damaged or cut short",
    }
    for content, message in contents.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_damaged(tmp_path: Path, zipped: bool, kept: float) -> None:
    path = tmp_path / "cut.pt"
    torch.save({"model": toy(500).state_dict()}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"cut\.pt is damaged or cut short: get it again"):
        read_checkpoint(path)


def repacked(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """A checkpoint with another pickle in it."""
    save_checkpoint(toy(), path)
    content = {name: zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)
    return path


def test_a_small_file_does_not_become_large(tmp_path: Path) -> None:
    text = b"\x80\x02X" + (200_000_000).to_bytes(4, "little") + bytes(200_000_000) + b"."
    path = repacked(tmp_path / "packed.pt", text, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(CheckpointError, match=r"packed\.pt .*data\.pkl is compressed, which torch\.save never does"):
        read_checkpoint(path)
    path = repacked(tmp_path / "long.pt", b"\x80\x02" + b"}" * 5_000_000 + b".")
    with pytest.raises(CheckpointError, match=r"long\.pt .*data\.pkl has 5,000,003 bytes, expected at most 4,194,304"):
        read_checkpoint(path)
    path = tmp_path / "old.pt"
    torch.save({"model": toy().state_dict()}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"}", b"}" * 5_000_000, 1))
    with pytest.raises(CheckpointError, match=r"old\.pt .*its pickles have more than 1,000,000 operations"):
        read_checkpoint(path)
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match=r"pipe\.pt is no regular file"):
        read_checkpoint(tmp_path / "pipe.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "code.pt"
    content = {"model": toy().state_dict(), "trap": RunsCode(tmp_path / "ran")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"code\.pt can only be read by running code .*weights_only=False"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (toy().state_dict(), "is a bare state dict (0.weight, 0.bias, 1.weight, 1.bias, ...)"),
        (
            {"state_dict": toy().state_dict()},
            "expected a dict with the key 'model', got a dict with state_dict",
        ),
        (
            {"model": {"model": toy().state_dict()}},
            "expected a state dict under 'model', got a dict with model",
        ),
        ({"model": None}, "expected a state dict under 'model', got a NoneType"),
        ({"model": {}}, "expected a state dict under 'model', got an empty dict"),
        ({}, "expected a dict with the key 'model', got an empty dict"),
        ([torch.zeros(2)], "expected a dict with the key 'model', got a list"),
    ],
)
def test_another_layout_is_explained(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(tmp_path / "other.pt")
    assert str(tmp_path / "other.pt") in str(raised.value)
    assert message in str(raised.value)


def test_weights_that_do_not_fit_are_listed_and_change_nothing(tmp_path: Path) -> None:
    weights = toy(4).state_dict()
    weights["1.num_batches_tracked"] = torch.tensor(0.5)
    weights["extra"] = weights.pop("0.weight")
    model = toy()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = compare_state_dict(model, weights)
    assert (report.missing, report.unexpected) == (("0.weight",), ("extra",))
    assert report.mismatched[0] == Mismatch("0.bias", found="float[4]", expected="float[3]")
    assert report.mismatched[-1] == Mismatch("1.num_batches_tracked", found="float[]", expected="int[]")

    save_checkpoint(weights, tmp_path / "wide.pt")
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(model, tmp_path / "wide.pt")
    assert str(raised.value) == (
        f"checkpoint {tmp_path / 'wide.pt'} does not fit this Sequential with 7 entries: "
        "1 missing: 0.weight; 1 unexpected: extra; "
        "6 of another shape or kind: 0.bias (found float[4], expected float[3]), "
        "1.weight (found float[4], expected float[3]), 1.bias (found float[4], expected float[3]), "
        "1.running_mean (found float[4], expected float[3]), ..."
    )
    assert equal(model.state_dict(), before)


def test_a_fit_says_so() -> None:
    report = compare_state_dict(toy(), toy().half().state_dict())
    assert report == StateDictReport((), (), ())
    assert report.fits and report.describe() == "all entries fit"


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk_image = nn.ModuleDict({"mlp": nn.ModuleDict({"lin1": nn.Linear(2, 2)})})
        self.trunk_video = nn.Linear(2, 2)


class Upgraded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = Encoder()
        self.sam_prompt_encoder = nn.Embedding(2, 3)
        self.sam_mask_decoder = nn.ModuleDict({"mlp": nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2)] * 2)})})
        self.sam_mask_decoder["score"] = nn.Linear(2, 1)


def tinysam_weights() -> dict[str, Tensor]:
    return {
        "image_encoder.mlp.lin1.weight": torch.full((2, 2), 1.0),
        "image_encoder.mlp.lin1.bias": torch.full((2,), 2.0),
        "prompt_encoder.weight": torch.full((2, 3), 3.0),
        "mask_decoder.mlp.lin1.weight": torch.full((2, 2), 4.0),
        "mask_decoder.mlp.lin2.bias": torch.full((2,), 5.0),
        "mask_decoder.unknown": torch.zeros(1),
        "pixel_mean": torch.zeros(3, 1, 1),
    }


def test_tinysam_weights_start_what_they_belong_to(tmp_path: Path) -> None:
    model = Upgraded()
    fresh = model.image_encoder.trunk_video.weight.detach().clone()
    torch.save(tinysam_weights(), tmp_path / "tinysam.pth")
    report = load_tinysam(model, tmp_path / "tinysam.pth")
    entries = model.state_dict()
    assert {name: entries[name].flatten()[0].item() for name in report.set} == {
        "image_encoder.trunk_image.mlp.lin1.weight": 1.0,
        "image_encoder.trunk_image.mlp.lin1.bias": 2.0,
        "sam_prompt_encoder.weight": 3.0,
        "sam_mask_decoder.mlp.layers.0.weight": 4.0,
        "sam_mask_decoder.mlp.layers.1.bias": 5.0,
    }
    assert sorted((*report.set, *report.fresh)) == sorted(entries)
    assert report.ignored == ("mask_decoder.unknown", "pixel_mean")
    assert torch.equal(model.image_encoder.trunk_video.weight, fresh)
    assert report.describe().startswith("5 entries set; 6 left fresh: image_encoder.trunk_video.weight, ")


def test_tinysam_weights_of_another_shape_change_nothing(tmp_path: Path) -> None:
    model = Upgraded()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save({**tinysam_weights(), "prompt_encoder.weight": torch.zeros(2, 4)}, tmp_path / "tinysam.pth")
    with pytest.raises(CheckpointError, match=r"sam_prompt_encoder\.weight \(found float\[2, 4\], expected"):
        load_tinysam(model, tmp_path / "tinysam.pth")
    assert equal(model.state_dict(), before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": tinysam_weights()}, "expected TinySAM's bare state dict, got a dict with model"),
        ({"backbone.weight": torch.zeros(2)}, "no entry belongs to TinySAM, found backbone.weight"),
    ],
)
def test_a_file_that_is_not_tinysam_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "tinysam.pth")
    with pytest.raises(CheckpointError, match=message):
        load_tinysam(Upgraded(), tmp_path / "tinysam.pth")
