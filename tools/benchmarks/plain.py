"""The model in the published order of operations, without optimizations: baseline for speed, and oracle for tests.

These functions rely only on parameter names, which the checkpoint fixes. :func:`plain_path` temporarily replaces the
modules' own ``forward`` by them, so that both sides run with the same weights in the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.backbones.efficientnet_lite import SameConvBN
from i2v.modeling.backbones.tiny_vit import TinyViT
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.position_encoding import AxialRotary
from i2v.modeling.structures import FrameFeatures

HEAD_DIM = 32  # of TinyViT's attention


@contextmanager
def plain_path(model: I2VModel) -> Iterator[None]:
    """Run the parts of a model in their published form inside the block.

    A session must not be used both inside and outside: what it caches of past frames differs.
    """
    encoder = model.image_encoder
    parts: list[tuple[nn.Module, Callable[..., Any]]] = [
        *_image_trunk(encoder.trunk_image),
        (encoder.trunk_video, tfi),
        (encoder, image_encoder),
        (model.memory_attention, memory_attention),
        (model.memory_prompt_generator, prompt_generator),
        (model.memory_encoder, memory_encoder),
        (model.sam_mask_decoder.transformer, two_way_transformer),
        *((module, rotate) for module in model.modules() if isinstance(module, AxialRotary)),
    ]
    for module, forward in parts:
        module.forward = partial(forward, module)
    setattr(encoder, "stem_features", keep_frames)  # noqa: B010 - a method, for the type checker
    try:
        yield
    finally:
        delattr(encoder, "stem_features")
        for module, _ in parts:
            del module.forward


# The image encoder


def _image_trunk(trunk: nn.Module) -> list[tuple[nn.Module, Callable[..., Any]]]:
    """The parts of an image trunk that have a plain form."""
    if isinstance(trunk, TinyViT):
        return [(trunk, tiny_vit)]
    return [(module, same_conv_bn) for module in trunk.modules() if isinstance(module, SameConvBN)]


def image_encoder(encoder: Any, frames: Tensor, window: Sequence[Tensor]) -> FrameFeatures:
    """Encode frames with the image trunk, then with the video trunk on their windows.

    Args:
        encoder: The image encoder.
        frames: ``(B, 3, S, S)``.
        window: The T frames ``(B, 3, S, S)`` of each window.
    """
    maps = encoder.trunk_image(frames)
    vision = encoder.trunk_video(maps, torch.stack(list(window), dim=2))
    high_res = tuple(maps[:2]) if encoder.high_res_features else ()
    return FrameFeatures(vision=vision, position=encoder.position.to(vision.dtype), high_res=high_res)


def keep_frames(frames: Tensor) -> Tensor:
    """Replace per-frame stem features by the frames themselves: the plain stem runs on whole windows."""
    return frames


def same_conv_bn(layer: Any, x: Tensor) -> Tensor:
    """Convolution with TensorFlow's SAME padding and batch norm, one after the other."""
    return layer.bn(layer.c(layer.pad(x)))


def tiny_vit(trunk: Any, frames: Tensor) -> list[Tensor]:
    """Encode frames ``(B, 3, S, S)`` as five feature maps."""
    first, _, second = trunk.patch_embed.seq
    maps = [conv_bn(second, F.gelu(conv_bn(first, frames)))]
    for i, stage in enumerate(trunk.layers):
        x = maps[-1]
        for block in stage.blocks:
            x = mb_conv(block, x) if i == 0 else window_block(block, x)
        maps.append(x if stage.downsample is None else mb_chain(stage.downsample, x))
    maps[-1] = trunk.neck(maps[-1])
    return maps


def conv_bn(unit: Any, x: Tensor) -> Tensor:
    """Apply a convolution, then its batch norm with running statistics."""
    conv, norm = unit.c, unit.bn
    x = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def mb_chain(block: Any, x: Tensor) -> Tensor:
    """Expand, depthwise convolution and projection, with GELUs in between."""
    return conv_bn(block.conv3, F.gelu(conv_bn(block.conv2, F.gelu(conv_bn(block.conv1, x)))))


def mb_conv(block: Any, x: Tensor) -> Tensor:
    """:func:`mb_chain` with a residual connection, followed by a GELU."""
    return F.gelu(x + mb_chain(block, x))


def window_block(block: Any, x: Tensor) -> Tensor:
    """Window attention, depthwise convolution and MLP on maps ``(B, C, H, W)``."""
    tokens = x.permute(0, 2, 3, 1)
    tokens = tokens + attend_in_windows(block, tokens)
    tokens = conv_bn(block.local_conv, tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    mlp = block.mlp
    tokens = tokens + mlp.fc2(F.gelu(mlp.fc1(mlp.norm(tokens))))
    return tokens.permute(0, 3, 1, 2)


def attend_in_windows(block: Any, tokens: Tensor) -> Tensor:
    """Self-attention of tokens ``(B, H, W, C)`` within windows, after zero padding to whole windows."""
    batch, height, width, dim = tokens.shape
    size = block.window
    down, right = -height % size, -width % size
    padded = F.pad(tokens, (0, 0, 0, right, 0, down))
    rows, columns = (height + down) // size, (width + right) // size
    windows = padded.view(batch, rows, size, columns, size, dim).transpose(2, 3).reshape(-1, size * size, dim)
    out = window_attention(block.attn, windows).view(batch, rows, columns, size, size, dim).transpose(2, 3)
    return out.reshape(batch, height + down, width + right, dim)[:, :height, :width]


def window_attention(attention: Any, x: Tensor) -> Tensor:
    """Attention with relative position bias on windows ``(W, n, C)``."""
    qkv = attention.qkv(attention.norm(x)).unflatten(-1, (attention.num_heads, 3 * HEAD_DIM))
    q, k, v = qkv.transpose(1, 2).chunk(3, dim=-1)
    bias = attention.attention_biases[:, attention.attention_bias_idxs]
    weights = (q @ k.transpose(-1, -2) * HEAD_DIM**-0.5 + bias).softmax(dim=-1)
    return attention.proj((weights @ v).transpose(1, 2).flatten(2))


def tfi(trunk: Any, maps: Sequence[Tensor], windows: Tensor) -> Tensor:
    """Temporal feature integration, computing all time slices of all stages.

    Args:
        trunk: The TFI.
        maps: Feature maps of the image trunk.
        windows: ``(B, 3, T, S, S)``.

    Returns:
        ``(B, C, h, w)``.
    """
    temporal = trunk.temporal_stem(windows)
    carry: Tensor | None = None
    for i, level in enumerate(trunk.selected_layers):
        temporal = temporal_net(trunk.temporal_nets[i], temporal)
        image = maps[level]
        if image.shape[-2:] != temporal.shape[-2:]:
            image = F.interpolate(image, size=temporal.shape[-2:], mode="bilinear", align_corners=False)
        image = trunk.input_linears[i](image)
        image = image if carry is None else image + carry
        joined = torch.cat((image, temporal[:, :, -1]), dim=1)
        last = trunk.integration2temporal_nets[i].fuse(joined)
        integrated = trunk.temporal2integration_nets[i].fuse(joined)
        carry = trunk.integration_nets[i].layer(integrated)
        temporal = torch.cat((temporal[:, :, :-1], last[:, :, None]), dim=2)
    assert carry is not None
    return carry + integrated


def temporal_net(net: Any, x: Tensor) -> Tensor:
    """Residual blocks of a spatial and a temporal convolution over all slices ``(B, C, T, h, w)``."""
    for j, (norm, block) in enumerate(zip(net.lns, net.temporal_net, strict=True)):
        spatial, temporal = block.get_submodule(f"c_fc1_{j}"), block.get_submodule(f"c_fc2_{j}")
        normed = F.layer_norm(x.movedim(1, -1), norm.weight.shape, norm.weight, norm.bias, norm.eps).movedim(-1, 1)
        x = quick_gelu(x + temporal(quick_gelu(spatial(normed))))
    return x


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


# Memory


def memory_attention(attention: Any, features: FrameFeatures, readouts: Sequence[MemoryReadout]) -> list[Tensor]:
    """Memory attention, object by object, with keys and values projected to full width."""
    placed = (features.vision + 0.1 * features.position).flatten(2).transpose(1, 2)
    return [_attend_memory(attention, placed, r, features.vision.shape[-2:]) for r in readouts]


def _attend_memory(attention: Any, placed: Tensor, readout: MemoryReadout, grid: torch.Size) -> Tensor:
    readout = written_out(readout, placed.shape[1])
    x = placed.expand(len(readout.tokens), -1, -1)
    keys = readout.tokens + readout.position
    for layer in attention.layers:
        y = layer.norm1(x)
        x = x + rope_attention(layer.self_attn, y, y, y)
        y = layer.norm2(x)
        x = x + rope_attention(layer.cross_attn_image, y, keys, readout.tokens, readout.num_pointer_tokens)
        x = x + layer.linear2(F.relu(layer.linear1(layer.norm3(x))))
    return attention.norm(x).transpose(1, 2).unflatten(-1, grid)


def written_out(readout: MemoryReadout, num_positions: int) -> MemoryReadout:
    """Repeat tokens that count several times: the first grid as a whole, and pointers one by one."""
    if readout.counts is None:
        return readout
    copies = readout.counts.long()
    num_placed = len(copies) - readout.num_pointer_tokens
    index = torch.arange(len(copies), device=copies.device)
    first, grids, pointers = index.split((num_positions, num_placed - num_positions, readout.num_pointer_tokens))
    index = torch.cat((first.repeat(int(copies[0])), grids, pointers.repeat_interleave(copies[num_placed:])))
    return replace(
        readout,
        tokens=readout.tokens[:, index],
        position=readout.position[:, index],
        foreground=readout.foreground[:, index],
        num_pointer_tokens=int(copies[num_placed:].sum()),
        counts=None,
    )


def rope_attention(
    attention: Any, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0, mask: Tensor | None = None
) -> Tensor:
    """Attention with rotary positions; the last ``num_k_exclude_rope`` keys have none."""
    q, k, v = (
        project(x).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project, x in ((attention.q_proj, q), (attention.k_proj, k), (attention.v_proj, v))
    )
    placed, unplaced = k.split((k.shape[-2] - num_k_exclude_rope, num_k_exclude_rope), dim=-2)
    keys = torch.cat((attention.rotate_keys(placed), unplaced), dim=-2)
    attend = None if mask is None else mask[:, None, None, :].expand(-1, attention.num_heads, q.shape[-2], -1)
    out = F.scaled_dot_product_attention(attention.rotate_queries(q), keys, v, attn_mask=attend)
    return attention.out_proj(out.transpose(1, 2).flatten(2))


def rotate(rotary: Any, tokens: Tensor) -> Tensor:
    """Rotate each channel pair of tokens ``(..., k*n, C)`` by its position."""
    pairs = tokens.float().unflatten(-2, (-1, rotary.num_positions)).unflatten(-1, (-1, 2))
    real, imaginary = pairs.unbind(-1)
    cos, sin = rotary.rotations.unbind(-1)
    rotated = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return torch.stack(rotated, dim=-1).flatten(-2).flatten(-3, -2).to(tokens.dtype)


def prompt_generator(generator: Any, readout: MemoryReadout) -> Tensor:
    """Cross-attention of the queries to foreground tokens, then self-attention and MLP."""
    readout = written_out(readout, generator.cross_attn.rotate_keys.num_positions)
    queries = generator.query_embedding_fg.weight.expand(len(readout.tokens), -1, -1)
    x = queries + rope_attention(
        generator.cross_attn,
        generator.norm_fg_ca(queries),
        readout.tokens + readout.position,
        readout.tokens,
        readout.num_pointer_tokens,
        readout.foreground,
    )
    y = generator.norm_fg_sa(x)
    x = x + rope_attention(generator.self_attn, y, y, y)
    return x + generator.linear2(F.relu(generator.linear1(generator.norm1(x))))


def memory_encoder(encoder: Any, vision: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
    """Encode features with scaled masks ``(B, 1, S, S)`` as memories ``(B, M, h, w)``, mask by mask."""
    return [_encode_memory(encoder, vision, mask) for mask in masks]


def _encode_memory(encoder: Any, vision: Tensor, mask: Tensor) -> Tensor:
    x = encoder.pix_feat_proj(vision) + encoder.mask_downsampler.encoder(mask)
    for block in encoder.fuser.layers:
        branch = block.norm(block.dwconv(x)).permute(0, 2, 3, 1)
        branch = block.gamma * block.pwconv2(F.gelu(block.pwconv1(branch)))
        x = x + branch.permute(0, 3, 1, 2)
    return encoder.out_proj(x)


# The mask decoder


def two_way_transformer(transformer: Any, image: Tensor, image_pos: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """SAM's two-way transformer: prompt tokens and image tokens attend to each other in every block."""
    token_pos = tokens
    for layer in transformer.layers:
        placed = tokens if layer.first else tokens + token_pos
        attended = attention(layer.self_attn, placed, placed, tokens)
        tokens = layer.norm1(attended if layer.first else tokens + attended)
        read = attention(layer.cross_attn_token_to_image, tokens + token_pos, image + image_pos, image)
        tokens = layer.norm2(tokens + read)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        written = attention(layer.cross_attn_image_to_token, image + image_pos, tokens + token_pos, tokens)
        image = layer.norm4(image + written)
    read = attention(transformer.final_attn_token_to_image, tokens + token_pos, image + image_pos, image)
    return transformer.norm_final_attn(tokens + read), image


def attention(part: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention with projections."""
    q, k, v = (
        project(x).unflatten(-1, (part.num_heads, -1)).transpose(1, 2)
        for project, x in ((part.q_proj, q), (part.k_proj, k), (part.v_proj, v))
    )
    return part.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
