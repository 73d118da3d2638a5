"""Checkpoints: read them without running code, load them strictly by name, write them atomically.

A checkpoint is a file of `torch.save` with the state dict under the key "model"; training state may stand
beside it.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2v.download import DownloadError, fetch
from i2v.utils.files import replacing
from i2v.utils.saved_file import check_archive, check_pickles

log = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]

# The first bytes of the two formats of torch.save: a zip archive, and before PyTorch 1.6 a pickled magic
# number.
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

_TINYSAM_PREFIXES = {
    "image_encoder.": "image_encoder.trunk_image.",
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
}
_TINYSAM_MLP = {".mlp.lin1.": ".mlp.layers.0.", ".mlp.lin2.": ".mlp.layers.1."}


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one that does not fit the model; the message says which and why."""


@dataclass(frozen=True)
class Mismatch:
    """An entry that both sides have, in forms that do not go together."""

    name: str
    found: str
    wanted: str


@dataclass(frozen=True)
class StateDictReport:
    """How weights compare to a model's entries by name, shape and kind of number (floating-point or not)."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def describe(self) -> str:
        """Counts, and the first few names of each sort."""
        if self.fits:
            return "all entries fit"
        wrong = [f"{m.name} (found {m.found}, expected {m.wanted})" for m in self.mismatched]
        parts = {"missing": self.missing, "unexpected": self.unexpected, "of another shape or kind": wrong}
        return "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in parts.items() if names)


@dataclass(frozen=True)
class StartReport:
    """What a start from other weights did: model entries set from the file and left fresh, file entries ignored."""

    set: tuple[str, ...]
    fresh: tuple[str, ...]
    ignored: tuple[str, ...]

    def describe(self) -> str:
        """Counts, and the first few names left fresh or ignored."""
        parts = [f"{len(self.set)} entries set"]
        if self.fresh:
            parts.append(f"{len(self.fresh)} left fresh: {_first(self.fresh)}")
        if self.ignored:
            parts.append(f"{len(self.ignored)} of the file ignored: {_first(self.ignored)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint file holds: counts over the state dict, and what stands beside it."""

    num_entries: int
    num_values: int
    dtypes: tuple[str, ...]
    metadata: Mapping[str, str | int | float]
    other_keys: tuple[str, ...]


def read_checkpoint(path: StrPath) -> dict[str, Tensor]:
    """The state dict of a checkpoint file or https address, on the CPU and possibly mapped from the file.

    An address may end in `#sha256=` and the checksum that the file must have, see `i2v.download.fetch`. Raises
    FileNotFoundError for a missing file and CheckpointError for one that is not a checkpoint, is damaged, is laid out
    differently, could only be read by running code, or cannot be fetched.
    """
    return state_dict_of(read_content(path), path)


def read_checkpoint_info(path: StrPath) -> CheckpointInfo:
    """A summary of a checkpoint file or address; raises what `read_checkpoint` does."""
    content = read_content(path)
    weights = state_dict_of(content, path)
    beside = {str(key): value for key, value in content.items() if key != "model"}
    metadata = {key: value for key, value in beside.items() if isinstance(value, str | int | float)}
    return CheckpointInfo(
        num_entries=len(weights),
        num_values=sum(tensor.numel() for tensor in weights.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()})),
        metadata=metadata,
        other_keys=tuple(key for key in beside if key not in metadata),
    )


def read_bare_state_dict(path: StrPath, whose: str) -> dict[str, Tensor]:
    """The state dict of a file that holds nothing else, as `whose` weights are published.

    Raises what `read_checkpoint` does.
    """
    content = read_content(path)
    if not _is_state_dict(content):
        raise CheckpointError(f"{path}: expected {whose}'s bare state dict, got {_outline(content)}")
    return content


def compare_state_dict(model: nn.Module, weights: Mapping[str, Tensor]) -> StateDictReport:
    """Compare weights with a model by name, shape and kind; float16 for float32 is the same kind."""
    entries = model.state_dict()
    return StateDictReport(
        missing=tuple(name for name in entries if name not in weights),
        unexpected=tuple(name for name in weights if name not in entries),
        mismatched=tuple(
            Mismatch(name, found=_form(weights[name]), wanted=_form(entry))
            for name, entry in entries.items()
            if name in weights and _form(weights[name]) != _form(entry)
        ),
    )


def load_checkpoint(model: nn.Module, path: StrPath) -> None:
    """Load a checkpoint file or address into a model, every entry of both; values take the model's dtypes.

    Raises what `read_checkpoint` does, and CheckpointError if an entry is missing, left over or of another
    shape; the model is then unchanged.
    """
    weights = read_checkpoint(path)
    check_fit(model, weights, path)
    model.load_state_dict(weights)
    log.info("loaded %d entries from %s", len(weights), path)


def check_fit(model: nn.Module, weights: Mapping[str, Tensor], path: StrPath) -> None:
    """Raise CheckpointError, which names what is missing, left over or of another shape, if weights do not fit."""
    report = compare_state_dict(model, weights)
    if not report.fits:
        wanted = f"{type(model).__name__} with {len(model.state_dict())} entries"
        raise CheckpointError(f"checkpoint {path} does not fit this {wanted}: {report.describe()}")


def load_tinysam(model: nn.Module, path: StrPath) -> StartReport:
    """Start a model's image trunk, prompt encoder and mask decoder from TinySAM's weights (a bare state dict).

    Raises what `read_checkpoint` does, and CheckpointError if the file has no entry for the model or one of
    another shape; the model is then unchanged.
    """
    content = read_bare_state_dict(path, "TinySAM")
    entries = model.state_dict()
    renamed = {name: _from_tinysam(name) for name in content}
    weights = {ours: content[name] for name, ours in renamed.items() if ours in entries}
    report = StartReport(
        set=tuple(name for name in entries if name in weights),
        fresh=tuple(name for name in entries if name not in weights),
        ignored=tuple(name for name, ours in renamed.items() if ours not in entries),
    )
    if not weights:
        raise CheckpointError(f"{path}: no entry belongs to TinySAM, found {_first(content)}")
    if wrong := compare_state_dict(model, weights).mismatched:
        raise CheckpointError(f"{path}: {StateDictReport((), (), wrong).describe()}")
    model.load_state_dict(weights, strict=False)
    log.info("started from %s: %s", path, report.describe())
    return report


def save_checkpoint(
    model: nn.Module | Mapping[str, Tensor],
    path: StrPath,
    dtype: torch.dtype | None = None,
    **metadata: str | int | float,
) -> None:
    """Write weights as a checkpoint file, with `metadata` beside them; an existing file is replaced as a whole.

    `dtype` converts the floating-point entries, for example to float16 for a file of half the size. Raises
    CheckpointError if that makes a value infinite.
    """
    weights = model.state_dict() if isinstance(model, nn.Module) else model
    stored = {name: _stored(name, tensor.detach(), dtype) for name, tensor in weights.items()}
    save_atomically({"model": stored, **metadata}, path)


def save_atomically(content: Any, path: StrPath) -> None:
    """`torch.save` to a path that holds, at every moment, the old file or the whole new one. Raises DiskFullError."""
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                # torch itself only tells that its archive is not complete.
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def read_content(path: StrPath, mapped: bool = True) -> dict[Any, Any]:
    """All that a checkpoint file or address holds; raises what `read_checkpoint` does.

    `mapped`: tensors are read from the file when they are used, where its format allows.
    """
    file = _local(path)
    head = _head(file)
    is_archive = head.startswith(_ZIP_MAGIC)
    try:
        check_archive(file) if is_archive else check_pickles(file)
        # Mapping skips the optimizer state of training checkpoints, two thirds of the file.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped and is_archive)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_needs_code(path, str(error))) from error
    except MemoryError:
        raise
    except Exception as error:  # which ones, on bytes that are garbled or cut short, is nowhere documented
        raise CheckpointError(f"{path} is damaged or cut short: get it again ({_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict with the key 'model', got a {type(content).__name__}")
    return content


def _local(path: StrPath) -> Path:
    if "://" not in os.fspath(path):
        return Path(path)
    try:
        return fetch(os.fspath(path))
    except DownloadError as error:
        raise CheckpointError(str(error)) from error


def _head(file: Path) -> bytes:
    """The first bytes of a file that can be a checkpoint."""
    if file.is_dir():
        raise CheckpointError(f"{file} is a folder, expected a checkpoint file")
    if not file.exists():
        raise FileNotFoundError(f"checkpoint {file} does not exist (looked in {file.parent.absolute()})")
    if not file.is_file():
        raise CheckpointError(f"{file} is no regular file, expected a checkpoint file")  # a pipe may block for ever
    with file.open("rb") as stream:
        head = stream.read(len(_LEGACY_MAGIC))
    if not head:
        raise CheckpointError(f"{file} is empty, expected a checkpoint file")
    if not head.startswith((_ZIP_MAGIC, _LEGACY_MAGIC)):
        raise CheckpointError(f"{file} is not a checkpoint of torch.save: it starts with {head!r}")
    return head


def _needs_code(path: StrPath, reason: str) -> str:
    name = re.search(r"GLOBAL (\S+)", reason)
    if name is None:
        return f"{path} is damaged, or can only be read by running code, which is never done here"
    read = f"torch.load({os.fspath(path)!r}, map_location='cpu', weights_only=False)"
    return (
        f"{path} can only be read by running code ({name[1]}), which is never done here; if you trust its "
        "source, make a file of its weights alone in Python: "
        f"import torch; torch.save({{'model': {read}['model']}}, 'clean.pt')"
    )


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def state_dict_of(content: dict[Any, Any], path: StrPath) -> dict[str, Tensor]:
    """The state dict in the content of a checkpoint; CheckpointError, with the path, if it is laid out differently."""
    weights = content.get("model")
    if isinstance(weights, dict) and _is_state_dict(weights):
        return weights
    if "model" in content:
        raise CheckpointError(f"{path}: expected a state dict under 'model', got {_outline(weights)}")
    if _is_state_dict(content):
        raise CheckpointError(f"{path} is a bare state dict ({_first(content)}), expected it under the key 'model'")
    raise CheckpointError(f"{path}: expected a dict with the key 'model', got {_outline(content)}")


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def _outline(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with {_first(content)}" if content else "an empty dict"
    return f"a {type(content).__name__}"


def _first(names: Iterable[Any], count: int = 4) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")


def _form(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'int'}{list(tensor.shape)}"


def _from_tinysam(name: str) -> str | None:
    """Our name of a TinySAM entry; None outside the parts that start from it."""
    for theirs, ours in _TINYSAM_PREFIXES.items():
        if name.startswith(theirs):
            if theirs == "mask_decoder.":
                for old, new in _TINYSAM_MLP.items():
                    name = name.replace(old, new)
            return ours + name.removeprefix(theirs)
    return None


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not tensor.is_floating_point():
        return tensor.cpu().clone()  # a view would be saved with all that it looks into
    converted = tensor.to("cpu", dtype, copy=True)
    if bool(tensor.isfinite().all()) and not bool(converted.isfinite().all()):
        raise CheckpointError(f"{name}: values up to {tensor.abs().max().item():.3g} do not fit {dtype}")
    return converted
