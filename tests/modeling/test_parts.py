"""Layers, encodings and attention, against values worked out by hand or by plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from i2v.modeling.backbones.tfi import TFI
from i2v.modeling.backbones.tiny_vit import TinyViT, WindowAttention
from i2v.modeling.layers import MLP, DropPath, LayerNorm2d
from i2v.modeling.memory.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from i2v.modeling.position_encoding import AxialRotary, RandomFourierEncoding, sine_encoding_1d, sine_encoding_2d
from i2v.modeling.sam.attention import Attention, RoPEAttention
from i2v.modeling.sam.mask_decoder import stability
from i2v.modeling.sam.prompt_encoder import PromptEncoder
from i2v.modeling.structures import Prompt


def test_layer_norm_2d_normalizes_channels():
    x = torch.randn(2, 8, 3, 5)
    norm = LayerNorm2d(8)
    norm.weight.data.normal_()
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-6).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    assert torch.allclose(norm(x), expected, atol=1e-5)


def test_mlp_has_relu_between_and_sigmoid_at_the_end():
    mlp = MLP(3, 5, 2, 3, sigmoid=True)
    x = torch.randn(4, 3)
    a, b, c = mlp.layers
    assert torch.allclose(mlp(x), c(F.relu(b(F.relu(a(x))))).sigmoid())


def test_drop_path_drops_whole_samples_only_in_training():
    path = DropPath(0.5)
    x = torch.ones(64, 2, 2)
    torch.manual_seed(0)
    kept = path(x)
    assert set(kept.unique().tolist()) == {0.0, 2.0} and (kept.flatten(1).std(dim=1) == 0).all()
    assert torch.equal(path.eval()(x), x)


def test_sine_encoding_2d_published_values():
    code = sine_encoding_2d(64, 64, 256)
    assert code.shape == (1, 256, 64, 64)
    assert code[0, :4, 0, 0].tolist() == pytest.approx([0.0980, 0.9952, 0.0849, 0.9964], abs=5e-5)
    assert torch.equal(code[0, :128, 5, 0], code[0, :128, 5, 9]), "rows come first"
    assert torch.equal(code[0, 128:, 0, 7], code[0, 128:, 3, 7])


def test_sine_encoding_1d_is_sines_then_cosines():
    code = sine_encoding_1d(torch.tensor([0.5]), 8)[0]
    wavelengths = [1, 1, 100, 100]
    expected = [math.sin(0.5 / w) for w in wavelengths] + [math.cos(0.5 / w) for w in wavelengths]
    assert code.tolist() == pytest.approx(expected)


def test_fourier_grid_is_the_code_of_cell_centres():
    encoding = RandomFourierEncoding(8)
    grid = encoding.grid(2, 4)
    assert torch.allclose(grid[0, :, 1, 2], encoding(torch.tensor([2.5 / 4, 1.5 / 2])))


def test_rotary_is_complex_multiplication():
    rotary = AxialRotary(8, (3, 2))
    tokens = torch.randn(2, 1, 12, 8)
    rotated = rotary(tokens)
    for token, (x, y) in {0: (0, 0), 4: (1, 1), 6: (0, 0), 11: (2, 1)}.items():
        pairs = torch.view_as_complex(tokens[1, 0, token].reshape(4, 2).contiguous())
        angles = torch.tensor([x * 1.0, x * 10000**-0.5, y * 1.0, y * 10000**-0.5])
        expected = torch.view_as_real(pairs * torch.polar(torch.ones(4), angles)).flatten()
        assert torch.allclose(rotated[1, 0, token], expected, atol=1e-6)


def test_rotary_tables_stay_exact_in_half_precision():
    rotary = AxialRotary(8, (64, 64))
    exact = rotary.rotations.clone()
    rotary.to(torch.bfloat16)
    assert rotary.rotations.dtype == torch.float32 and torch.equal(rotary.rotations, exact)
    assert rotary(torch.randn(1, 1, 4096, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert not rotary.state_dict()


def test_attention_is_softmax_of_scores():
    attention = Attention(16, num_heads=4, downsample_rate=2, kv_in_dim=6)
    q, k, v = torch.randn(2, 5, 16), torch.randn(2, 7, 6), torch.randn(2, 7, 6)
    heads = [
        x.view(2, -1, 4, 2).transpose(1, 2) for x in (attention.q_proj(q), attention.k_proj(k), attention.v_proj(v))
    ]
    scores = (heads[0] @ heads[1].transpose(-1, -2) / 2**0.5).softmax(-1)
    expected = attention.out_proj((scores @ heads[2]).transpose(1, 2).reshape(2, 5, 8))
    assert torch.allclose(attention(q, k, v), expected, atol=1e-6)


def test_rope_attention_leaves_pointers_unplaced_and_masks_keys():
    attention = RoPEAttention(8, (2, 2), (2, 2), kv_in_dim=4)
    q, k = torch.randn(1, 4, 8), torch.randn(1, 11, 4)
    placed = attention.rotate_keys(attention.k_proj(k[:, :8])[:, None])
    keys = torch.cat((placed, attention.k_proj(k[:, 8:])[:, None]), dim=2)
    queries = attention.rotate_queries(attention.q_proj(q)[:, None])
    mask = torch.tensor([[True] * 4 + [False] * 4 + [True] * 3])
    scores = (queries @ keys.transpose(-1, -2) / 8**0.5).masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    expected = attention.out_proj((scores @ attention.v_proj(k)[:, None])[:, 0])
    assert torch.allclose(attention(q, k, k, num_k_exclude_rope=3, mask=mask), expected, atol=1e-5)
    changed = k.clone()
    changed[:, 4:8] = 9.0
    assert torch.allclose(attention(q, changed, changed, num_k_exclude_rope=3, mask=mask), expected, atol=1e-5)


def test_window_attention_bias_follows_distances():
    attention = WindowAttention(32, 1, 3)
    attention.attention_biases.data.copy_(torch.arange(9.0))
    bias = attention.attention_biases[0, attention.attention_bias_idxs]
    assert bias[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert bias[4].tolist() == [4, 3, 4, 1, 0, 1, 4, 3, 4]


@pytest.mark.parametrize("side", [64, 80, 112])
def test_tiny_vit_maps_at_any_multiple_of_16(side):
    trunk = TinyViT(num_classes=4, embed_dims=(32, 32, 64, 96), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 3), out_dim=24)
    maps = trunk.eval()(torch.randn(1, 3, side, side))
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [
        (32, side // 4, side // 4),
        (32, side // 8, side // 8),
        (64, side // 16, side // 16),
        (96, side // 16, side // 16),
        (24, side // 16, side // 16),
    ]


def test_tiny_vit_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    make = {"num_classes": 4, "embed_dims": (32,) * 4, "depths": (1,) * 4, "num_heads": (1,) * 4, "out_dim": 8}
    plain, saving = TinyViT(**make), TinyViT(**make, use_checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    frame = torch.randn(1, 3, 32, 32)
    for trunk in (plain.eval(), saving.eval()):
        trunk(frame)[-1].square().sum().backward()
    a, b = plain.patch_embed.seq[0].c.weight.grad, saving.patch_embed.seq[0].c.weight.grad
    assert torch.equal(a, b) and a.abs().sum() > 0


def test_tfi_reads_the_past_and_the_present():
    tfi = TFI(d_model_list=(8, 8), selected_layers=(0, 1), temporal_dim=8, integration_dim=16).eval()
    for p in tfi.parameters():
        torch.nn.init.normal_(p, std=0.2)
    maps = [torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)]
    window = torch.randn(5, 1, 3, 64, 64)
    stem = [tfi.temporal_stem.per_frame(frame) for frame in window]
    out = tfi(maps, stem)
    assert out.shape == (1, 16, 4, 4)
    for slot in range(5):
        changed = [*stem[:slot], tfi.temporal_stem.per_frame(window[slot] + 1), *stem[slot + 1 :]]
        assert not torch.allclose(tfi(maps, changed), out, atol=1e-6), f"slot {slot} has no effect"
    with torch.no_grad():
        tfi.integration2temporal_nets[-1].fuse[0].weight.fill_(99)
    assert torch.equal(tfi(maps, stem), out), "the last fusion has no effect"


def test_prompt_encoder_tokens():
    encoder = PromptEncoder(image_size=64, grid=4, embed_dim=8)
    points = torch.tensor([[[10.0, 20.0], [0.0, 0.0]]])
    sparse, dense = encoder(Prompt.click(points, torch.tensor([[1, -1]])), 1)
    assert sparse.shape == (1, 3, 8) and dense.shape == (1, 8, 4, 4)
    expected = encoder.pe_layer(torch.tensor([10.5, 20.5]) / 64) + encoder.point_embeddings[1].weight[0]
    assert torch.allclose(sparse[0, 0], expected)
    padding = encoder.not_a_point_embed.weight[0]
    assert torch.equal(sparse[0, 1], padding) and torch.equal(sparse[0, 2], padding)
    nothing, _ = encoder(None, 2)
    assert nothing.shape == (2, 2, 8) and torch.equal(nothing[1, 1], padding)
    box, _ = encoder(Prompt.box(torch.tensor([[1.0, 2.0, 30.0, 40.0]])), 1)
    assert torch.allclose(
        box[0, 1], encoder.pe_layer(torch.tensor([30.5, 40.5]) / 64) + encoder.point_embeddings[3].weight[0]
    )


def test_a_prompt_has_points_or_a_mask():
    with pytest.raises(ValueError, match="either points or a mask"):
        Prompt()
    with pytest.raises(ValueError, match="points and labels together"):
        Prompt(points=torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="cannot be added to a mask prompt"):
        Prompt.from_mask(torch.zeros(1, 1, 4, 4)).add(torch.zeros(1, 1, 2), torch.zeros(1, 1))


def test_stability_counts_pixels_near_the_threshold():
    logits = torch.tensor([[[1.0, 0.01], [-0.01, -3.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    assert stability(logits, 0.05).tolist() == pytest.approx([1 / 3, 1.0])


def test_memory_encoder_sizes_and_copies():
    encoder = MemoryEncoder(MaskDownSampler(embed_dim=16), Fuser(CXBlock(16), 2), grid=4, out_dim=8, in_dim=16)
    vision, masks = torch.randn(1, 16, 4, 4), torch.randn(3, 1, 64, 64)
    memory, first = encoder(vision, [masks, masks[:1]])
    assert memory.shape == (3, 8, 4, 4) and torch.allclose(first, memory[:1], atol=1e-5)
    a, b = encoder.fuser.layers
    assert torch.equal(a.pwconv1.weight, b.pwconv1.weight) and a.gamma.unique().tolist() == pytest.approx([1e-6])
    with pytest.raises(ValueError, match="power of 2, got 12"):
        MaskDownSampler(total_stride=12)
