"""What an exported model says of itself: sizes, files, and the numbers that the loop around its parts needs.

It is a JSON file beside the parts. PyTorch is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from i2v.errors import InvalidFileError
from i2v.utils.json_file import JsonValue, read_json

FORMAT = "i2v-export"
VERSION = 1
FILE_NAME = "model.json"
PART_NAMES = ("stem", "image_encoder", "memory_attention", "mask_decoder", "memory_encoder")
TARGETS = {"onnx": ".onnx", "torch.export": ".pt2"}
"""Kinds of exported parts, and the suffix of their files."""

WEB = "web"
"""What the export of a page is called among the targets; its parts are those for ONNX."""

WEIGHT_TYPES = ("float32", "float16", "int8")
"""Types in which large weights can be stored."""

_LARGEST = (1 << 32) - 1


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model.

    Attributes:
        image_size: Side ``S`` of the model image in pixels.
        grid: Side ``h = w`` of the feature map.
        channels: Feature channels ``C``.
        memory_channels: Memory channels ``M``.
        window_length: Frames in the image encoder's window.
        memory_length: Memories that memory attention is given for each object, and as many pointers. Where an object
            has more, the number is doubled until they fit.
        num_queries: Prompt tokens that memory attention generates.
        num_high_res: Maps that the image encoder has for the mask decoder, 0 or 2.
    """

    image_size: int
    grid: int
    channels: int
    memory_channels: int
    window_length: int
    memory_length: int
    num_queries: int
    num_high_res: int


@dataclass(frozen=True)
class SelectionRules:
    """Which memories a frame attends to; see ``i2v.modeling.memory.selectors.SimilaritySelector``.

    Attributes:
        global_window: Length of the global window in frames.
        num_global: Memories selected from it.
        local_window: Length of the local window in frames.
        num_local: Memories selected from it.
        max_conditioning: Most conditioning frames; -1 for all.
        only_past_pointers: Whether object pointers of conditioning frames still to come are left out.
        mode: ``"sample"`` or ``"topk"``.
        seed: Seed of each object's draws, of 32 bits: the lower half of the configured one, which is all that counts.
    """

    global_window: int
    num_global: int
    local_window: int
    num_local: int
    max_conditioning: int
    only_past_pointers: bool
    mode: str
    seed: int


@dataclass(frozen=True)
class PromptRules:
    """How prompts are answered.

    Attributes:
        multimask: Whether ambiguous prompts choose among several masks at all.
        multimask_min_points: Fewest points for which they do.
        multimask_max_points: Most points for which they do; a box counts as two.
        fill_hole_area: Largest hole to fill, in low-res pixels.
        non_overlap: Whether each pixel of the output belongs to at most one object.
        refine: Whether points and boxes are answered again, on the mirrored frame and on a crop.
    """

    multimask: bool
    multimask_min_points: int
    multimask_max_points: int
    fill_hole_area: int
    non_overlap: bool
    refine: bool


@dataclass(frozen=True)
class Constants:
    """Learned numbers that the loop needs.

    Attributes:
        no_memory: ``(C,)``, added to the features of a frame without memory.
        no_memory_prompt: ``(C,)``, each prompt token of a frame without memory.
        no_object_pointer: ``(C,)``, the pointer of an absent object.
        mask_kernel: ``(16,)``, the convolution of stride 4 that brings a mask prompt to ``(4h, 4w)``, row by row.
        mask_bias: Its bias.
    """

    no_memory: tuple[float, ...]
    no_memory_prompt: tuple[float, ...]
    no_object_pointer: tuple[float, ...]
    mask_kernel: tuple[float, ...]
    mask_bias: float


@dataclass(frozen=True)
class PartFile:
    """A file of the export.

    Attributes:
        file: Its name in the folder.
        sha256: Its SHA-256, in hexadecimal.
    """

    file: str
    sha256: str


@dataclass(frozen=True)
class ModelDescription:
    """The description of an exported model.

    Attributes:
        name: The config that the model was built from.
        target: What the parts are, one of ``TARGETS``.
        weights: Type in which large weights are stored.
        sizes: Sizes of the model.
        selection: Which memories a frame attends to.
        prompts: How prompts are answered.
        constants: Learned numbers that the loop needs.
        parts: The files by part.
    """

    name: str
    target: str
    weights: str
    sizes: Sizes
    selection: SelectionRules
    prompts: PromptRules
    constants: Constants
    parts: Mapping[str, PartFile]

    def to_json(self) -> dict[str, Any]:
        """Return the description as values of JSON."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def read_description(folder: Path) -> ModelDescription:
    """Read the description of an exported model.

    Args:
        folder: The folder that ``i2v export`` made.

    Returns:
        The description. The parts are not read.

    Raises:
        FileNotFoundError: If there is no such folder, or no description in it.
        InvalidFileError: If it is damaged, or of another format.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        reason = "no such folder" if not folder.exists() else f"no exported model is there, as it has no {FILE_NAME}"
        raise FileNotFoundError(f"{folder}: {reason}: make one with `i2v export`")
    value = read_json(path)
    if value.member("format").text() != FORMAT or value.member("version").integer() != VERSION:
        value.fail(f"expected format {FORMAT} of version {VERSION}: export the model again with this version of i2v")
    target = value.member("target")
    if target.text() not in TARGETS:
        target.fail(f"expected one of {', '.join(TARGETS)}, got {target.text()!r}")
    sizes = Sizes(**_numbers(value.member("sizes"), Sizes))
    _check_sizes(value.member("sizes"), sizes)
    selection = value.member("selection")
    if selection.member("mode").text() not in ("sample", "topk"):
        selection.member("mode").fail('expected "sample" or "topk"')
    return ModelDescription(
        name=value.member("name").text(),
        target=target.text(),
        weights=value.member("weights").text(),
        sizes=sizes,
        selection=SelectionRules(**_numbers(selection, SelectionRules)),
        prompts=PromptRules(**_numbers(value.member("prompts"), PromptRules)),
        constants=_constants(value.member("constants"), sizes),
        parts={name: _part(value.member("parts").member(name)) for name in PART_NAMES},
    )


def _numbers(value: JsonValue, kind: type[Any]) -> dict[str, Any]:
    """Values for the fields of a dataclass of numbers, switches and texts."""
    readers: dict[Any, Callable[[JsonValue], Any]] = {
        "int": lambda v: v.integer(-1, _LARGEST),
        "bool": JsonValue.boolean,
        "str": JsonValue.text,
    }
    return {field.name: readers[field.type](value.member(field.name)) for field in fields(kind)}


def _check_sizes(value: JsonValue, sizes: Sizes) -> None:
    if sizes.image_size != 16 * sizes.grid or sizes.num_high_res not in (0, 2):
        value.fail("the sizes contradict each other")
    for field in fields(Sizes):
        if field.name != "num_high_res" and getattr(sizes, field.name) < 1:
            value.member(field.name).fail("expected at least 1")


def _constants(value: JsonValue, sizes: Sizes) -> Constants:
    def row(name: str, length: int) -> tuple[float, ...]:
        found = tuple(element.number() for element in value.member(name).elements())
        if len(found) != length:
            value.member(name).fail(f"expected {length} numbers, got {len(found)}")
        return found

    width = sizes.channels
    return Constants(
        no_memory=row("no_memory", width),
        no_memory_prompt=row("no_memory_prompt", width),
        no_object_pointer=row("no_object_pointer", width),
        mask_kernel=row("mask_kernel", 16),
        mask_bias=value.member("mask_bias").number(),
    )


def _part(value: JsonValue) -> PartFile:
    file = value.member("file").text()
    if Path(file).name != file or file.startswith("."):
        raise InvalidFileError(value.path, f"expected the name of a file in the same folder, got {file!r}", value.place)
    return PartFile(file, value.member("sha256").text())
