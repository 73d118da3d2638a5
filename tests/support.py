"""What the tests share: a tiny model with weights that make it answer, and rendered videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from i2v.build_i2v import build_i2v_video_predictor
from i2v.checkpoint import save_checkpoint
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.modeling.i2v_model import I2VModel

TINY = Path(__file__).parent / "data" / "tiny.yaml"


def randomize(model: I2VModel, seed: int = 0) -> None:
    """Weights under which signals neither vanish nor explode, and objects are mostly in view."""
    generator = torch.Generator().manual_seed(seed)

    def noise(shape: torch.Size) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                fan_in = max(parameter[0].numel(), 1)
                parameter.copy_(noise(parameter.shape) / fan_in**0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise(parameter.shape))
            else:
                parameter.copy_(1 + 0.1 * noise(parameter.shape))
        matrix = model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        matrix.copy_(noise(matrix.shape))
        list(model.sam_mask_decoder.pred_obj_score_head.parameters())[-1].fill_(3.0)


def make_predictor(*overrides: str, **kwargs) -> I2VVideoPredictor:
    """A tiny predictor with overrides on top of the tests' config."""
    predictor = build_i2v_video_predictor(
        TINY, device="cpu", hydra_overrides_extra=list(overrides), random_weights=True, **kwargs
    )
    randomize(predictor.model)
    return predictor


def options_of_tiny_track(folder: Path) -> list[str]:
    """Options of `i2v track` with a tiny model, whose weights go into the folder, the working directory."""
    save_checkpoint(make_predictor().model, folder / "w.pt")
    return ["--config", str(TINY), "--checkpoint", "w.pt", "--device", "cpu", "--click", "16,19"]


def render_video(num_frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Two discs that move over a textured background, (T,H,W,3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    base = 90 + 40 * np.sin(columns / 5) * np.cos(rows / 7)
    frames = np.repeat(base[None, :, :, None], num_frames, axis=0).repeat(3, axis=3)
    for t in range(num_frames):
        for (x, y), colour in disc_centres(t, height, width):
            inside = (columns - x) ** 2 + (rows - y) ** 2 < (height / 6) ** 2
            frames[t][inside] = colour
    return frames.clip(0, 255).astype(np.uint8)


def disc_centres(t: int, height: int = 48, width: int = 64) -> list[tuple[tuple[float, float], tuple[int, int, int]]]:
    """Centre and colour of the two discs on a frame."""
    first = (width * 0.25 + t, height * 0.4)
    second = (width * 0.75 - t, height * 0.65)
    return [(first, (230, 60, 60)), (second, (50, 80, 240))]
