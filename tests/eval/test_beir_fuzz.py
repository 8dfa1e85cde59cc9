"""Whatever bytes the files of a task hold: a task, or one error of one line that names the file."""

import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import read_beir
from tests.eval.conftest import write_beir

IDS = st.one_of(st.sampled_from(["q0", "d0", "d1", "", " ", "0", "q 0"]), st.text(max_size=3))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), IDS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(IDS, inner, max_size=2)),
    max_leaves=4,
)
RECORDS = st.fixed_dictionaries({}, optional={"_id": VALUES, "text": VALUES, "title": VALUES})
SCORES = st.one_of(st.sampled_from(["1", "0", "-1", "2.0", "0.5", "nan", "1e999", "x"]), IDS)
ROWS = st.tuples(IDS, IDS, SCORES).map("\t".join) | st.lists(SCORES, max_size=5).map(" ".join)
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n"])


def joined(lines):
    """Lines as bytes, under any line ends and perhaps a byte order mark or two."""
    return st.tuples(st.lists(lines, max_size=4), ENDS, st.sampled_from(["", "\ufeff"])).map(
        lambda made: (made[2] + made[1].join(made[0])).encode("utf-8", "surrogatepass")
    )


CONTENTS = {
    "corpus.jsonl": joined(st.one_of(RECORDS, VALUES).map(json.dumps)) | st.binary(max_size=40),
    "queries.jsonl": joined(st.one_of(RECORDS, VALUES).map(json.dumps)) | st.binary(max_size=40),
    "qrels.tsv": joined(ROWS) | st.binary(max_size=40),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_any_bytes_are_a_task_or_one_clear_line(tmp_path, name):
    documents, queries = {"d0": "timber", "d1": "river"}, {"q0": "timber"}
    folder = write_beir(tmp_path / "task", documents, queries, [("q0", "d0", 1)])
    sound = (folder / name).read_bytes()

    @settings(
        max_examples=300, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(content=CONTENTS[name], kept=st.booleans())
    def holds(content, kept):
        (folder / name).write_bytes(sound + content if kept else content)
        data, refused = None, ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                data = read_beir(folder)
            except TaskError as error:
                refused = str(error)
        if data is None:
            assert str(folder) in refused
            assert "\n" not in refused
            return
        assert data.qrels
        assert set(data.queries) == set(data.qrels)
        for query, gains in data.qrels.items():
            assert data.queries[query].strip()
            assert set(gains) <= set(data.documents)
            assert all(isinstance(gain, int) and gain > 0 for gain in gains.values())

    holds()
