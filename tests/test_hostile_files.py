"""Commands in a folder that somebody else has packed: one sentence, exit code 1, and nothing elsewhere has changed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import TINY, make_predictor
from train_support import tiny_run
from vos_support import disc_mask, make_label_tree, make_sav_tree, render

from i2v.cli import main as cli
from i2v.results.rle import encode_mask
from sav_dataset import sav_evaluator
from test_pvs import semi_infer, submission
from tools import baselines, save_gt_mask_multiprocess
from train.build import run as train_run

COUNTS, EMPTY = (encode_mask(mask).decode() for mask in (disc_mask(0, 0), np.zeros((48, 64), bool)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save({"model": make_predictor().model.state_dict()}, path)
    return path


class Elsewhere:
    """A folder that has nothing to do with what is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "inner").mkdir(parents=True)
        for name in ("00000.png", "notes.txt", "inner/00000.png", "000.json"):
            (folder / name).write_bytes(b"mine")
        self._before = self._contents()

    def _contents(self) -> dict[str, bytes | None]:
        return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(self.folder.rglob("*"))}

    def is_untouched(self) -> bool:
        return self._contents() == self._before


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "elsewhere")


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """The error that a command has told, in one line and without a traceback."""
    told = capsys.readouterr().err
    assert "Traceback" not in told
    errors = [line for line in told.splitlines() if "error: " in line]
    assert len(errors) == 1, told
    return errors[0]


def infer(checkpoint: Path, root: Path, out: Path, *more: str) -> int:
    options = {"input": "gm", "ckpt": checkpoint, "yaml": TINY, "data_root": root, "output_root": out, "device": "cpu"}
    words = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return semi_infer.main([*words, "--workers", "1", *more])


def run_of(out: Path, dataset: str = "SAVTest") -> Path:
    return out / "tiny" / f"Semi_{dataset}_tiny_gm"


def write_mask_info(root: Path, **changes: object) -> None:
    content = {"video": "v", "object": "000", "size": [48, 64], "annotated": [0], "counts": {"0": COUNTS}, **changes}
    (root / "mask_info" / "v").mkdir(parents=True, exist_ok=True)
    (root / "mask_info" / "v" / "000.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["/elsewhere", "../../../../elsewhere", "..", ".", ".hidden", "a/b"])
def test_an_object_of_mask_info_names_no_other_folder(
    checkpoint: Path, tmp_path: Path, elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    root = make_sav_tree(tmp_path / "sav", {"v": (3, [0])})
    write_mask_info(root, object=str(elsewhere.folder) if name == "/elsewhere" else name)
    assert infer(checkpoint, root, tmp_path / "out") == 1
    assert "000.json: object: expected the name of a file or folder" in sentence(capsys)
    assert elsewhere.is_untouched() and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [10**9, 10**9]}, "size.0: expected a whole number from 1 to 65536"),
        ({"counts": {"0": "01"}}, "counts.0: the run lengths of a mask: expected them to cover 64x48 pixels"),
        ({"counts": {"0": EMPTY}}, "counts.0: this mask is empty"),
        ({"size": [5000, 6000]}, "the annotation has 6000x5000 pixels, the frames 64x48"),
        ({"counts": {}, "annotated": [10**400]}, "annotated.0: expected a whole number"),
    ],
)
def test_masks_of_mask_info_are_compared_with_the_video(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    root = make_sav_tree(tmp_path / "sav", {"v": (3, [0])})
    write_mask_info(root, **changes)
    assert infer(checkpoint, root, tmp_path / "out") == 1
    assert message in sentence(capsys)
    assert not list((tmp_path / "out").rglob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["new", "overwrite"])
@pytest.mark.parametrize("place", ["", "v", "v/000"])
def test_links_in_a_run_are_not_followed(
    checkpoint: Path,
    tmp_path: Path,
    elsewhere: Elsewhere,
    capsys: pytest.CaptureFixture[str],
    place: str,
    overwrite: tuple[str, ...],
) -> None:
    root = make_sav_tree(tmp_path / "sav", {"v": (3, [0])})
    link = run_of(tmp_path / "out") / place
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere.folder)
    assert infer(checkpoint, root, tmp_path / "out", *overwrite) == 1
    assert "is a symbolic link to" in sentence(capsys)
    assert elsewhere.is_untouched() and link.is_symlink()


@pytest.mark.slow
def test_a_folder_in_a_run_that_holds_other_things_is_not_replaced(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_label_tree(tmp_path / "data", {"v": (3, [0])}, folders="valid")
    kept = Elsewhere(run_of(tmp_path / "out", "mose") / "v")
    assert infer(checkpoint, root, tmp_path / "out", "--dataset", "mose", "--overwrite") == 1
    assert "was not made here, move it away" in sentence(capsys)
    assert kept.is_untouched()


@pytest.mark.parametrize("name", ["../elsewhere", "..", "/etc", ".git"])
def test_names_of_a_video_list_are_names_of_videos(
    checkpoint: Path, tmp_path: Path, elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    root, out = make_label_tree(tmp_path / "data", {"v": (3, [0])}, folders="valid"), tmp_path / "out"
    (tmp_path / "list.txt").write_text(f"v\n{name}\n")
    listed = ["--video_list", str(tmp_path / "list.txt")]
    data = ["--dataset", "mose", "--data_root", str(root), *listed]
    for run in (
        lambda: infer(checkpoint, root, out, "--dataset", "mose", "--overwrite", *listed),
        lambda: submission.main([*data, "--pred_root", str(out), "--output", str(tmp_path / "x.zip")]),
        lambda: baselines.main(["copy", *data, "--output", str(out), "--overwrite"]),
        lambda: sav_evaluator.main([*data, "--pred_root", str(out)]),
        lambda: save_gt_mask_multiprocess.main(
            ["--annotations", str(root / "valid" / "Annotations"), "--output", str(out), "--overwrite", *listed]
        ),
    ):
        assert run() == 1
        assert "list.txt: line 2: expected the name of a file or folder" in sentence(capsys)
    assert elsewhere.is_untouched() and not out.exists() and not (tmp_path / "x.zip").exists()


def ask_for_other_frames(root: Path, run: Path, elsewhere: Path) -> str:
    objects = {"1": {"category": "dog", "frames": ["00000", "../../elsewhere/00000"]}}
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": {"v": {"objects": objects}}}))
    return "meta.json: videos.v.objects.1.frames.1: expected the name of a file or folder"


def link_a_mask(root: Path, run: Path, elsewhere: Path) -> str:
    (run / "v" / "00001.png").unlink()
    (run / "v" / "00001.png").symlink_to(elsewhere / "notes.txt")
    return "00001.png is a symbolic link to"


def link_a_video(root: Path, run: Path, elsewhere: Path) -> str:
    (run / "v").rename(run / "w")
    (run / "v").symlink_to(run / "w")
    return "v is a symbolic link to"


@pytest.mark.parametrize("attack", [ask_for_other_frames, link_a_mask, link_a_video])
def test_a_submission_holds_masks_of_the_run_alone(
    tmp_path: Path,
    elsewhere: Elsewhere,
    capsys: pytest.CaptureFixture[str],
    attack: Callable[[Path, Path, Path], str],
) -> None:
    root = make_label_tree(tmp_path / "data", {"v": (3, [0])}, folders="valid")
    run = tmp_path / "run"
    arguments = ["--dataset", "mose", "--data_root", str(root), "--pred_root", str(run), "--output"]
    assert baselines.main(["copy", "--dataset", "mose", "--data_root", str(root), "--output", str(run)]) == 0
    assert submission.main([*arguments, str(tmp_path / "good.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "good.zip") as archive:
        assert archive.namelist() == [f"v/{t:05d}.png" for t in range(3)]
    assert submission.main([*arguments, str(tmp_path / "up.zip"), "--folder", "../up"]) == 1
    message = attack(root, run, elsewhere.folder)
    capsys.readouterr()
    assert submission.main([*arguments, str(tmp_path / "bad.zip")]) == 1
    assert message in sentence(capsys)
    assert not list(tmp_path.glob("bad*")) and not list(tmp_path.glob("up*"))


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three frames, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    for t in range(3):
        Image.fromarray(render([disc_mask(0, t)])).save(tmp_path / "clip" / f"{t}.png")
    return tmp_path / "clip"


@pytest.mark.parametrize("place", ["clip_i2v", "clip_i2v/masks", "clip_i2v/masks.json", "clip_i2v/masks/00000.png"])
def test_tracking_follows_no_link_in_its_results(
    clip: Path, elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str], place: str, checkpoint: Path
) -> None:
    target = elsewhere.folder if place in ("clip_i2v", "clip_i2v/masks") else elsewhere.folder / "notes.txt"
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).symlink_to(target)
    model = ["--checkpoint", str(checkpoint), "--config", str(TINY), "--device", "cpu"]
    assert cli.main(["track", "clip", "--click", "10,14", "--overwrite", *model]) == 1
    told = sentence(capsys)
    assert "is a symbolic link to" in told or "is in the way of results" in told
    assert elsewhere.is_untouched() and Path(place).is_symlink()


def test_pictures_that_are_too_large_are_told_by_the_commands(
    clip: Path, capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    Image.new("1", (30_000, 30_000)).save("huge.png")
    model = ["--checkpoint", str(checkpoint), "--config", str(TINY), "--device", "cpu"]
    assert cli.main(["track", "clip", "--mask", "huge.png", *model]) == 1
    assert "object 1, frame 0, mask huge.png: " in sentence(capsys)
    Image.new("L", (9000, 9000)).save(clip / "0.png")
    assert cli.main(["track", "clip", "--click", "10,14", *model]) == 1
    assert "0.png: a picture of 9000x9000 pixels, expected at most" in sentence(capsys)
    assert not Path("clip_i2v").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["logs", "logs/log.txt", "checkpoints", "tensorboard"])
def test_training_follows_no_link_in_its_folder(
    tmp_path: Path, elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    link = tmp_path / "run" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere.folder / "notes.txt" if place == "logs/log.txt" else elsewhere.folder)
    with pytest.raises(ValueError, match="is a symbolic link to"):
        train_run(tiny_run(tmp_path / "run", "trainer.logging.tensorboard=true", "trainer.stop_after=1"))
    assert elsewhere.is_untouched() and link.is_symlink()


@pytest.mark.parametrize("place", ["report", "report/worst"])
def test_a_report_follows_no_link(
    tmp_path: Path, elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    root = make_sav_tree(tmp_path / "sav", {"v": (13, [0])})
    link = tmp_path / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere.folder)
    masks = str(root / "Annotations_6fps")
    arguments = ["--gt_root", masks, "--pred_root", masks, "-n", "1", "-q", "--report", str(tmp_path / "report")]
    assert sav_evaluator.main([*arguments, "--output", str(tmp_path / "results.csv")]) == 1
    assert "is a symbolic link to" in sentence(capsys)
    assert elsewhere.is_untouched()


def test_ground_truth_is_not_written_through_links(
    tmp_path: Path, elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_sav_tree(tmp_path / "sav", {"v": (5, [0])})
    (root / "mask_info").mkdir()
    (root / "mask_info" / "v").symlink_to(elsewhere.folder)
    for more in ((), ("--overwrite",)):
        assert save_gt_mask_multiprocess.main(["--data_root", str(root), "--workers", "1", *more]) == 1
        assert "is a symbolic link to" in sentence(capsys)
    assert elsewhere.is_untouched()


def test_published_ground_truth_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_sav_tree(tmp_path / "sav", {"v": (5, [0])})
    (root / "mask_info" / "v").mkdir(parents=True)
    np.save(root / "mask_info" / "v" / "000.npy", np.zeros(3))
    assert save_gt_mask_multiprocess.main(["--data_root", str(root), "--workers", "1", "--overwrite"]) == 1
    assert "'000.npy' was not made here, move it away" in sentence(capsys)
    assert [path.name for path in (root / "mask_info" / "v").iterdir()] == ["000.npy"]
