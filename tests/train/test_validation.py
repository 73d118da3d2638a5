"""Held-out videos are scored as the evaluator scores them, by the weights in training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import TINY, make_predictor, randomize
from train_support import write_held_out

from i2v.build_i2v import build_i2v
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.policy import InferencePolicy
from i2v.modeling.structures import MaskSettings
from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate
from train.distributed import World
from train.validation import Validator, evaluating, find_videos

CPU = World(torch.device("cpu"))


def predict(predictor: I2VVideoPredictor, images: Path, labels: Path, out: Path) -> None:
    """What a user would do: prompt with the first masks, track, write label images."""
    first = np.asarray(Image.open(labels / "00000.png"))
    with predictor.init_state(str(images)) as state:
        for value in (1, 2):
            predictor.add_new_mask(state, 0, value, first == value)
        for frame, _, logits in predictor.propagate_in_video(state):
            found = np.zeros(first.shape, np.uint8)
            for value, mask in zip((1, 2), logits[:, 0] > 0, strict=True):
                found[mask.numpy() & (found == 0)] = value
            Image.fromarray(found).save(out / f"{frame:05d}.png")


def test_scores_are_those_of_the_evaluator(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path)
    # Objects that never overlap, so that label images can hold what was found.
    predictor = make_predictor("++predictor.non_overlap_masks=true", apply_postprocessing=False)
    out = tmp_path / "found" / "discs"
    out.mkdir(parents=True)
    predict(predictor, images / "discs", labels / "discs", out)
    expected = evaluate(labels, tmp_path / "found", EvaluationSettings(num_processes=1))

    model = predictor.model
    validator = Validator(model, predictor.policy, find_videos(images, labels))
    scores = validator(CPU)
    assert {s.key: (s.j, s.f) for s in scores.objects} == {s.key: (s.j, s.f) for s in expected.objects}
    assert scores.jf == expected.jf and len(scores.objects) == 2


def test_a_folder_for_each_object_is_read_too(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path)
    for path in sorted((labels / "discs").glob("*.png")):
        values = np.asarray(Image.open(path))
        for value in (1, 2):
            folder = tmp_path / "by_object" / "discs" / f"{value}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(values == value, 255, 0).astype(np.uint8)).save(folder / path.name)
    predictor = make_predictor()
    model = predictor.model

    def score(gt: Path) -> list[tuple[float, float]]:
        found = find_videos(images, gt)
        scores = Validator(model, predictor.policy, found)(CPU)
        return [(s.j, s.f) for s in scores.objects]

    assert score(tmp_path / "by_object") == score(labels)


def test_it_uses_the_weights_in_training_under_the_policy_of_inference(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path)
    model = build_i2v(TINY, device="cpu", mode="train")
    randomize(model)
    policy = InferencePolicy(masks=MaskSettings(sigmoid_bias_for_mem_enc=-9.0))
    validator = Validator(model, policy, find_videos(images, labels))
    assert validator._predictor.model is model and validator._predictor.policy is policy

    norm = model.image_encoder.trunk_image.patch_embed.seq[0].bn.eval()
    before = norm.running_mean.clone()
    first = validator(CPU)
    assert model.training and not norm.training and torch.equal(norm.running_mean, before)
    with torch.no_grad():
        list(model.sam_mask_decoder.pred_obj_score_head.parameters())[-1].fill_(-100.0)  # nothing is ever in view
    assert first.j > 0 and validator(CPU).j == 0


def test_modes_come_back_after_an_error() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
    with pytest.raises(KeyError), evaluating(model):
        assert not model[0].training
        raise KeyError
    assert model.training and model[0].training and not model[1].training


def test_shares_of_processes_make_up_the_whole(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path)
    for name in ("more", "most"):
        shutil.copytree(images / "discs", images / name)
        shutil.copytree(labels / "discs", labels / name)
    predictor = make_predictor()
    model, videos = predictor.model, find_videos(images, labels)

    class Share(World):
        """One of two processes, which cannot talk to the other."""

        def gather(self, value: object) -> list[object]:  # type: ignore[override]
            return [value]

    validator = Validator(model, predictor.policy, videos)
    shares = [validator(Share(CPU.device, rank, 2)) for rank in (0, 1)]
    assert [sorted({s.video for s in share.objects}) for share in shares] == [["discs", "most"], ["more"]]
    assert find_videos(images, labels, max_videos=1) == videos[:1]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"validation.img_folder: nowhere is not a folder"):
        find_videos("nowhere", labels)
    (images / "discs" / "00003.png").unlink()
    with pytest.raises(ValueError, match=r"1 masks have no frame in .*, such as 00003.png"):
        find_videos(images, labels)
    (labels / "discs" / "00003.png").unlink()
    for name in ("00000.png", "00001.png", "00002.png"):
        (labels / "discs" / name).unlink()
    with pytest.raises(ValueError, match="expected at least 3 masks"):
        find_videos(images, labels)
    shutil.rmtree(images / "discs")
    with pytest.raises(FileNotFoundError, match="there are masks for it"):
        find_videos(images, labels)
    shutil.rmtree(labels / "discs")
    with pytest.raises(ValueError, match="contains no video folders"):
        find_videos(images, labels)


def test_masks_without_any_object_are_refused(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path)
    for path in (labels / "discs").glob("*.png"):
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)
    with pytest.raises(ValueError, match="masks are empty"):
        find_videos(images, labels)


def test_void_counts_as_the_evaluator_counts_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, labels = write_held_out(tmp_path)
    for path in sorted((labels / "discs").glob("*.png")):
        values = np.array(Image.open(path))
        values[:, 20:26] = 255
        Image.fromarray(values).save(path)
    predictor = make_predictor("++predictor.non_overlap_masks=true", apply_postprocessing=False)
    out = tmp_path / "found" / "discs"
    out.mkdir(parents=True)
    predict(predictor, images / "discs", labels / "discs", out)
    expected = evaluate(labels, tmp_path / "found", EvaluationSettings(num_processes=1))
    with caplog.at_level("INFO"):
        videos = find_videos(images, labels)
    assert "void pixels are left out of the scores of discs" in caplog.text
    scores = Validator(predictor.model, predictor.policy, videos)(CPU)
    assert {s.key: (s.j, s.f) for s in scores.objects} == {s.key: (s.j, s.f) for s in expected.objects}
    assert [s.obj for s in scores.objects] == ["1", "2"]
    followed = Validator(predictor.model, predictor.policy, find_videos(images, labels, ignore_labels=()))(CPU)
    assert [s.obj for s in followed.objects] == ["1", "2", "255"]


def test_masks_of_another_size_and_videos_without_annotations_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, labels = write_held_out(tmp_path)
    shutil.copytree(images / "discs", images / "more")
    assert [video.name for video in find_videos(images, labels)] == ["discs"]
    assert "without annotations" in caplog.text and ": more" in caplog.text
    path = labels / "discs" / "00002.png"
    Image.fromarray(np.array(Image.open(path))[::2, ::2]).save(path)
    with pytest.raises(ValueError, match=r"discs/00002.png: the mask is 32x24, the frames in .* are 64x48"):
        find_videos(images, labels)


def test_every_prompt_is_scored_and_one_picture_drawn(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path)
    predictor = make_predictor()
    validator = Validator(predictor.model, predictor.policy, find_videos(images, labels), prompts=("bb", "gm"))
    found = validator.by_prompt(CPU)
    assert list(found.by_prompt) == ["bb", "gm"]
    assert found.by_prompt["gm"] == Validator(predictor.model, predictor.policy, find_videos(images, labels))(CPU)
    assert found.jf == pytest.approx(np.mean([scores.jf for scores in found.by_prompt.values()]))
    assert found.picture is not None and tuple(found.picture.shape) == (3, 2 * 144, 5 * 192)
    assert found.object_lines()[0].startswith("discs, object ") and len(found.object_lines(1)) == 2
    with pytest.raises(ValueError, match="got none"):
        Validator(predictor.model, predictor.policy, [], prompts=())
