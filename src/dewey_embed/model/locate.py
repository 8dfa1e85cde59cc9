"""What a user calls a model → the folder that holds it: the embedded default, a path, a hub id."""

from __future__ import annotations

import stat
from importlib.resources import files
from pathlib import Path

from dewey_embed.errors import CheckpointError
from dewey_embed.model.folder import complete

EMBEDDED = "mini"

# Only what we read: no pickles, no remote code.
HUB_FILES = ["*.json", "*.safetensors", "*/*.json", "*/*.safetensors"]


def locate_model(model: str | Path | None) -> tuple[str, Path]:
    """The model's name and its folder; `None` and `"mini"` are the embedded default.

    A Hugging Face id is fetched once and found in the hub's cache afterwards.

    Raises:
        CheckpointError: no such folder, and no such id in the cache or on the hub.

    """
    if model is None or model == EMBEDDED:
        return EMBEDDED, Path(str(files("dewey_embed"))) / "models" / EMBEDDED
    folder = expanded(Path(model))
    try:
        mode = folder.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{model}: cannot be looked at ({error})") from None
    if mode is not None:
        if not stat.S_ISDIR(mode):
            raise CheckpointError(f"{model}: is a file; give the folder that holds the model")
        return str(model), complete(folder)
    if isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise CheckpointError(
            f"{model}: no such folder; give a model folder, a Hugging Face id (owner/name), "
            "or nothing for the embedded default"
        )
    return model, _from_hub(model)


def expanded(path: Path) -> Path:
    """The path with `~` as the home folder; as it stands where there is no home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _from_hub(model_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, allow_patterns=HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{model_id}: neither a folder here, nor in the Hugging Face cache, nor reachable on "
            f"the hub ({reason}); without a network, copy the model's folder and give its path"
        ) from None
