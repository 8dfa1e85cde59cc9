"""The training runs that a model went through, oldest first: kept in its folder, told in its card.

Training that goes on from a model is the second half of that model's hours and data, not all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dewey_embed.errors import CheckpointError

HISTORY_FILE = "dewey_training.json"

KEPT = ("command", "steps", "tokens", "train_hours", "machine")
"""What a history keeps of the result of a run."""


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """The runs of the model in a folder; none where it says nothing of any.

    Raises:
        CheckpointError: its history is damaged.

    """
    path = folder / HISTORY_FILE
    if not path.exists():
        return []
    try:
        return [{key: run[key] for key in KEPT} for run in json.loads(path.read_bytes())]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: is no history of training runs ({error!r}); mend it, or remove it and the "
            "runs before will not be told"
        ) from None


def with_run(before: list[dict[str, Any]], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The history of a model after one more run."""
    return [*before, {key: result[key] for key in KEPT}]
