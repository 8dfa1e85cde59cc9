"""JSON files of a model folder, read into typed values: each fault is one line that names the file.

Foreign files carry more than concerns us, so unknown keys are passed over; a known key of another
type is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dewey_embed.config import describe
from dewey_embed.errors import CheckpointError

Json = dict[str, Any]

FETCH = "fetch or save it again"


class JsonFile(BaseModel):
    """Base of what is read of a foreign file."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


File = TypeVar("File", bound=JsonFile)


def read_json(path: Path, *, missing_ok: bool = False) -> Json:
    """The file's JSON object; an empty one where the file may be missing and is.

    Raises:
        CheckpointError: the file is missing, unreadable, no JSON, or no object.

    """
    values = read_any_json(path, missing_ok=missing_ok)
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path}: holds a JSON {type(values).__name__}, expected an object; {FETCH}"
        )
    return values


def read_any_json(path: Path, *, missing_ok: bool = False) -> Any:
    """The file's JSON, of any kind; an empty object where the file may be missing and is.

    Raises:
        CheckpointError: the file is missing, unreadable, or no JSON.

    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise CheckpointError(f"{path}: no such file; is {path.parent} a model folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); {FETCH}") from None


def parse(kind: type[File], values: Any, path: Path) -> File:
    """What `kind` reads of a file's values.

    Raises:
        CheckpointError: naming each key of another type.

    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {describe(error, kind)}; {FETCH}") from None


def read_file(kind: type[File], path: Path, *, missing_ok: bool = False) -> File:
    """What `kind` reads of the JSON object in a file.

    Raises:
        CheckpointError: as `read_json` and `parse` say.

    """
    return parse(kind, read_json(path, missing_ok=missing_ok), path)
