"""Shortcuts of the image encoder against the plain formulas that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import make_predictor
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.live_session import LiveSession
from i2v.modeling import layers
from i2v.modeling.backbones.tfi import TFI, TemporalNet, quick_gelu
from i2v.modeling.backbones.tiny_vit import ConvBN, TinyViT
from i2v.modeling.fast_path import set_backend
from i2v.modeling.layers import StripModule, gelu
from i2v.modeling.structures import TrackingStep
from i2v.video.frame_loader import FrameLoader, normalize
from i2v.video.sources import open_source, window_indices


def worn(norm: nn.BatchNorm2d) -> None:
    """Give a batch norm the statistics and weights of one that was trained."""
    for values in (norm.running_var, norm.weight.data):
        values.uniform_(0.5, 2.0)
    for values in (norm.running_mean, norm.bias.data):
        values.normal_()


def plain_temporal_net(net: TemporalNet, x: Tensor) -> Tensor:
    """All slices (B,C,T,h,w), by the 3-D convolutions that the weights are those of."""
    for i, (norm, block) in enumerate(zip(net.lns, net.temporal_net, strict=True)):
        spatial, temporal = block.get_submodule(f"c_fc1_{i}"), block.get_submodule(f"c_fc2_{i}")
        x = quick_gelu(x + temporal(quick_gelu(spatial(norm(x)))))
    return x


def plain_tfi(tfi: TFI, maps: list[Tensor], windows: Tensor) -> Tensor:
    """The published order of operations, over whole windows (B,3,T,S,S)."""
    temporal = tfi.temporal_stem(windows)
    carry = 0
    for i, level in enumerate(tfi.selected_layers):
        temporal = plain_temporal_net(tfi.temporal_nets[i], temporal)
        joined = torch.cat((tfi.input_linears[i](maps[level]) + carry, temporal[:, :, -1]), dim=1)
        integrated = tfi.temporal2integration_nets[i](joined)
        carry = tfi.integration_nets[i](integrated)
        last = tfi.integration2temporal_nets[i](joined)
        temporal = torch.cat((temporal[:, :, :-1], last[:, :, None]), dim=2)
    return carry + integrated


def fast(module: nn.Module) -> nn.Module:
    set_backend(module, "fast")
    return module


@pytest.mark.parametrize("change", ["load", "step", "data", "statistics"])
def test_a_folded_batch_norm_is_never_older_than_its_weights(change: str) -> None:
    unit = fast(ConvBN(4, 6, 3, stride=2).eval())
    x = torch.randn(2, 4, 9, 9)
    worn(unit.bn)
    with torch.inference_mode():
        assert torch.allclose(unit(x), unit.bn(unit.c(x)), atol=1e-5)
    other = ConvBN(4, 6, 3, stride=2)
    worn(other.bn)
    if change == "load":
        unit.load_state_dict(other.state_dict())
    elif change == "step":
        unit.c.weight.grad = torch.ones_like(unit.c.weight)
        torch.optim.SGD(unit.parameters(), 0.5).step()
    elif change == "data":
        unit.c.weight.data.mul_(3)  # leaves no trace in the tensor's version
    else:
        unit.train()(x)
        unit.eval()
    with torch.inference_mode():
        assert torch.allclose(unit(x), unit.bn(unit.c(x)), atol=1e-5)


def test_batch_norms_in_training_use_the_batch() -> None:
    unit = ConvBN(3, 5).train()
    out = unit(torch.randn(4, 3, 8, 8) * 7 + 2)
    assert out.mean((0, 2, 3)).abs().max() < 1e-5 and unit.bn.num_batches_tracked == 1


def test_gradients_pass_through_a_folded_batch_norm() -> None:
    unit, x = fast(ConvBN(3, 5).eval()), torch.randn(2, 3, 4, 4)
    worn(unit.bn)
    folded = torch.autograd.grad(unit(x).square().sum(), list(unit.parameters()))
    plain = torch.autograd.grad(unit.bn(unit.c(x)).square().sum(), list(unit.parameters()))
    for a, b in zip(folded, plain, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_gelu_in_place() -> None:
    x = torch.randn(5)
    expected = F.gelu(x)
    kept = x.clone()
    assert torch.equal(gelu(kept, inplace=False), expected) and torch.equal(kept, x)
    assert gelu(kept, inplace=True) is kept and torch.allclose(kept, expected)


class Block(StripModule):
    """Two convolutions that note the rows they were called with."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, stride=stride, padding=1)
        self.stride = stride
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.in_strips(self.step, x, width=8, stride=self.stride)

    def step(self, x: Tensor, _: bool) -> Tensor:
        self.rows.append(x.shape[2])
        return self.second(self.first(x))


@pytest.mark.parametrize(("height", "stride"), [(32, 1), (32, 2), (31, 1), (31, 2), (3, 1)])
def test_strips_make_up_the_whole(monkeypatch: pytest.MonkeyPatch, height: int, stride: int) -> None:
    monkeypatch.setattr(layers, "STRIP_BYTES", 4 * 8 * 16 * 5 * stride)  # five rows of the output
    block, x = fast(Block(stride).eval()), torch.randn(2, 3, height, 8)
    whole = block.second(block.first(x))
    with torch.no_grad():
        assert torch.allclose(block(x), whole, atol=1e-6)
    divides = height % stride == 0 and height // stride > 5
    assert block.rows[0] == (6 * stride if divides else height)
    block.rows.clear()
    block(x)
    assert block.rows == [height], "with gradients there is one strip"


def test_tiny_vit_in_strips_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = TinyViT(num_classes=4, embed_dims=(32, 32, 64, 96), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 3), out_dim=24)
    fast(trunk.eval())
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            worn(module)
    frames = torch.randn(1, 3, 112, 112)
    whole = trunk(frames)
    monkeypatch.setattr(layers, "STRIP_BYTES", 20_000)
    with torch.inference_mode():
        strips = trunk(frames)
    for a, b in zip(strips, whole, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_stem_taps_add_up_to_the_convolution() -> None:
    stem = TFI(temporal_dim=8).temporal_stem
    windows = torch.randn(2, 3, 5, 32, 32)
    joined = stem.join([stem.per_frame(frames) for frames in windows.unbind(2)])
    assert torch.allclose(joined.permute(1, 2, 0, 3, 4), stem(windows), atol=1e-5)


@pytest.mark.parametrize(("kernel", "num"), [(3, 1), (3, 2), (3, 5), (5, 1), (5, 3), (1, 2)])
def test_temporal_net_computes_the_last_slices(kernel: int, num: int) -> None:
    net = TemporalNet(8, 2, 1.5, kernel)
    slices = torch.randn(5, 2, 8, 6, 6)
    expected = plain_temporal_net(net, slices.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)
    assert torch.allclose(net(slices, num), expected[-num:], atol=1e-5)


def test_tfi_equals_the_published_order_of_operations() -> None:
    torch.manual_seed(0)
    tfi = TFI((8, 12, 8), (0, 1, 2), temporal_dim=8, integration_dim=16, temporal_loop_layers=2)
    for parameter in tfi.parameters():
        nn.init.normal_(parameter, std=0.2)
    windows = torch.randn(2, 3, 5, 64, 64)
    maps = [torch.randn(2, dim, 4, 4) for dim in (8, 12, 8)]
    out = tfi(maps, [tfi.temporal_stem.per_frame(frames) for frames in windows.unbind(2)])
    expected = plain_tfi(tfi, maps, windows)
    assert torch.allclose(out, expected, atol=1e-4)
    parameters = [p for name, p in tfi.named_parameters() if "integration2temporal_nets.2" not in name]
    for a, b in zip(
        torch.autograd.grad(out.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-2 * float(b.abs().max()))


def plain_features(predictor: I2VVideoPredictor, video: np.ndarray, frame: int) -> Tensor:
    """A frame's features, from its whole window."""
    with FrameLoader(open_source(video), predictor.model.image_size) as loader:
        frames = [normalize(loader.get(i)) for i in window_indices(frame)]
    windows = torch.stack(frames, dim=1)[None]
    encoder = predictor.model.image_encoder
    return plain_tfi(encoder.trunk_video, encoder.trunk_image(windows[:, :, -1]), windows)


@torch.inference_mode()
def test_sessions_encode_whole_windows(video: np.ndarray) -> None:
    predictor = make_predictor()
    expected = {frame: plain_features(predictor, video, frame) for frame in range(len(video))}
    counts: list[int] = []
    stem_features = predictor.model.image_encoder.stem_features

    def counting(frames: Tensor) -> Tensor:
        counts.append(len(frames))
        return stem_features(frames)

    predictor.model.image_encoder.stem_features = counting
    forward, backward, jumps = range(12), range(11, -1, -1), (7, 0, 11, 2, 3, 9)
    for order, num_taps in ((forward, 12), (backward, 12), (jumps, 18)):
        counts.clear()
        with predictor.init_state(video) as state:
            for frame in order:
                vision = predictor.tracker.features(state, frame).vision
                assert torch.allclose(vision, expected[frame], atol=1e-4), f"frame {frame} of {order}"
        assert len(counts) == num_taps, f"{order}"


def test_a_live_session_encodes_whole_windows(video: np.ndarray) -> None:
    predictor = make_predictor()
    with LiveSession(predictor) as session:
        for frame, picture in enumerate(video):
            session.step(picture)
            predictor.advance(session.state, TrackingStep(frame))
            with torch.inference_mode():
                vision = predictor.tracker.features(session.state, frame).vision
                assert torch.allclose(vision, plain_features(predictor, video, frame), atol=1e-4)
