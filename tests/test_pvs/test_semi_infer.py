"""From annotations to scores by the documented commands: whole, in parts, killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import TINY, make_predictor
from vos_support import make_label_tree, make_sav_tree, write_labels

from sav_dataset.utils.datasets import open_dataset
from test_pvs import semi_infer, submission
from test_pvs.run_settings import RunSettings, claim_folder
from test_pvs.sharding import Shard
from tools import emulated_bfloat16

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Weights of the tiny model."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save({"model": make_predictor().model.state_dict()}, path)
    return path


@pytest.fixture
def sav(tmp_path) -> Path:
    return make_sav_tree(
        tmp_path / "sav", {"sav_000001": (9, [0, 0]), "sav_000002": (40, [0, 5]), "sav_000003": (13, [0])}
    )


def arguments(checkpoint: Path, root: Path, out: Path, *more: str) -> list[str]:
    options = {"input": "gm", "ckpt": checkpoint, "yaml": TINY, "data_root": root, "output_root": out, "device": "cpu"}
    return [text for name, value in options.items() for text in (f"--{name}", str(value))] + list(more)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those of unfinished objects."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if ".tmp" not in str(p)}


def command(script: str, checkpoint: Path, root: Path, out: Path, *more: str, **variables: str) -> str:
    """Run one of the scripts as the README does, and return what it prints."""
    environment = os.environ | variables | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    environment |= {"CKPT": str(checkpoint), "YAML": str(TINY), "DATA_ROOT": str(root), "OUTPUT_ROOT": str(out)}
    finished = subprocess.run(
        ["sh", script, *more], cwd=ROOT / "test_pvs", env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_prepare_infer_evaluate_by_the_scripts(checkpoint, sav, tmp_path):
    prepare = [sys.executable, "tools/save_gt_mask_multiprocess.py", "--data_root", str(sav), "--workers", "1"]
    subprocess.run(prepare, cwd=ROOT, check=True, capture_output=True)
    out = tmp_path / "out"
    printed = command("semi_infer.sh", checkpoint, sav, out, "--device", "cpu", INPUT="3c", WORKERS="2")
    assert "3 videos, 0 of them already finished" in printed and "62 frames in" in printed
    run = out / "tiny" / "Semi_SAVTest_tiny_3c"
    assert sorted(path.name for path in (run / "sav_000002" / "001").iterdir()) == [f"{t:05d}.png" for t in range(40)]
    assert json.loads((run / "settings.json").read_text())["prompt"] == "3c"
    scored = command("semi_eval.sh", checkpoint, sav, out, INPUT="3c", NUM_PROCESSES="1")
    assert "3 videos, 5 objects" in scored and "Global score: J&F:" in scored
    assert (run / "results.csv").is_file()
    assert len(list((run.parent / "Semi_SAVTest_tiny_3c_report" / "worst").iterdir())) == 5


@pytest.mark.slow
def test_killed_and_gone_on_with_gives_the_same_bytes(checkpoint, sav, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert semi_infer.main(arguments(checkpoint, sav, whole)) == 0
    started = subprocess.Popen(
        [sys.executable, "-m", "test_pvs.semi_infer", *arguments(checkpoint, sav, broken)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # The longest video comes first: once some of its masks are there, its objects are half done.
    while started.poll() is None and not list(broken.rglob("sav_000002/.001.*.tmp/0001*.png")):
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    left = contents(broken)
    assert not any("sav_000002/0" in name for name in left), "it was killed too late to show anything"
    assert semi_infer.main(arguments(checkpoint, sav, broken)) == 0
    assert contents(broken) == contents(whole)
    assert not list(broken.rglob("*.tmp"))


@pytest.mark.slow
def test_parts_make_up_the_whole(checkpoint, sav, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert semi_infer.main(arguments(checkpoint, sav, whole)) == 0
    for rank in range(2):
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        monkeypatch.setenv("SLURM_NTASKS", "2")
        assert semi_infer.main(arguments(checkpoint, sav, parts)) == 0
    assert contents(parts) == contents(whole)
    printed = capsys.readouterr().out
    assert "part 1 of 2, 1 videos" in printed and "part 2 of 2, 2 videos" in printed


def test_parts_are_disjoint_and_longest_first(sav, tmp_path):
    dataset = open_dataset("sav", sav)
    args = semi_infer.make_parser().parse_args(arguments(tmp_path / "x.pt", sav, tmp_path))
    parts = [[job.video for job in semi_infer.plan_jobs(args, dataset, tmp_path, Shard(i, 2))] for i in range(2)]
    assert parts == [["sav_000002"], ["sav_000003", "sav_000001"]]


@pytest.mark.slow
def test_label_images_and_a_submission(checkpoint, tmp_path, capsys):
    root = make_label_tree(tmp_path / "data", {"a": (7, [0, 4]), "b": (5, [0])}, folders="valid")
    objects = {"1": {"category": "dog", "frames": ["00000", "00005"]}}
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}}}))
    out = tmp_path / "out"
    assert semi_infer.main(arguments(checkpoint, root, out, "--dataset", "ytvos")) == 0
    run = out / "tiny" / "Semi_ytvos_tiny_gm"
    pack = ["--dataset", "ytvos", "--data_root", str(root), "--pred_root", str(run)]
    for name in ("one.zip", "two.zip"):
        assert submission.main([*pack, "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        names = archive.namelist()
        assert archive.read("Annotations/a/00005.png") == (run / "a" / "00005.png").read_bytes()
    # meta.json says which frames of a are wanted, and nothing of b.
    assert names == [f"Annotations/a/{f:05d}.png" for f in (0, 5)] + [f"Annotations/b/{f:05d}.png" for f in range(5)]
    (run / "b" / "00003.png").unlink()
    assert submission.main([*pack, "--output", str(tmp_path / "three.zip")]) == 1
    assert "masks missing of b (1 of 5)" in capsys.readouterr().err
    assert not (tmp_path / "three.zip").exists()


@pytest.mark.slow
def test_void_is_not_followed(checkpoint, tmp_path, capfd):
    root = make_label_tree(tmp_path / "davis", {"a": (4, [0])})
    for path in (root / "Annotations" / "a").iterdir():
        labels = np.array(Image.open(path))
        labels[:3] = 255
        write_labels(path, labels)
    out = tmp_path / "out"
    common = arguments(checkpoint, root, out, "--dataset", "davis2017")
    assert semi_infer.main(common) == 0
    masks = out / "tiny" / "Semi_davis2017_tiny_gm" / "a"
    assert set(np.unique(np.array(Image.open(masks / "00000.png")))) == {0, 1}
    assert "video a: label 255 is void and not followed" in capfd.readouterr().err
    # Another rule would give other masks.
    assert semi_infer.main([*common, "--ignore_labels", "none"]) == 1
    assert "ignore_labels: None there, [] now" in capfd.readouterr().err
    assert semi_infer.main([*common, "--ignore_labels", "none", "--overwrite"]) == 0
    assert set(np.unique(np.array(Image.open(masks / "00000.png")))) == {0, 1, 255}
    assert semi_infer.main([*common, "--ignore_labels", "x"]) == 1
    assert "ignore_labels: expected" in capfd.readouterr().err


@pytest.mark.slow
def test_a_broken_video_fails_alone(checkpoint, sav, tmp_path, capsys):
    (sav / "JPEGImages_24fps" / "sav_000001" / "00004.jpg").write_bytes(b"broken")
    assert semi_infer.main(arguments(checkpoint, sav, tmp_path / "out")) == 1
    assert "error: video sav_000001: " in capsys.readouterr().err
    run = tmp_path / "out" / "tiny" / "Semi_SAVTest_tiny_gm"
    assert {path.name for path in run.iterdir() if any(path.glob("0*"))} == {"sav_000002", "sav_000003"}


def test_other_settings_need_another_folder(tmp_path, checkpoint):
    settings = RunSettings("gm", "i2v-infer", str(checkpoint), "sav")
    claim_folder(tmp_path / "run", settings)
    claim_folder(tmp_path / "run", settings)
    other = RunSettings("3c", "i2v-infer", None, "sav")
    with pytest.raises(
        ValueError, match=r"other settings \(prompt: gm there, 3c now; checkpoint: .*tiny.pt.* there, None"
    ):
        claim_folder(tmp_path / "run", other)
    claim_folder(tmp_path / "run", other, overwrite=True)
    claim_folder(tmp_path / "run", other)


def test_names_of_runs_and_checkpoints(tmp_path, checkpoint):
    args = Namespace(ckpt="runs/v1.2.pt", output_root=tmp_path, save_dir_name=None, dataset="sav", input="bb")
    assert semi_infer.run_folder(args) == tmp_path / "v1.2" / "Semi_SAVTest_v1.2_bb"
    args = Namespace(ckpt="base", output_root=tmp_path, save_dir_name="try", dataset="mose", input="gm")
    assert semi_infer.run_folder(args) == tmp_path / "try" / "Semi_mose_base_gm"
    assert semi_infer.find_checkpoint("none") is None
    assert semi_infer.find_checkpoint(str(checkpoint)) == str(checkpoint)
    with pytest.raises(
        FileNotFoundError, match=r"checkpoint 'nobody' not found; tried nobody, .*checkpoints/nobody\.pt"
    ):
        semi_infer.find_checkpoint("nobody")


def test_the_config_is_that_of_the_checkpoint(tmp_path, checkpoint):
    assert semi_infer.find_config(None) == "i2v-infer"
    assert semi_infer.find_config(str(checkpoint)) == "i2v-infer"
    assert semi_infer.find_config(semi_infer.find_checkpoint("i2v-nano")) == "i2v-nano-infer"
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(checkpoint.read_bytes())
    assert semi_infer.find_config(str(best)) == "i2v-infer"
    (tmp_path / "run" / "inference.yaml").write_text("model: {}\n")
    assert semi_infer.find_config(str(best)) == str(tmp_path / "run" / "inference.yaml")


def test_videos_without_annotations_are_told(checkpoint, sav, tmp_path, capsys):
    (sav / "mask_info" / "sav_000002").mkdir(parents=True)
    assert semi_infer.main(arguments(checkpoint, sav, tmp_path / "out")) == 1
    assert "mask_info: no annotations of sav_000001, sav_000003" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--gpus", "99"), "--gpus: expected at most 0, the GPUs that PyTorch finds, got 99"),
        (("--shard", "2/2"), "expected a part from 0"),
        (("--video_list", "/nowhere.txt"), "nowhere.txt"),
        (("model.nothing=1",), "unknown key 'model.nothing'"),
    ],
)
def test_mistakes_are_told_before_anything_starts(checkpoint, sav, tmp_path, capsys, more, message):
    assert semi_infer.main(arguments(checkpoint, sav, tmp_path / "out", *more)) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.png"))


def test_emulated_bfloat16_takes_the_same_arguments(checkpoint, tmp_path, capsys):
    root, out = make_sav_tree(tmp_path / "sav", {"sav_000001": (3, [0])}), tmp_path / "out"

    assert emulated_bfloat16.main(arguments(checkpoint, root, out)) == 0
    run = out / "tiny" / "Semi_SAVTest_tiny_gm"
    assert sorted(path.name for path in (run / "sav_000001" / "000").iterdir()) == [f"{t:05d}.png" for t in range(3)]
    assert json.loads((run / "settings.json").read_text())["dtype"] == "bfloat16"
    assert emulated_bfloat16.main(arguments(checkpoint, root, out, "--dtype", "float32")) == 1
    assert "expected bfloat16, got float32" in capsys.readouterr().err
