"""What is kept of an object's tracked frames: the latest results exactly, older ones in a few kilobytes each."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from i2v.modeling.structures import NO_OBJECT_LOGIT

_STEP, _LEVELS = 0.5, 16  # older logits are rounded to halves within +-8


@dataclass(frozen=True, eq=False)
class FrameResult:
    """One object: ``low_res`` (1,1,4h,4w) logits, ``pointer`` (1,C), ``object_score`` (1,1) logit, ``iou`` (1,)."""

    low_res: Tensor
    pointer: Tensor
    object_score: Tensor
    iou: Tensor


@dataclass(frozen=True)
class PackedResult:
    """A result as bytes; the mask's sign is kept exactly, its logits to a quarter within +-8."""

    shape: tuple[int, int]
    logits: bytes
    pointer: bytes
    object_score: float
    iou: float

    @classmethod
    def pack(cls, result: FrameResult) -> PackedResult:
        levels = (result.low_res[0, 0] / _STEP).ceil().clamp(1 - _LEVELS, _LEVELS)
        height, width = levels.shape
        return cls(
            shape=(height, width),
            logits=zlib.compress(levels.to(torch.int8).cpu().numpy().tobytes(), 1),
            pointer=result.pointer.half().cpu().numpy().tobytes(),
            object_score=float(result.object_score),
            iou=float(result.iou),
        )

    def unpack(self, device: torch.device) -> FrameResult:
        levels = torch.frombuffer(bytearray(zlib.decompress(self.logits)), dtype=torch.int8).view(self.shape)
        logits = (levels.to(device).float() - 0.5) * _STEP
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
    """Results by frame. The ``num_exact`` latest stay as they are, the others are packed."""

    def __init__(self, num_exact: int = 32) -> None:
        self._num_exact = num_exact
        self._exact: dict[int, FrameResult] = {}
        self._packed: dict[int, PackedResult] = {}

    def __contains__(self, frame: int) -> bool:
        return frame in self._exact or frame in self._packed

    @property
    def frames(self) -> list[int]:
        """The frames that have a result."""
        return [*self._packed, *self._exact]

    def copy(self) -> MaskHistory:
        """A history that goes its own way from here; the results are shared."""
        other = MaskHistory(self._num_exact)
        other._exact, other._packed = dict(self._exact), dict(self._packed)
        return other

    def put(self, frame: int, result: FrameResult) -> None:
        """Keep a frame's latest result."""
        self.drop(frame)
        self._exact[frame] = result
        if len(self._exact) > self._num_exact:
            oldest = next(iter(self._exact))
            self._packed[oldest] = PackedResult.pack(self._exact.pop(oldest))

    def get(self, frame: int, device: torch.device) -> FrameResult | None:
        """A frame's result on a device, or ``None``."""
        if frame in self._exact:
            return self._exact[frame]
        packed = self._packed.get(frame)
        return None if packed is None else packed.unpack(device)

    def scores(self, frame: int) -> tuple[float, float] | None:
        """Object score logit and predicted IoU of a frame, or ``None``."""
        result = self._exact.get(frame) or self._packed.get(frame)
        return None if result is None else (float(result.object_score), float(result.iou))

    def drop(self, frame: int) -> None:
        """Forget a frame."""
        self._exact.pop(frame, None)
        self._packed.pop(frame, None)

    def clear(self) -> None:
        """Forget all."""
        self._exact.clear()
        self._packed.clear()
