"""The JSON objects that runs keep, read back: a fault is one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dewey_embed.errors import RunError


def read_object(path: Path, *, keys: Sequence[str] = (), remedy: str) -> dict[str, Any]:
    """The object in a JSON file, which must have the `keys`; `remedy` ends what an error says.

    Raises:
        RunError: the file is missing, unreadable, no JSON, no object, or lacks a key.

    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: holds a JSON {type(value).__name__}, not an object; {remedy}")
    if lacking := [key for key in keys if key not in value]:
        raise RunError(f"{path}: lacks {', '.join(lacking)}; {remedy}")
    return value
