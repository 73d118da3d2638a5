"""Models of the Hugging Face hub: fetched from it, saved in its form, pushed to it. Needs the extra ``[hub]``.

A model is a folder with ``model.pt``, a checkpoint, and ``config.yaml``, its config. Both are read as any file of a
stranger's: no code runs, and the config may only name what ``i2v.config_trust`` allows.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v.errors import brief, describe_error
from i2v.utils.files import replacing
from i2v.utils.output_folder import own_folder

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from i2v.modeling.i2v_model import I2VModel

CONFIG_NAME, WEIGHTS_NAME = "config.yaml", "model.pt"
WEIGHTS_SUFFIXES = (".pt", ".pth")
_PART = r"[A-Za-z0-9][\w.-]*"
_ID = re.compile(rf"{_PART}/{_PART}", re.ASCII)


@dataclass(frozen=True)
class HubOptions:
    """Where a model of the hub is looked for. Names and defaults are those of ``huggingface_hub``.

    Attributes:
        revision: Branch, tag or commit; by default the main branch.
        cache_dir: Folder of the cache.
        token: Access token; by default the one that was stored by logging in.
        local_files_only: Whether to look into the cache alone.
    """

    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = None
    local_files_only: bool = False


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a model's id on the hub, ``OWNER/NAME``."""
    return _ID.fullmatch(name) is not None


def fetch_from_hub(model_id: str, options: HubOptions) -> Path:
    """Fetch a model into the hub's cache, or find it there.

    Args:
        model_id: Its id, ``OWNER/NAME``.
        options: Where to look.

    Returns:
        The folder with its files.

    Raises:
        RuntimeError: If ``huggingface_hub`` is not installed.
        FileNotFoundError: If there is no such model, or it cannot be fetched.
    """
    hub = _import_hub()
    patterns = [CONFIG_NAME, *(f"*{suffix}" for suffix in WEIGHTS_SUFFIXES)]
    try:
        return Path(hub.snapshot_download(model_id, allow_patterns=patterns, **asdict(options)))
    except Exception as error:  # those of its HTTP client, too, which derive from nothing else
        where = "the cache of the Hugging Face hub" if options.local_files_only else "the Hugging Face hub"
        raise FileNotFoundError(
            f"{model_id}: no file or folder of this name in {Path.cwd()}, and not obtained from {where}: "
            f"{describe_error(error, 300)}"
        ) from error


def save_pretrained(
    model: I2VModel,
    config: DictConfig | None,
    folder: str | os.PathLike[str],
    overwrite: bool = False,
    dtype: torch.dtype | str | None = None,
) -> Path:
    """Save a model as a folder that ``from_pretrained`` reads.

    Args:
        model: The network.
        config: The config that it was built from.
        folder: The folder; created if necessary. Other files in it stay.
        overwrite: Whether to replace a model that is there.
        dtype: Dtype of the weights in the file, for example float16 to halve its size, as such or by name; by default
            their own.

    Returns:
        The folder.

    Raises:
        ValueError: If the config is unknown, ``dtype`` is none of a model, or a weight overflows in it.
        FileExistsError: If a model is there and ``overwrite`` is false.
        OSError: If a file cannot be written.
    """
    from omegaconf import OmegaConf

    from i2v.checkpoint import save_checkpoint

    if config is None:
        raise ValueError(
            "the config of this model is unknown, because it was not built by one of the builders: save its weights "
            "alone with i2v.checkpoint.save_checkpoint"
        )
    target = own_folder(Path(folder))
    if not overwrite and (there := [name for name in (CONFIG_NAME, WEIGHTS_NAME) if (target / name).exists()]):
        raise FileExistsError(f"{target} has a {' and a '.join(there)} already: give another folder, or overwrite=True")
    text = OmegaConf.to_yaml(OmegaConf.masked_copy(config, ["model", "predictor"]), resolve=True)
    save_checkpoint(model, target / WEIGHTS_NAME, dtype=dtype)
    with replacing(target / CONFIG_NAME) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def push_to_hub(
    model: I2VModel,
    config: DictConfig | None,
    repo_id: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a model of i2v",
    dtype: torch.dtype | str | None = None,
) -> str:
    """Save a model on the hub, in a repository that is created if necessary.

    Args:
        model: The network.
        config: The config that it was built from.
        repo_id: The repository, ``OWNER/NAME``.
        private: Whether a new repository is private.
        token: Access token; by default the one that was stored by logging in.
        revision: Branch to push to; by default the main one.
        commit_message: Message of the commit.
        dtype: See ``save_pretrained``.

    Returns:
        Address of the commit.

    Raises:
        RuntimeError: If ``huggingface_hub`` is not installed.
        ValueError: If the id is malformed or the config unknown.
        OSError: If the hub refuses, or cannot be reached.
    """
    if not is_hub_id(repo_id):
        raise ValueError(f"repo_id: expected OWNER/NAME, got {brief(repo_id)}")
    hub = _import_hub()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, config, folder, dtype=dtype)
        api = hub.HfApi(token=token)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )
        except Exception as error:  # as above
            text = describe_error(error, 300)
            raise ConnectionError(f"{repo_id}: not pushed to the Hugging Face hub: {text}") from error
    return str(getattr(commit, "commit_url", commit))


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise RuntimeError("models of the Hugging Face hub need huggingface_hub: pip install 'i2v[hub]'") from error
    return huggingface_hub
