"""One command scores baselines and a model, and its tables say what the evaluator says."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import TINY, make_predictor
from vos_support import make_label_tree

from i2v.results.export import read_label_png
from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate
from sav_dataset.utils.scores import FrameScore, ObjectScore, Scores
from tools.rendered_clips import RenderedClips
from tools.result_tables import Results
from tools.results import main


def score(video: str, obj: str, j: float, f: float) -> ObjectScore:
    return ObjectScore.of((video, obj), [FrameScore("00001.png", j, f, True, True)])


def test_tables_show_means_over_objects_and_by_video() -> None:
    first = Scores((score("a", "1", 0.5, 0.7), score("a", "2", 0.3, 0.3), score("b", "1", 1.0, 0.9)))
    second = Scores((score("b", "1", 0.25, 0.75),))
    facts = {"command": "x y", "model": {}, "versions": {"torch": "3", "numpy": "4"}}
    results = Results({"copy": first, "other": second}, facts)
    lines = results.as_markdown().splitlines()
    assert lines[:4] == [
        "| method | J&F | J | F |",
        "| --- | --: | --: | --: |",
        "| copy | 61.7 | 60.0 | 63.3 |",
        "| other | 50.0 | 25.0 | 75.0 |",
    ]
    by_video = lines[lines.index("J by video:") + 2 :][:5]
    assert by_video[0] == "| video | copy | other |"
    assert by_video[2:] == ["| a | 40.0 |  |", "| b | 100.0 | 25.0 |", "| **all objects** | 60.0 | 25.0 |"]
    assert lines[-2:] == ["- command: `x y`", "- versions: torch 3, numpy 4"]
    values = results.as_json()
    assert values["command"] == "x y"
    copied = values["methods"][0]
    assert (copied["method"], copied["J"]) == ("copy", pytest.approx(60))
    assert copied["videos"][0] == {
        "video": "a",
        "J&F": pytest.approx(45),
        "J": pytest.approx(40),
        "F": pytest.approx(50),
    }


def test_rendered_clips_are_a_benchmark_and_the_same_every_time(tmp_path: Path) -> None:
    clips = RenderedClips(num_clips=3, num_frames=6, size=64)
    dataset = clips.open(tmp_path / "one")
    assert dataset.videos == ("clip_000", "clip_001", "clip_002")
    most = 0
    for video in dataset.videos:
        labels = np.stack([read_label_png(dataset.annotations / video / f"{t:05d}.png") for t in range(6)])
        assert labels.shape == (6, 64, 64)
        # Every object shows on the first frame, and labels have no gaps.
        assert sorted(set(np.unique(labels)) - {0}) == list(range(1, labels[0].max() + 1))
        most = max(most, int(labels.max()))
        with Image.open(dataset.images / video / "00005.jpg") as image:
            assert (image.size, image.mode) == ((64, 64), "RGB")
    assert most > 1
    again, other = clips.open(tmp_path / "two"), RenderedClips(3, 6, 64, seed=1).open(tmp_path / "three")
    name = Path("clip_001") / "00003.jpg"
    assert (dataset.images / name).read_bytes() == (again.images / name).read_bytes()
    assert (dataset.images / name).read_bytes() != (other.images / name).read_bytes()
    assert evaluate(dataset.annotations, again.annotations, EvaluationSettings(num_processes=1)).jf == 100


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "small.pt"
    torch.save({"model": make_predictor().model.state_dict()}, path)
    return path


def model_of(checkpoint: Path, *more: str) -> list[str]:
    return ["--config", str(TINY), "--checkpoint", str(checkpoint), "--device", "cpu", "--workers", "1", *more]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command_scores_all_methods(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_label_tree(tmp_path / "data", {"a": (6, [0, 2]), "b": (5, [0]), "other": (4, [0])})
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("a\nb\n")
    out = tmp_path / "out"
    command = ["--data_root", str(root), "--output", str(out), "--baselines", "copy", "--prompts", "gm", "3c"]
    command += model_of(checkpoint)
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert (out / "results.md").read_text() in printed
    values = json.loads((out / "results.json").read_text())
    assert [row["method"] for row in values["methods"]] == ["copy", "small gm", "small 3c"]
    assert values["command"] == shlex.join(["python", "tools/results.py", *command])
    assert len(values["model"]["sha256"]) == 64 and torch.__version__.startswith(values["versions"]["torch"])
    assert [video["video"] for video in values["methods"][1]["videos"]] == ["a", "b"]
    trees = [out / "masks" / "copy", *(out / "masks").glob("small-*/Semi_davis2017_small_*")]
    settings = EvaluationSettings(num_processes=1)
    found = sorted(evaluate(root / "Annotations", tree, settings, ["a", "b"]).jf for tree in trees)
    assert found == pytest.approx(sorted(row["J&F"] for row in values["methods"]))
    # Again: nothing is made a second time, and the figures are the same.
    mask = next(iter((out / "masks").glob("small-*/*_gm/a/00003.png")))
    made = mask.stat().st_mtime_ns
    assert main(command) == 0
    assert mask.stat().st_mtime_ns == made
    assert json.loads((out / "results.json").read_text())["methods"] == values["methods"]
    # Another config: masks of its own.
    assert main([*command, "--set", "predictor.seed=9", "--prompts", "gm"]) == 0
    assert len(list((out / "masks").glob("small-*"))) == 2


@pytest.mark.slow
def test_rendered_clips_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["--rendered", "2", "--clip_frames", "4", "--clip_size", "48", "--output", str(out), "--workers", "1"]
    assert main([*command, "--baselines", "copy"]) == 0
    values = json.loads((out / "results.json").read_text())
    assert values["videos"]["num_frames"] == 4 and values["model"] == {}
    assert [video["video"] for video in values["methods"][0]["videos"]] == ["clip_000", "clip_001"]
    capsys.readouterr()
    assert main([*command, "--baselines", "copy", "--clip_seed", "5"]) == 1
    assert "holds a run with other settings (seed: 0 there, 5 now): give another --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data_root", "nowhere"], "no folder of frames; tried nowhere"),
        (["--rendered", "1", "--baselines"], "nothing to score: expected --config, --baselines or both"),
        (["--rendered", "1", "--video_list", "x.txt"], "--video_list: expected --data_root, too"),
        (["--rendered", "1", "--checkpoint", "x.pt"], "--checkpoint: expected --config, too"),
        (["--rendered", "1", "--config", "nothing"], "nothing"),
        (["--rendered", "1", "--config", "i2v-infer"], "--config: expected --checkpoint, too"),
        (["--rendered", "1", "--config", "i2v-infer", "--checkpoint", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main([*more, "--output", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_number_of_no_clips_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--rendered", "0", "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "--rendered: expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
