"""Groups: greedy, in order, and the same ones again after any of them was committed."""

from hypothesis import given
from hypothesis import strategies as st

from dewey_embed.index.changes import Changes, Held
from dewey_embed.index.tables import Details
from dewey_embed.types import Document


def documents(sizes):
    return [Document(id=f"d{number}", text="x" * size) for number, size in enumerate(sizes)]


def ids(groups):
    return [[each.document.id for each in group] for group in groups]


def held(groups):
    """What an index holds that these groups were written to."""
    return {
        each.document.id: Held(each.hash, Details.of(each.document, each.places))
        for group in groups
        for each in group
    }


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 50), st.data())
def test_after_any_commit_the_rest_are_the_same_groups(sizes, limit, data):
    whole = list(Changes({}).groups(documents(sizes), limit))
    committed = data.draw(st.integers(0, len(whole)))
    hashes = held(whole[:committed])
    changes = Changes(hashes)
    assert list(changes.groups(documents(sizes), limit)) == whole[committed:]
    assert changes.num_unchanged == len(hashes)
    assert changes.num_unchanged + len(changes.added) == len(sizes)


def test_a_group_is_full_or_one_large_document():
    assert ids(Changes({}).groups(documents([4, 5, 2, 20, 1]), 10)) == [
        ["d0", "d1"],
        ["d2"],
        ["d3"],
        ["d4"],
    ]


def test_new_changed_unchanged_and_repeated_are_told_apart():
    old = documents([1, 2, 3])
    again = [*documents([1, 9, 3, 4]), Document(id="d3", text="xxxx"), Document(id="d3", text="!")]
    changes = Changes(held(Changes({}).groups(old)))
    assert ids(changes.groups(again)) == [["d1", "d3"]]
    assert (changes.added, changes.changed, changes.num_unchanged) == (["d3"], ["d1"], 2)
    assert [refused.document.text for refused in changes.refused] == ["!"]
    assert "d2" in changes.seen
    assert "d4" not in changes.seen
