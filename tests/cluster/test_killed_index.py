"""An index as a killed run on a cluster leaves it: read as if complete, repaired by any writer."""

import json

import pytest

from dewey_embed import Dewey, Document, Index
from dewey_embed.cluster.encode import open_output
from dewey_embed.cluster.outputs import Making

TEXTS = {
    "a": "The tenant pays the rent. The owner mends the roof.",
    "b": "Ships carry timber over wide seas. Sailors sing while the wind is fair.",
    "c": "Moths eat wool and silk. They fly at night.",
}
DOCUMENTS = [Document(id=name, text=text) for name, text in TEXTS.items()]
OTHER = Document(id="b", text="Ships carry silk.")


@pytest.fixture(scope="module")
def model():
    return Dewey.load()


@pytest.fixture(scope="module")
def unbroken(model, tmp_path_factory):
    index = Index.open(tmp_path_factory.mktemp("one") / "my.index", model)
    index.add(DOCUMENTS)
    return index


def output(path, model):
    place = open_output(str(path), model, Making())
    return place, place.begin()


KILLED = {
    "after two groups with the same documents": [(DOCUMENTS, True), (DOCUMENTS[1:], True)],
    "after a group with a document twice": [([*DOCUMENTS, DOCUMENTS[1]], True)],
    "between the chunks and the documents of a second group": [
        (DOCUMENTS, True),
        (DOCUMENTS[1:], False),
    ],
    "with an older version between the two": [
        ([DOCUMENTS[1]], True),
        ([OTHER], True),
        (DOCUMENTS, True),
    ],
}


@pytest.fixture(params=KILLED)
def left(request, model, tmp_path):
    """An index as the workers' groups and the driver's commits leave it, without what tidies up."""
    path = tmp_path / "my.index"
    place, _ = output(path, model)
    for documents, with_documents in KILLED[request.param]:
        [written] = place.encode(model, documents, lambda _: lambda _: None).written
        if not with_documents:
            written = json.dumps({**json.loads(written), "documents": []})
        place.commit([written])
    return path


def assert_same(index, unbroken):
    assert (len(index), index.num_chunks) == (len(unbroken), unbroken.num_chunks)
    for query in ("who pays the rent?", "timber", "what eats silk?"):
        own, theirs = index.search(query), unbroken.search(query)
        assert [hit.document_id for hit in own] == [hit.document_id for hit in theirs]
        assert [hit.score for hit in own] == pytest.approx([hit.score for hit in theirs], abs=1e-6)
    assert {each.id: index.document(each.id).text for each in index.documents()} == TEXTS


def rows_in(path, table):
    import lance

    return lance.dataset(path / f"{table}.lance").count_rows()


@pytest.mark.parametrize("left", [name for name in KILLED if "older" not in name], indirect=True)
def test_it_is_read_as_if_complete(left, unbroken, model):
    """But for older versions, which may be found until the next run."""
    assert_same(Index.open(left, model), unbroken)


def test_dewey_index_repairs_it(left, unbroken, model):
    with Index.open(left, model) as index:
        assert index.add(DOCUMENTS).num_unchanged == 3
        assert_same(index, unbroken)
    assert rows_in(left, "documents") == 3
    assert rows_in(left, "chunks") == unbroken.num_chunks


def test_a_run_on_a_cluster_repairs_it(left, unbroken, model, request):
    place, held = output(left, model)
    if "older" in request.node.name:  # the sources say which of the two goes
        place.remove([place.digest(OTHER)])
    place.finish()
    assert {name: len(held.contents_of(name)) >= 1 for name in TEXTS} == dict.fromkeys(TEXTS, True)
    assert_same(Index.open(left, model), unbroken)
    assert rows_in(left, "documents") == 3
    assert rows_in(left, "chunks") == unbroken.num_chunks
