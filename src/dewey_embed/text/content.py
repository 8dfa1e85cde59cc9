"""What a reader of one format gives: the text, the title, and counts of what it left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Content(NamedTuple):
    """What a file says: its text, its title if it names one, and what of it was not read."""

    text: str
    title: str = ""
    unread: Mapping[str, int] = {}
