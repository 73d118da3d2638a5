"""tools/emulated_bfloat16.py: products of bfloat16 in float32, rounded."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tools.emulated_bfloat16 import EmulatedBfloat16


def test_products_are_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator) for shape in ((2, 8, 9, 9), (4, 8, 3, 3)))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), EmulatedBfloat16():
        convolved = F.conv2d(x, weight)
        product = x[0, 0] @ x[0, 1]
    exact = F.conv2d(x.bfloat16().float(), weight.bfloat16().float())

    assert convolved.dtype == product.dtype == torch.bfloat16
    assert torch.equal(convolved, exact.bfloat16())
    assert torch.equal(product, (x[0, 0].bfloat16().float() @ x[0, 1].bfloat16().float()).bfloat16())


def test_float32_stays_as_it_is() -> None:
    x = torch.randn((3, 5), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), EmulatedBfloat16():
        assert torch.equal(F.linear(x, x), F.linear(x, x)) and F.linear(x, x).dtype == torch.float32
