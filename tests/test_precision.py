"""Precision holds while a model computes, and for nobody else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from support import make_predictor, render_video

from i2v.build_i2v import resolve_dtype
from i2v.inference.precision import Precision

CPU = torch.device("cpu")


def product() -> torch.dtype:
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_products_have_the_precision_inside_the_block_only() -> None:
    with Precision(torch.bfloat16).on(CPU):
        assert product() == torch.bfloat16
    assert product() == torch.float32
    with Precision().on(CPU):
        assert product() == torch.float32


def test_tf32_is_allowed_while_any_block_wants_it() -> None:
    before = torch.get_float32_matmul_precision()
    assert before == "highest"
    with Precision().on(CPU):
        assert torch.get_float32_matmul_precision() == before
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with Precision(tf32=True).on(CPU):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with pytest.raises(ZeroDivisionError), Precision(tf32=True).on(CPU):
        thread.start()
        assert inside.wait(10)
        assert torch.get_float32_matmul_precision() == "high"
        _ = 1 / 0
    assert torch.get_float32_matmul_precision() == "high"
    leave.set()
    thread.join()
    assert torch.get_float32_matmul_precision() == before


def test_a_predictor_computes_in_the_precision_it_was_built_for() -> None:
    seen = []
    predictor = make_predictor(tf32=True)
    predictor.model.memory_encoder.register_forward_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    with predictor.init_state(render_video(3)) as state:
        predictor.add_new_points_or_box(state, 0, 1, [[16, 19]], [1])
        for _ in predictor.propagate_in_video(state):
            seen.append(torch.get_float32_matmul_precision())
    # The prompted frame is memorized, and two more; the caller's own products are not touched.
    assert seen == ["high", "highest", "high", "highest", "high", "highest"]


@pytest.mark.parametrize(
    ("cpuinfo", "warns"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16", False),
        ("flags\t\t: fpu avx2", True),
        ("Features\t: fp asimd bf16", False),
        ("no such line", False),
    ],
)
def test_half_precision_on_a_cpu_without_instructions_for_it_warns(
    cpuinfo: str, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **_: cpuinfo)
    assert resolve_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    assert ("this CPU has no instructions for it" in caplog.text) == warns
    caplog.clear()
    resolve_dtype("float32", torch.device("cpu"))
    assert not caplog.text
