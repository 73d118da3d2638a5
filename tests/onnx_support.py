"""A tiny model exported to ONNX, once for all tests of a run."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import make_predictor

from i2v.export.exporter import export_model
from i2v.i2v_video_predictor import I2VVideoPredictor

# Everything that i2v-nano has and the tests' model has not, and fewer layers: exporting takes time for each.
OVERRIDES = (
    "model.memory_attention.num_layers=1",
    "model.sam_mask_decoder.transformer.depth=1",
    "++model.image_encoder.high_res_features=true",
    "++model.sam_mask_decoder.high_res_dims=[32,32]",
    "++model.sam_prompt_encoder.point_maps=true",
    "model.selector.mode=topk",
    "predictor.fill_hole_area=4",
    "++predictor.refine_prompts=true",
)


def make_exportable(*overrides: str) -> I2VVideoPredictor:
    """The predictor whose model ``exported_folder`` is, with further overrides."""
    return make_predictor(*OVERRIDES, *overrides)


def export_tiny(folder: Path) -> None:
    """Export that model."""
    export_model(make_exportable(), folder, "tiny")


def exported_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder of the exported model; the first worker of a run makes it, and the others wait."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    base = factory.getbasetemp() if run is None else factory.getbasetemp().parent
    folder = base / f"onnx-{run}"
    with open(base / f"onnx-{run}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            # In a process of its own: for the handlers that pytest gives to all loggers, PyTorch would log each step.
            path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
            code = f"import onnx_support as s; from pathlib import Path; s.export_tiny(Path({str(folder)!r}))"
            subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True)
    return folder
