"""MaskHistory: results of an object's tracked frames, the latest exact, older ones compressed to a few kilobytes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from i2v.modeling.structures import NO_OBJECT_LOGIT

# Compressed logits are quantized in steps of 0.5 within +-8.
_QUANT_STEP, _QUANT_LEVELS = 0.5, 16


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The result of one object on one frame.

    Attributes:
        low_res: ``(1, 1, 4h, 4w)`` mask logits.
        pointer: Object pointer ``(1, C)``.
        object_score: ``(1, 1)`` logit, positive where the object is in view.
        iou: Predicted IoU ``(1,)``.
    """

    low_res: Tensor
    pointer: Tensor
    object_score: Tensor
    iou: Tensor


@dataclass(frozen=True)
class PackedResult:
    """A compressed result.

    The mask, that is the sign of its logits, is exact. Logits within +-8 are accurate to 0.25, the pointer to float16.

    Attributes:
        shape: (height, width) of the low-res logits.
        logits: Their int8 quantization levels, compressed by zlib.
        pointer: Object pointer in float16.
        object_score: Logit.
        iou: Predicted IoU.
    """

    shape: tuple[int, int]
    logits: bytes
    pointer: bytes
    object_score: float
    iou: float

    @classmethod
    def pack(cls, result: FrameResult) -> PackedResult:
        """Compress a result."""
        # Level n stands for logits in ((n - 1) * step, n * step]. Positive logits get level 1 or higher, all others 0
        # or lower, so the sign survives.
        levels = (result.low_res[0, 0] / _QUANT_STEP).ceil().clamp(1 - _QUANT_LEVELS, _QUANT_LEVELS)
        height, width = levels.shape
        return cls(
            shape=(height, width),
            logits=zlib.compress(levels.to(torch.int8).cpu().numpy().tobytes(), 1),
            pointer=result.pointer.half().cpu().numpy().tobytes(),
            object_score=float(result.object_score),
            iou=float(result.iou),
        )

    def unpack(self, device: torch.device) -> FrameResult:
        """Decompress to float32 tensors on a device."""
        levels = torch.frombuffer(bytearray(zlib.decompress(self.logits)), dtype=torch.int8).view(self.shape)
        logits = (levels.to(device).float() - 0.5) * _QUANT_STEP  # centre of the level's interval
        # Logits of absent objects are far below the quantization range, but all equal, so they can be restored exactly.
        if self.object_score <= 0:
            logits = torch.full_like(logits, NO_OBJECT_LOGIT)
        pointer = torch.from_numpy(np.frombuffer(self.pointer, dtype=np.float16).astype(np.float32))
        return FrameResult(
            low_res=logits[None, None],
            pointer=pointer[None].to(device),
            object_score=torch.tensor([[self.object_score]], device=device),
            iou=torch.tensor([self.iou], device=device),
        )


class MaskHistory:
    """Results by frame index: the latest as they are, older ones compressed.

    While one thread compresses a result, others go on finding it.
    """

    def __init__(self, num_exact: int = 32) -> None:
        """Create an empty history that keeps the latest ``num_exact`` results exact."""
        self._num_exact = num_exact
        self._exact: dict[int, FrameResult] = {}
        self._packed: dict[int, PackedResult] = {}

    def __contains__(self, frame: int) -> bool:
        return frame in self._exact or frame in self._packed

    @property
    def frames(self) -> list[int]:
        """Indices of the frames that have a result, each once, in no particular order."""
        # Exact ones first, as results only move from there to the others.
        return list(dict.fromkeys([*self._exact, *self._packed]))

    def copy(self) -> MaskHistory:
        """Return an independent history. The results, which do not change, are shared."""
        other = MaskHistory(self._num_exact)
        other._exact, other._packed = dict(self._exact), dict(self._packed)
        return other

    def put(self, frame: int, result: FrameResult) -> None:
        """Store the result of a frame in place of an older one."""
        # Drop any older result, so that a frame tracked again moves to the end: dict order is the order of compression.
        self.drop(frame)
        self._exact[frame] = result
        if len(self._exact) > self._num_exact:
            oldest = next(iter(self._exact))
            # Removed last: compression takes long, and the frame has a result all along.
            self._packed[oldest] = PackedResult.pack(self._exact[oldest])
            self._exact.pop(oldest)

    def get(self, frame: int, device: torch.device) -> FrameResult | None:
        """Return the result of a frame, or ``None``. Compressed results are unpacked to ``device``."""
        if frame in self._exact:
            return self._exact[frame]
        packed = self._packed.get(frame)
        return None if packed is None else packed.unpack(device)

    def scores(self, frame: int) -> tuple[float, float] | None:
        """Return object score (logit) and predicted IoU of a frame, or ``None``."""
        result = self._exact.get(frame) or self._packed.get(frame)
        return None if result is None else (float(result.object_score), float(result.iou))

    def drop(self, frame: int) -> None:
        """Remove the result of a frame."""
        self._exact.pop(frame, None)
        self._packed.pop(frame, None)

    def clear(self) -> None:
        """Remove all results."""
        self._exact.clear()
        self._packed.clear()
