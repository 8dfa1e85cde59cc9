"""A finished model folder → a repository of the Hugging Face hub, in one commit.

What is sent is named beforehand, file by file, and is nothing but a model: a folder that holds
anything else is refused, so that no optimiser's state and nobody's notes are published.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dewey_embed.encoder import Dewey
from dewey_embed.errors import DeweyError, HubError, first_line
from dewey_embed.model.folder import (
    AXES_FILE,
    CHECKSUMS_FILE,
    HISTORY_FILE,
    SAVED,
    SETTINGS_FILE,
    expanded,
    in_run,
    why_no_model,
)
from dewey_embed.printable import first_few
from dewey_embed.train.card import CARD
from dewey_embed.train.start import STAMP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import CommitInfo, HfApi

MODEL_FILES = (
    "config.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "modules.json", SETTINGS_FILE, "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "model.safetensors", "model-*-of-*.safetensors",
    "model.safetensors.index.json", "[0-9]_*/config.json", "[0-9]_*/model.safetensors",
    AXES_FILE, CHECKSUMS_FILE, HISTORY_FILE, CARD, "LICENSE*", "NOTICE*", "*.png", "*.svg",
)  # fmt: skip
"""Names of the files that make up a model, its card and its licence."""

MOST_NAMED = 5

OF_STATUS = {
    401: "the hub does not know the token; make a new one at huggingface.co/settings/tokens and "
    "set HF_TOKEN, or run `hf auth login`",
    403: "the token may not write there; give one with the right to write to this namespace",
    404: "there is no such namespace, or the token may not see it",
}
"""What is wrong by the status of the hub's answer, and what to do."""


class SentFile(NamedTuple):
    """A file as it is named in the repository, where it lies, and its size in bytes."""

    name: str
    path: Path
    size: int


def files_to_push(folder: Path) -> list[SentFile]:
    """All files that a push of this model would send, sorted; the folder of a run has its model's.

    Raises:
        HubError: the folder is not a finished Dewey model, has no card with a licence, or holds
            what is not part of a model.
        CheckpointError: it cannot be loaded.

    """
    folder = _model_folder(folder)
    files = [
        SentFile(path.relative_to(folder).as_posix(), path, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_hidden(path.relative_to(folder))
    ]
    others = [each.name for each in files if not _is_of_a_model(each.name)]
    if others:
        raise HubError(
            f"{folder}: holds {first_few(others, MOST_NAMED)}, which no model needs; move "
            "what training left there elsewhere, so that it is not published"
        )
    _require_licence(folder / CARD)
    Dewey.load(folder).encode("A sentence shows that the weights are there and finite.")
    return files


def push(files: Sequence[SentFile], repository: str, *, private: bool = False) -> str:
    """The address of the one commit with these files; the repository is made if need be.

    The token is that of HF_TOKEN or of `hf auth login`. Nothing is sent to a repository that is
    public where `private` is wanted.

    Raises:
        HubError: there is no token, the hub cannot be reached, or it refuses.

    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    require_repository_id(repository)
    if get_token() is None:
        raise HubError("no token for the hub; set HF_TOKEN, or run `hf auth login`")
    api = HfApi(library_name="dewey-embed")
    with _explained(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private:
            _require_private(api, repository)
        # Not upload_folder: it sends what it finds, and a large folder in several commits.
        commit: CommitInfo = api.create_commit(
            repository,
            [CommitOperationAdd(each.name, each.path) for each in files],
            commit_message="Push a Dewey model",
        )
    return str(commit.commit_url)


def require_repository_id(repository: str) -> None:
    """Refuse what is not the name of a repository.

    Raises:
        HubError: it is not NAMESPACE/NAME, or holds characters that the hub does not take.

    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
        fits = "/" in repository
    except HFValidationError:
        fits = False
    if not fits:
        raise HubError(
            f"{repository}: cannot be a repository; give NAMESPACE/NAME (you or an organisation, "
            "and the model) of letters, digits and - _ . between them, at most 96 in all"
        )


def _model_folder(folder: Path) -> Path:
    """The model's own folder: this one, or that of the run in it.

    Raises:
        HubError: there is none, or it was never finished.

    """
    given, folder = folder, in_run(expanded(folder))
    if why := why_no_model(folder):
        raise HubError(f"{given}: {why}")
    if not (folder / SETTINGS_FILE).is_file():
        raise HubError(
            f"{folder}: has no {SETTINGS_FILE}, so it is not a model that Dewey has saved; save it "
            f"with Dewey.load({str(folder)!r}).save(…) and push that folder"
        )
    if (folder / SAVED).exists():
        raise HubError(f"{folder}: saving was interrupted; save the model there again")
    if (folder / STAMP).exists():
        raise HubError(f"{folder}: is the untrained start of a run; push the model/ beside it")
    return folder


def _is_hidden(name: Path) -> bool:
    """Whether a file, or a folder that it lies in, is hidden: `.git`, `.gitattributes`."""
    return any(part.startswith(".") for part in name.parts)


def _is_of_a_model(name: str) -> bool:
    """Whether a file is part of a model; a pattern's star crosses no folder."""
    return any(
        fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
        for pattern in MODEL_FILES
    )


def _require_licence(path: Path) -> None:
    """Refuse a model without a card, or with one that names no licence."""
    from huggingface_hub import ModelCard

    remedy = "write one that begins with ---, license: apache-2.0 (or another) and ---"
    try:
        licence = ModelCard.load(path).data.get("license") if path.is_file() else None
    except Exception as error:  # of the file, of YAML, and of the hub's own checks of it
        raise HubError(
            f"{path}: the card cannot be read ({first_line(error.__cause__ or error)}); {remedy}"
        ) from None
    if not licence:
        state = "names no licence" if path.is_file() else "is not there"
        raise HubError(f"{path}: the model's card {state}; {remedy}")


def _require_private(api: HfApi, repository: str) -> None:
    """Refuse a repository that was there before and is public."""
    if not api.model_info(repository).private:
        raise HubError(
            f"{repository}: is there already and is public; nothing was sent. Make it private in "
            "its settings, or leave out --private"
        )


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """One line for whatever goes wrong between here and the hub; tokens are in none of them."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except DeweyError:
        raise
    except OfflineModeIsEnabled:
        raise HubError(
            f"{repository}: the hub is not called while HF_HUB_OFFLINE is set; unset it"
        ) from None
    except HfHubHTTPError as error:
        raise HubError(f"{repository}: {_refusal(error)}") from None
    except Exception as error:  # the hub's client, its HTTP and its uploads have their own kinds
        reason = first_line(error.__cause__ or error)
        raise HubError(
            f"{repository}: the hub cannot be reached, or broke off ({reason}); look "
            "at the network and push again: what was sent already is not sent twice"
        ) from None


def _refusal(error: Any) -> str:
    """Why the hub refuses, in its words and ours."""
    status = error.response.status_code
    said = error.server_message or ""
    reason = OF_STATUS.get(status, "try again later, or look at status.huggingface.co")
    return f"the hub answers {status}{f' ({said.splitlines()[0]})' if said else ''}: {reason}"
