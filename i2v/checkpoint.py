"""Checkpoints: read without running code, load strictly by name, write atomically.

A checkpoint is a ``torch.save`` file with the state dict under the key "model", possibly next to training state.
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
from i2v.inference.precision import parse_dtype
from i2v.utils.files import replacing
from i2v.utils.saved_file import check_archive, check_pickles

log = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]

# First bytes of the two torch.save formats: a zip archive, and before PyTorch 1.6 a pickled magic number.
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

_TINYSAM_PREFIXES = {
    "image_encoder.": "image_encoder.trunk_image.",
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
}
_TINYSAM_MLP = {".mlp.lin1.": ".mlp.layers.0.", ".mlp.lin2.": ".mlp.layers.1."}


class CheckpointError(ValueError):
    """A file is not a checkpoint, or does not fit the model; the message names the file and the reason."""


@dataclass(frozen=True)
class Mismatch:
    """An entry of both state dicts with different shapes or kinds.

    Attributes:
        name: Name of the entry.
        found: Kind and shape in the file.
        expected: Kind and shape in the model.
    """

    name: str
    found: str
    expected: str


@dataclass(frozen=True)
class StateDictReport:
    """Comparison of weights with a model by name, shape and kind (floating-point or integer).

    Attributes:
        missing: Entries of the model only.
        unexpected: Entries of the weights only.
        mismatched: Entries of both, with different shapes or kinds.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]

    @property
    def fits(self) -> bool:
        """Whether all entries match."""
        return not (self.missing or self.unexpected or self.mismatched)

    def describe(self) -> str:
        """Summarize as counts with the first few names."""
        if self.fits:
            return "all entries fit"
        wrong = [f"{m.name} (found {m.found}, expected {m.expected})" for m in self.mismatched]
        parts = {"missing": self.missing, "unexpected": self.unexpected, "of another shape or kind": wrong}
        return "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in parts.items() if names)


@dataclass(frozen=True)
class StartReport:
    """Result of initializing a part of a model from other weights.

    Attributes:
        set: Model entries set from the file.
        fresh: Model entries left as initialized.
        ignored: File entries without a counterpart in the model.
    """

    set: tuple[str, ...]
    fresh: tuple[str, ...]
    ignored: tuple[str, ...]

    def describe(self) -> str:
        """Summarize as counts with the first few names."""
        parts = [f"{len(self.set)} entries set"]
        if self.fresh:
            parts.append(f"{len(self.fresh)} left fresh: {_first(self.fresh)}")
        if self.ignored:
            parts.append(f"{len(self.ignored)} of the file ignored: {_first(self.ignored)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class CheckpointInfo:
    """Contents of a checkpoint file.

    Attributes:
        num_entries: Number of entries of the state dict.
        num_values: Number of values in all entries.
        dtypes: Names of the entries' dtypes.
        metadata: Strings and numbers next to the state dict.
        other_keys: Other keys next to the state dict.
    """

    num_entries: int
    num_values: int
    dtypes: tuple[str, ...]
    metadata: Mapping[str, str | int | float]
    other_keys: tuple[str, ...]


def read_checkpoint(path: StrPath) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint.

    Args:
        path: Path of a file, or an https address. An address may end in ``#sha256=`` and the file's checksum, see
            ``i2v.download.fetch``.

    Returns:
        Tensors by name, on the CPU, memory-mapped if the file's format allows it.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is not a checkpoint, is damaged, has another layout, could only be read by running
            code, or cannot be downloaded.
    """
    return state_dict_of(read_content(path), path)


def read_checkpoint_info(path: StrPath) -> CheckpointInfo:
    """Summarize a checkpoint file or address. Raises the errors of ``read_checkpoint``."""
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
    """Read a file that contains nothing but a state dict.

    Args:
        path: Path of a file, or an https address.
        whose: Name of the model for messages, such as "TinySAM".

    Returns:
        Tensors by name, as in ``read_checkpoint``.

    Raises:
        CheckpointError: If it is not a state dict; other errors are those of ``read_checkpoint``.
    """
    content = read_content(path)
    if not _is_state_dict(content):
        raise CheckpointError(f"{path}: expected {whose}'s bare state dict, got {_outline(content)}")
    return content


def compare_state_dict(model: nn.Module, weights: Mapping[str, Tensor]) -> StateDictReport:
    """Compare weights with a model by name, shape and kind. All floating-point dtypes are of the same kind."""
    entries = model.state_dict()
    return StateDictReport(
        missing=tuple(name for name in entries if name not in weights),
        unexpected=tuple(name for name in weights if name not in entries),
        mismatched=tuple(
            Mismatch(name, found=_form(weights[name]), expected=_form(entry))
            for name, entry in entries.items()
            if name in weights and _form(weights[name]) != _form(entry)
        ),
    )


def load_checkpoint(model: nn.Module, path: StrPath) -> None:
    """Load a checkpoint into a model. All entries must match; values are converted to the model's dtypes.

    Args:
        model: The model; unchanged if an error is raised.
        path: Path of a file, or an https address.

    Raises:
        CheckpointError: If entries are missing, unexpected or mismatched; other errors are those of
            ``read_checkpoint``.
    """
    weights = read_checkpoint(path)
    check_fit(model, weights, path)
    model.load_state_dict(weights)
    log.info("loaded %d entries from %s", len(weights), path)


def check_fit(model: nn.Module, weights: Mapping[str, Tensor], path: StrPath) -> None:
    """Check that weights fit a model.

    Args:
        model: The model.
        weights: Tensors by name.
        path: Path or address of the weights, for messages.

    Raises:
        CheckpointError: If entries are missing, unexpected or mismatched; the message names them.
    """
    report = compare_state_dict(model, weights)
    if not report.fits:
        expected = f"{type(model).__name__} with {len(model.state_dict())} entries"
        raise CheckpointError(f"checkpoint {path} does not fit this {expected}: {report.describe()}")


def load_tinysam(model: nn.Module, path: StrPath) -> StartReport:
    """Initialize a model's image trunk, prompt encoder and mask decoder from TinySAM's weights.

    Args:
        model: The model; unchanged if an error is raised.
        path: Path or address of TinySAM's file, a bare state dict.

    Returns:
        Which entries were set, left fresh and ignored.

    Raises:
        CheckpointError: If no entry belongs to the model, or one has another shape; other errors are those of
            ``read_checkpoint``.
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
    dtype: torch.dtype | str | None = None,
    **metadata: str | int | float,
) -> None:
    """Write a checkpoint file atomically.

    Args:
        model: The model, or tensors by name.
        path: Path of the file.
        dtype: Dtype of floating-point entries, for example float16 to halve the size; by default their own.
        **metadata: Strings and numbers to store next to the state dict.

    Raises:
        ValueError: If ``dtype`` is not float32, bfloat16 or float16, or a name of these.
        CheckpointError: If a value overflows in ``dtype``.
        DiskFullError: If the disk is full.
        OSError: If the file cannot be written otherwise.
    """
    weights = model.state_dict() if isinstance(model, nn.Module) else model
    target = None if dtype is None else parse_dtype(dtype)
    stored = {name: _stored(name, tensor.detach(), target) for name, tensor in weights.items()}
    save_atomically({"model": stored, **metadata}, path)


def save_atomically(content: Any, path: StrPath) -> None:
    """``torch.save`` to a path that always contains either the old file or the complete new one.

    Args:
        content: What to save.
        path: Path of the file.

    Raises:
        DiskFullError: If the disk is full.
        OSError: If the file cannot be written otherwise.
    """
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                # torch only reports an incomplete archive; the cause is in its context.
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def read_content(path: StrPath, mapped: bool = True) -> dict[Any, Any]:
    """Read everything in a checkpoint file or address, on the CPU.

    Args:
        path: Path of a file, or an https address.
        mapped: Whether to memory-map tensors, if the file's format allows it.

    Returns:
        The top-level dictionary.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If it cannot be read; see ``read_checkpoint``.
    """
    file = _local(path)
    head = _head(file)
    is_archive = head.startswith(_ZIP_MAGIC)
    try:
        check_archive(file) if is_archive else check_pickles(file)
        # Memory mapping avoids reading the optimizer state of training checkpoints, two thirds of the file.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped and is_archive)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_needs_code(path, str(error))) from error
    except MemoryError:
        raise
    except Exception as error:  # torch does not document its errors on corrupt or truncated files
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
    """Read the first bytes of a file, checking that it can be a checkpoint."""
    if file.is_dir():
        raise CheckpointError(f"{file} is a folder, expected a checkpoint file")
    if not file.exists():
        raise FileNotFoundError(f"checkpoint {file} does not exist (looked in {file.parent.absolute()})")
    if not file.is_file():
        raise CheckpointError(f"{file} is no regular file, expected a checkpoint file")  # a pipe could block forever
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
    """Return the state dict in a checkpoint's content.

    Args:
        content: The top-level dictionary.
        path: Path of the file, for messages.

    Raises:
        CheckpointError: If the checkpoint has another layout.
    """
    weights = content.get("model")
    if isinstance(weights, dict) and _is_state_dict(weights):
        return weights
    if "model" in content:
        raise CheckpointError(f"{path}: expected a state dict under 'model', got {_outline(weights)}")
    if _is_state_dict(content):
        raise CheckpointError(f"{path} is a bare state dict ({_first(content)}), expected it under the key 'model'")
    if "lora" in content:
        raise CheckpointError(
            f"{path} has adapters alone, expected whole weights: best.pt beside it has them merged, and "
            "train.lora.merge_adapters works them into the weights that they were trained on"
        )
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
    """Translate the name of a TinySAM entry; ``None`` if the model does not use it."""
    for theirs, ours in _TINYSAM_PREFIXES.items():
        if name.startswith(theirs):
            if theirs == "mask_decoder.":
                for old, new in _TINYSAM_MLP.items():
                    name = name.replace(old, new)
            return ours + name.removeprefix(theirs)
    return None


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not tensor.is_floating_point():
        return tensor.cpu().clone()  # torch.save would store a view with its whole storage
    converted = tensor.to("cpu", dtype, copy=True)
    if bool(tensor.isfinite().all()) and not bool(converted.isfinite().all()):
        raise CheckpointError(f"{name}: values up to {tensor.abs().max().item():.3g} do not fit {dtype}")
    return converted
