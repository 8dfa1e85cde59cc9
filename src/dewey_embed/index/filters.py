"""Filters: which documents have the metadata that a search asks for, and the values there are."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from dewey_embed.errors import InputError
from dewey_embed.index.tables import canonical, is_comparable
from dewey_embed.types import Bound, Filter, Mask, MetadataValue, Range

MAX_FILTER_VALUES = 100_000

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def filter_mask(metadata: Any, where: Filter) -> Mask:
    """Which documents (N,) have, for every key, a value that the filter lets pass.

    `metadata` is the documents' column of maps from keys to values in JSON. `None` matches a
    document without the key, too.

    Raises:
        InputError: no document has such a key (those there are are named), or a value or range is
            nothing that metadata can hold.
        TypeError: the filter is not a mapping.

    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(where, Mapping):
        raise TypeError(f"filter is {type(where).__name__}, not a dict of keys and values")
    metadata = metadata.combine_chunks()
    wanted = {key: _conditions(key, value) for key, value in where.items()}
    known = set(pc.unique(metadata.keys).to_pylist()) if len(metadata) else set(where)
    mask = np.ones(len(metadata), np.bool_)
    for key, (values, ranges) in wanted.items():
        _require_known(key, known)
        held = pc.map_lookup(metadata, key, "first")
        accepted = {canonical(value) for value in values}
        if ranges:
            texts = pc.unique(held).drop_null().to_pylist()
            accepted |= {text for text in texts if _is_within(json.loads(text), ranges)}
        passing = pc.is_in(held, value_set=pa.array(sorted(accepted), pa.string()))
        if None in values:
            passing = pc.or_(passing, pc.is_null(held))
        mask &= passing.to_numpy(zero_copy_only=False)
    return mask


def metadata_values(metadata: Any, key: str) -> list[tuple[MetadataValue, int]]:
    """The values that documents have under a key, with their numbers of documents, most first.

    Raises:
        InputError: no document has such a key; those there are are named.

    """
    import pyarrow.compute as pc

    metadata = metadata.combine_chunks()
    _require_known(key, set(pc.unique(metadata.keys).to_pylist()))
    held = pc.map_lookup(metadata, key, "first").drop_null()
    counts = [(each["counts"], each["values"]) for each in pc.value_counts(held).to_pylist()]
    counts.sort(key=lambda each: (-each[0], each[1]))
    return [(json.loads(text), number) for number, text in counts]


def _require_known(key: str, known: Iterable[str]) -> None:
    if key not in known:
        raise InputError(
            f"no document has metadata {key!r} to filter by; "
            f"known: {', '.join(sorted(known)) or 'none'}"
        )


def _conditions(key: str, value: Any) -> tuple[list[MetadataValue], list[Range]]:
    """The values and the ranges of which a document must match one.

    Raises:
        InputError: there are none, or one is nothing that metadata can hold.

    """
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    given = list(islice(value, MAX_FILTER_VALUES + 1)) if several else [value]
    if len(given) > MAX_FILTER_VALUES:
        raise InputError(
            f"filter {key!r} has more than {MAX_FILTER_VALUES:,} values; give a range such as "
            '{">=": 2020, "<": 2025}, or narrow it'
        )
    if not given:
        raise InputError(f"filter {key!r} has no value; leave it out, or give at least one")
    given = [each.item() if isinstance(each, np.generic) else each for each in given]
    ranges = [_range(key, each) for each in given if isinstance(each, Mapping)]
    values = [each for each in given if not isinstance(each, Mapping)]
    for each in values:
        if not isinstance(each, str | int | float | bool | None):
            raise InputError(
                f"filter {key!r} has {each!r} ({type(each).__name__}); metadata holds str, int, "
                "float, bool and None"
            )
        _require_comparable(key, each)
    return values, ranges


def _range(key: str, bounds: Mapping[Any, Any]) -> Range:
    """A range with bounds that values can be compared with.

    Raises:
        InputError: an unknown comparison, no bound, one that has no order, or bounds of two kinds.

    """
    if not bounds or not all(name in COMPARISONS for name in bounds):
        raise InputError(
            f"filter {key!r} is {dict(bounds)!r}; a range is a dict of the comparisons "
            f'{", ".join(COMPARISONS)}, such as {{">=": 2020, "<": 2025}}'
        )
    plain: Range = {
        name: each.item() if isinstance(each, np.generic) else each for name, each in bounds.items()
    }
    for bound in plain.values():
        if isinstance(bound, bool) or not isinstance(bound, str | int | float):
            raise InputError(
                f"filter {key!r} has the bound {bound!r} ({type(bound).__name__}); ranges compare "
                "numbers with numbers, and text such as ISO dates with text"
            )
        _require_comparable(key, bound)
    if len({isinstance(bound, str) for bound in plain.values()}) > 1:
        raise InputError(
            f"filter {key!r} is {plain!r}; the bounds of a range are all numbers or all text"
        )
    return plain


def _require_comparable(key: str, value: MetadataValue) -> None:
    if not is_comparable(value):
        raise InputError(
            f"filter {key!r} has a number that is not finite or past 64 bits, which metadata "
            "never holds"
        )


def _is_within(value: MetadataValue, ranges: Iterable[Range]) -> bool:
    """Whether a value is of the kind of a range's bounds, and within them."""
    return any(
        all(
            _is_of_one_kind(value, bound) and COMPARISONS[name](value, bound)
            for name, bound in bounds.items()
        )
        for bounds in ranges
    )


def _is_of_one_kind(value: MetadataValue, bound: Bound) -> bool:
    """Whether both are text, or both numbers; true and false have no order."""
    if isinstance(value, bool) or value is None:
        return False
    return isinstance(value, str) == isinstance(bound, str)
