"""`i2v export` and tracking with ONNX Runtime: parts and masks equal PyTorch's, and PyTorch is not needed."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_support import exported_folder, make_exportable
from PIL import Image
from support import TINY, make_predictor, render_video

from i2v.checkpoint import save_checkpoint
from i2v.cli.main import main
from i2v.errors import InvalidFileError
from i2v.export import exporter
from i2v.export.description import FILE_NAME, PART_NAMES, read_description
from i2v.export.exporter import export_model
from i2v.export.parts import PartSpec, split_model
from i2v.export.weight_storage import store_weights
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.modeling.fast_path import set_backend
from i2v.results.export import read_label_png
from i2v.results.overlay import VideoWriter
from i2v.utils.iou import mask_iou

pytestmark = pytest.mark.timeout(400)  # the first test exports a model, the others may wait for it

CLICK = {"points": [[16, 19]], "labels": [1]}
BOX = {"box": [40, 22, 56, 40]}
DISC = np.hypot(*(np.mgrid[:48, :64] - np.array([30, 20])[:, None, None])) < 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def predictor() -> I2VVideoPredictor:
    return make_exportable()


@pytest.fixture(scope="module")
def parts(predictor: I2VVideoPredictor) -> dict[str, PartSpec]:
    model = copy.deepcopy(predictor.model)  # the parts share its modules, which have to stay with this backend
    set_backend(model, "reference")
    with torch.no_grad():
        return {spec.name: spec for spec in split_model(model, predictor.policy.masks)}


@pytest.fixture(autouse=True)
def without_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the handlers that pytest gives to all loggers, PyTorch would log each step of an export."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)


@pytest.fixture
def onnx(folder: Path) -> Any:
    from i2v.onnx_runtime.video_predictor import OnnxVideoPredictor

    return OnnxVideoPredictor(folder, threads=1)


def some_inputs(spec: PartSpec, objects: int, memories: int, points: int) -> dict[str, torch.Tensor]:
    """Inputs of a part with these lengths of its dynamic axes."""
    generator = torch.Generator().manual_seed(objects)
    lengths = {"objects": objects, "memories": memories, "points": points}
    inputs = {}
    for name, example in spec.inputs.items():
        shape = [
            lengths[spec.dynamic.get(name, {}).get(i, "")] if i in spec.dynamic.get(name, {}) else n
            for i, n in enumerate(example.shape)
        ]
        values = torch.rand(shape, generator=generator)
        if example.dtype == torch.bool:
            inputs[name] = values > 0.5
        elif name == "labels":
            inputs[name] = (values * 5).long() - 1
        elif name == "slots":
            inputs[name] = (values * 7).long()
        elif name.endswith("counts"):
            inputs[name] = (values * 3).floor()
            inputs[name][:, 0] = 2
        elif example.dtype == torch.uint8:
            inputs[name] = (values * 255).to(torch.uint8)
        else:
            inputs[name] = values * 60 if name == "points" else 4 * values - 2
    return inputs


@pytest.mark.parametrize("part", PART_NAMES)
def test_a_part_computes_what_the_model_computes(folder: Path, parts: dict[str, PartSpec], part: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / f"{part}.onnx", providers=["CPUExecutionProvider"])
    spec = parts[part]
    lengths = [(1, 7, 1), (3, 14, 2)] if spec.dynamic else [(1, 1, 1)]
    for objects, memories, points in lengths:
        inputs = some_inputs(spec, objects, memories, points)
        with torch.no_grad():
            expected = spec.module(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(list(spec.outputs), {name: x.numpy() for name, x in inputs.items()})
        for name, ours, theirs in zip(spec.outputs, found, expected, strict=True):
            assert ours.shape == tuple(theirs.shape), name
            close = np.isclose(ours, theirs.numpy(), rtol=1e-3, atol=2e-4)
            # A memory next to the middle of two numbers of bfloat16 may go either way.
            assert close.mean() > (0.99 if name == "memory" else 0.9999), name


def add_prompts(predictor: Any, state: Any, number: int) -> None:
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    if number > 1:
        predictor.add_new_points_or_box(state, 2, "late", **BOX)
        predictor.add_new_mask(state, 0, 3, DISC)


def follow(predictor: Any, number: int) -> list[np.ndarray]:
    """Logits (objects, 48, 64) of each frame of the rendered clip."""
    with predictor.init_state(render_video(12)) as state:
        add_prompts(predictor, state, number)
        found = list(predictor.propagate_in_video(state))
        assert [frame for frame, _, _ in found] == list(range(12))
        assert all(ids == state.obj_ids for _, ids, _ in found)
        return [np.asarray(logits)[:, 0] for _, _, logits in found]


@pytest.mark.parametrize("number", [1, 3])
def test_a_clip_is_tracked_as_by_pytorch(onnx: Any, predictor: I2VVideoPredictor, number: int) -> None:
    ours, theirs = follow(onnx, number), follow(predictor, number)
    assert ours[0].shape == (number, 48, 64)
    pairs = [(a > 0, b > 0) for frame in zip(ours, theirs, strict=True) for a, b in zip(*frame, strict=True)]
    ious = [mask_iou(a, b) for a, b in pairs if a.any() or b.any()]
    assert len(ious) > 6 * number and np.mean(ious) > 0.999
    # Round-off decides about a hole or a memory next to a threshold now and then: not every pixel is equal.
    assert max(float(np.quantile(np.abs(a - b), 0.99)) for a, b in zip(ours, theirs, strict=True)) < 0.05


def test_prompts_scores_and_priors_are_those_of_sessions(onnx: Any, predictor: I2VVideoPredictor) -> None:
    answers = []
    for each in (onnx, predictor):
        told: list[Any] = []
        with each.init_state(render_video(4)) as state:
            _, _, first = each.add_new_points_or_box(state, 1, "a", **CLICK, on_first_answer=told.append)
            assert len(told) == 1 and told[0].shape == first.shape, "before it is refined"
            # The first answer is the prior of the second.
            _, _, second = each.add_new_points_or_box(state, 1, "a", [[20, 25]], [0], clear_old_points=False)
            _, ids, both = each.add_new_mask(state, 1, 9, np.zeros((48, 64), bool))
            scores = each.frame_scores(state, 1)
            assert ids == ["a", 9] and list(scores) == ids
            answers.append([np.asarray(x) for x in (*told, first, second, both)])
            answers[-1].append(np.array([[s.object_score, s.iou] for s in scores.values()]))
            assert each.frame_scores(state, 2) == {}
    for ours, theirs in zip(*answers, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_random_draws_are_those_of_sessions(folder: Path, tmp_path: Path, predictor: I2VVideoPredictor) -> None:
    from test_onnx_arrays import on_intel

    from i2v.onnx_runtime.video_predictor import OnnxVideoPredictor

    if on_intel:
        pytest.skip("PyTorch draws with MKL on this CPU")
    target = Path(shutil.copytree(folder, tmp_path / "sample"))
    change(target, lambda model: model["selection"].update(mode="sample"))
    with_draws = I2VVideoPredictor(predictor.model, predictor.policy.with_memory_selection("sample"))
    ours, theirs = follow(OnnxVideoPredictor(target, threads=1), 1), follow(with_draws, 1)
    assert max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)) < 0.05
    topk = follow(predictor, 1)
    assert max(float(np.abs(a - b).max()) for a, b in zip(topk, theirs, strict=True)) > 0.05, "the mode matters"


def test_what_an_exported_model_does_not_do_is_refused(onnx: Any) -> None:
    with onnx.init_state(render_video(3)) as state:
        with pytest.raises(RuntimeError, match="no object has a prompt"):
            onnx.propagate_in_video(state)
        onnx.add_new_points_or_box(state, 1, 1, **CLICK)
        for options in ({"reverse": True}, {"start_frame_idx": 0}):
            with pytest.raises(ValueError, match="tracks forward from the first prompted frame, 1"):
                onnx.propagate_in_video(state, **options)
        with pytest.raises(ValueError, match="0 or more, got -1"):
            onnx.propagate_in_video(state, max_frame_num_to_track=-1)
        assert [frame for frame, _, _ in onnx.propagate_in_video(state, max_frame_num_to_track=0)] == [1]
        with pytest.raises(ValueError, match="frame 1, object 1: this frame was tracked already"):
            onnx.add_new_points_or_box(state, 1, 1, **CLICK)
        with pytest.raises(ValueError, match=r"frame 2, object 1: point \(70, 1\) is off the frame"):
            onnx.add_new_points_or_box(state, 2, 1, [[70, 1]], [1])
        with pytest.raises(IndexError, match="frame 3 is not in the video array, which has 3 frames"):
            onnx.add_new_mask(state, 3, 1, DISC)
        with pytest.raises(ValueError, match="expected a mask of the video's size 48x64"):
            onnx.add_new_mask(state, 2, 1, DISC[:9])
        onnx.reset_state(state)
        assert state.obj_ids == [] and onnx.masks_on_frame(state, 0)[2].shape == (0, 1, 48, 64)


def change(folder: Path, edit: Any) -> None:
    model = json.loads((folder / FILE_NAME).read_text())
    edit(model)
    (folder / FILE_NAME).write_text(json.dumps(model))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / FILE_NAME).unlink(), "no exported model is there, as it has no model.json"),
        (lambda folder: (folder / FILE_NAME).write_text("{"), "this JSON cannot be read"),
        (lambda folder: (folder / "stem.onnx").unlink(), "stem.onnx: this part of the exported model is missing"),
        (lambda folder: (folder / "stem.onnx").write_bytes(b"x"), "stem.onnx: this part is damaged"),
        (lambda folder: change(folder, lambda m: m.update(version=9)), "expected format i2v-export of version 1"),
        (lambda folder: change(folder, lambda m: m.update(target="torch.export")), "expected a model for onnx"),
        (lambda folder: change(folder, lambda m: m["parts"].pop("stem")), "the key 'stem' is missing"),
        (lambda folder: change(folder, lambda m: m["parts"]["stem"].update(file="../stem.onnx")), "in the same folder"),
        (lambda folder: change(folder, lambda m: m["sizes"].update(image_size=80)), "the sizes contradict each other"),
        (
            lambda folder: change(folder, lambda m: m["sizes"].update(image_size=1 << 20, grid=1 << 16)),
            r"stem.onnx: pixels: expected sizes \[1, 3, 1048576, 1048576\]",
        ),
        (lambda folder: change(folder, lambda m: m["constants"]["no_memory"].pop()), "expected 64 numbers, got 63"),
        (
            lambda folder: change(folder, lambda m: m["prompts"].update(refine=1)),
            "prompts.refine: expected true or false",
        ),
    ],
)
def test_a_damaged_export_is_refused(folder: Path, tmp_path: Path, damage: Any, message: str) -> None:
    from i2v.onnx_runtime.network import OnnxNetwork

    target = Path(shutil.copytree(folder, tmp_path / "copy"))
    damage(target)
    with pytest.raises((InvalidFileError, FileNotFoundError, ValueError), match=message):
        OnnxNetwork(target)


def test_a_part_that_is_no_onnx_is_refused(folder: Path, tmp_path: Path) -> None:
    from i2v.onnx_runtime.network import OnnxNetwork
    from i2v.utils.files import sha256_of

    target = Path(shutil.copytree(folder, tmp_path / "copy"))
    (target / "stem.onnx").write_bytes(b"no model")
    change(target, lambda model: model["parts"]["stem"].update(sha256=sha256_of(target / "stem.onnx")))
    with pytest.raises(InvalidFileError, match="this part of a model cannot be read"):
        OnnxNetwork(target)


TRACK = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "hydra"):
            raise ModuleNotFoundError(f"{name} is not to be imported", name=name)
sys.meta_path.insert(0, NoTorch())
from i2v.cli.main import main
status = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(status)
"""


def test_the_command_tracks_without_pytorch(folder: Path, tmp_path: Path, predictor: I2VVideoPredictor) -> None:
    frames = render_video(5)
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{number:05d}.png")
    Image.fromarray(DISC).save(tmp_path / "disc.png")
    prompts = ["--click", "16,19", "--object", "3", "--mask", "disc.png", "--object", "2", "--frame", "2", "--box"]
    command = ["track", "clip", "--onnx", str(folder), *prompts, "40,22,56,40", "--out", "out"]
    finished = subprocess.run(
        [sys.executable, "-c", TRACK, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "5 frames in" in finished.stdout
    with predictor.init_state(frames) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        predictor.add_new_mask(state, 0, 3, DISC)
        predictor.add_new_points_or_box(state, 2, 2, **BOX)
        for frame, _, logits in predictor.propagate_in_video(state):
            labels = read_label_png(tmp_path / "out" / "masks" / f"{frame:05d}.png")
            assert set(np.unique(labels)) <= {0, 1, 2, 3}
            best, winner = logits[:, 0].max(dim=0)
            expected = np.where(best > 0, np.array([1, 3, 2])[winner], 0)
            assert (labels == expected).mean() > 0.999


def test_the_code_of_the_page_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nano_onnx").symlink_to(folder)
    text = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    mask = np.zeros((480, 640), bool)
    mask[100:200, 100:200] = True
    with VideoWriter("clip.mp4", 10.0) as writer:
        for frame in render_video(3, 480, 640):
            writer.write(frame)
    names: dict[str, Any] = {"mask": mask}
    exec(block, names)
    assert (names["frame"], names["obj_ids"], names["masks"].shape) == (2, [1, "dog"], (2, 1, 480, 640))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--onnx", "none"], "none: no such folder"),
        (["--onnx", ".", "--config", "i2v-infer"], "--config is about models of PyTorch"),
        (["--onnx", ".", "--checkpoint", "w.pt"], "--checkpoint is about"),
        (["--onnx", ".", "--set", "a=b"], "--set is about"),
        (["--onnx", ".", "--random-weights"], "--random-weights is about"),
        (["--onnx", ".", "--device", "cpu"], "--device is about"),
        (["--onnx", ".", "--direction", "both"], "--direction both is about"),
    ],
)
def test_options_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip").mkdir()
    Image.fromarray(render_video(1)[0]).save("clip/0.png")
    assert main(["track", "clip", "--click", "5,5", "--out", "out", *options]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


# The export itself


@pytest.fixture
def only_the_stem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export the smallest part alone: a whole model takes half a minute."""
    monkeypatch.setattr(exporter, "split_model", lambda *args: split_model(*args)[:1])


def test_the_command_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, only_the_stem: None) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(make_predictor().model, tmp_path / "w.pt")
    command = ["export", "w.pt", "--to", "torch.export", "--config", str(TINY)]
    assert main(command) == 0
    out = Path("w_torch_export_float32")
    assert f"1 parts, {(out / 'stem.pt2').stat().st_size / 1e6:.1f} MB: {out}" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["model.json", "stem.pt2"]
    # The program is that of the model, in another process, too.
    program = torch.export.load(out / "stem.pt2").module()
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        spec = split_model(make_predictor().model, make_predictor().policy.masks)[0]
        torch.testing.assert_close(program(pixels), spec.module(pixels), rtol=1e-4, atol=1e-4)
    assert main(command) == 1
    assert "w_torch_export_float32 is there already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    (out / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert main([*command, "--overwrite"]) == 1
    assert "'notes.txt' was not made here" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["model.json", "notes.txt", "stem.pt2"]
    assert not list(Path().glob(".*.tmp"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["selector@model.selector=recent"], "model.selector: expected a SimilaritySelector"),
        (["+predictor.non_overlap_masks_for_mem_enc=true"], "predictor.non_overlap_masks_for_mem_enc: expected False"),
        (["+predictor.clear_non_cond_mem_around_input=true"], "clear_non_cond_mem_around_input: expected False"),
    ],
)
def test_settings_that_cannot_be_exported_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_model(make_predictor(*overrides), tmp_path / "out", "tiny", "torch.export")
    assert not list(tmp_path.iterdir())


def test_unknown_targets_and_types_are_refused(tmp_path: Path) -> None:
    predictor = make_predictor()
    for options, message in (
        (("tflite",), "target: expected one of onnx"),
        (("onnx", "int4"), "dtype: expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            export_model(predictor, tmp_path / "out", "tiny", *options)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no more")

    monkeypatch.setattr(exporter, "_save_program", fail)
    with pytest.raises(OSError, match="no more"):
        export_model(make_predictor(), tmp_path / "out", "tiny", "torch.export")
    assert not list(tmp_path.iterdir())


def test_the_description_says_what_the_loop_needs(folder: Path, predictor: I2VVideoPredictor) -> None:
    description = read_description(folder)
    model, settings = predictor.model, predictor.settings
    assert (description.name, description.target, description.weights) == ("tiny", "onnx", "float32")
    sizes = dataclasses.astuple(description.sizes)
    assert sizes == (64, 4, 64, 16, 5, 7, 3, 2)
    np.testing.assert_array_equal(np.float32(description.constants.no_memory), model.no_mem_embed.detach().flatten())
    assert description.selection.seed == settings.seed and description.prompts.refine is settings.refine_prompts
    assert sorted(path.name for path in folder.iterdir()) == sorted([FILE_NAME, *(f"{p}.onnx" for p in PART_NAMES)])


def test_smaller_types_of_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: I2VVideoPredictor
) -> None:
    import onnxruntime

    monkeypatch.setattr(exporter, "split_model", lambda *args: split_model(*args)[-1:])
    inputs = some_inputs(split_model(predictor.model, predictor.policy.masks)[-1], 2, 1, 1)
    arrays = {name: x.numpy() for name, x in inputs.items()}

    def outcome(path: Path) -> tuple[np.ndarray, int]:
        return onnxruntime.InferenceSession(path).run(["memory"], arrays)[0], path.stat().st_size

    exact, whole_size = outcome(folder / "memory_encoder.onnx")
    for weight_type, error, share in (("float16", 0.01, 0.75), ("int8", 0.1, 0.6)):
        export_model(predictor, tmp_path / weight_type, "tiny", "onnx", weight_type)
        memory, size = outcome(tmp_path / weight_type / "memory_encoder.onnx")
        assert size < share * whole_size
        assert 0 < np.abs(memory - exact).mean() / np.abs(exact).mean() < error
    assert next(predictor.model.parameters()).requires_grad, "the predictor's own model does not change"


def test_stored_weights_are_close_and_small() -> None:
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    for weight_type, dtype, error in (("float16", torch.float16, 2e-3), ("int8", torch.int8, 0.02)):
        layer = torch.nn.Linear(32, 64)
        with torch.no_grad():
            layer.weight.copy_(weight)
        store_weights(layer, weight_type)
        stored = [p for p in layer.parameters() if p.dtype == dtype]
        assert [tuple(p.shape) for p in stored] == [(64, 32)]
        assert layer.weight.dtype == torch.float32 and layer.bias.dtype == torch.float32
        assert 0 < float((layer.weight - weight).abs().max()) < error
