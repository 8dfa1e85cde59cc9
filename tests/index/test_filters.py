"""Filters: exactly the documents whose metadata they describe, and the values that there are."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed.errors import InputError
from dewey_embed.index.filters import COMPARISONS, filter_mask, metadata_values
from dewey_embed.index.tables import canonical

numbers = st.integers(-3, 3) | st.sampled_from([-0.5, 0.0, 0.5, 1.0, 2.5])
texts = st.sampled_from(["", "2", "2024-01-31", "2024-02", "Z", "é", "\N{GRINNING FACE}"])
values = numbers | texts | st.booleans() | st.none()
documents = st.lists(st.dictionaries(st.sampled_from("ab"), values, max_size=2), max_size=12)
ranges = st.one_of(
    st.dictionaries(st.sampled_from(list(COMPARISONS)), bounds, min_size=1)
    for bounds in (numbers, texts)
)
conditions = values | ranges | st.lists(values | ranges, min_size=1, max_size=3)


def column(metadata):
    """The column of a layout that holds the metadata of documents."""
    pairs = [[(key, canonical(value)) for key, value in each.items()] for each in metadata]
    return pa.chunked_array([pa.array(pairs, pa.map_(pa.string(), pa.string()))])


def passes(value, condition):
    """Whether a value matches a condition, by the words of the documentation."""
    if isinstance(condition, list):
        return any(passes(value, each) for each in condition)
    if not isinstance(condition, dict):
        return isinstance(value, bool) == isinstance(condition, bool) and value == condition
    kinds = (str,) if isinstance(next(iter(condition.values())), str) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    low = all(value >= bound for name, bound in condition.items() if name == ">=")
    above = all(value > bound for name, bound in condition.items() if name == ">")
    high = all(value <= bound for name, bound in condition.items() if name == "<=")
    below = all(value < bound for name, bound in condition.items() if name == "<")
    return low and above and high and below


@settings(deadline=None)
@given(documents, st.dictionaries(st.sampled_from("ab"), conditions, min_size=1))
def test_exactly_the_documents_that_match_every_condition_pass(metadata, where):
    keys = {key for each in metadata for key in each}
    if metadata and not keys >= where.keys():
        with pytest.raises(InputError, match="no document has metadata"):
            filter_mask(column(metadata), where)
        return
    assert filter_mask(column(metadata), where).tolist() == [
        all(passes(each.get(key), condition) for key, condition in where.items())
        for each in metadata
    ]


@settings(deadline=None)
@given(documents)
def test_the_values_of_a_key_are_counted_most_first(metadata):
    held = [canonical(each["a"]) for each in metadata if "a" in each]
    if not held:
        with pytest.raises(InputError, match="no document has metadata 'a'"):
            metadata_values(column(metadata), "a")
        return
    counted = metadata_values(column(metadata), "a")
    assert {json.dumps(value): number for value, number in counted} == {
        text: held.count(text) for text in held
    }
    assert [number for _, number in counted] == sorted((n for _, n in counted), reverse=True)
