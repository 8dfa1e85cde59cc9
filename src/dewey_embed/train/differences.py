"""A recipe's values then and now → what differs: why targets or a run are not this recipe's."""

from __future__ import annotations

from typing import Any


def differences(before: Any, after: Any, name: str = "") -> str:
    """What differs between two recipes' values, as `key: before, now after`; "" if nothing does.

    A key that one of them lacks is of a later version: it differs only where it does something, for
    hours of teaching and training must outlive an upgrade. So a new key is off at 0, None or empty.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        found = [
            differences(before.get(key), after.get(key), f"{name}.{key}" if name else key)
            for key in sorted(before.keys() | after.keys())
            if (key in before and key in after) or before.get(key) or after.get(key)
        ]
        return "; ".join(part for part in found if part)
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        items = [differences(old, new, f"{name}[{place}]") for place, (old, new) in pairs]
        return "; ".join(part for part in items if part)
    return "" if before == after else f"{name}: {before}, now {after}"
