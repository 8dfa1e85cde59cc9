"""The context audit: closed forms of what it measures, its verdict, and every kind of data."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dewey_embed.errors import ConfigError, ReadError, TaskError
from dewey_embed.eval.audits.context import Context, audit_context, verdict
from dewey_embed.eval.audits.context_data import Collection, collections, title_notes
from dewey_embed.eval.chunk_vectors import CHUNK_CONTEXTS, ChunkVectorCache
from dewey_embed.eval.passages import ChunkedDocument
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.eval.scores import Interval
from tests.eval.audits.commands import refused, start
from tests.eval.test_chunk_task import write_leases


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def leases(tmp_path_factory):
    return write_leases(tmp_path_factory.mktemp("context") / "leases")


@pytest.fixture(scope="module")
def result(mini, leases, cache):
    return audit_context(mini, [leases], cache=cache)


def rows(page, title):
    """The rows of a table as dictionaries."""
    [table] = [table for table in page.tables if table.title == title]
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def context_of(vectors, owners, scores=None):
    """A context with vectors by the way of reading."""
    documents = [
        ChunkedDocument(title="", text="x" * 4, spans=[(0, 2)] * int(num))
        for num in np.bincount(owners)
    ]
    return Context(
        collection=Collection(name="any", documents=documents, chunks=[]),
        vectors=vectors,
        owners=np.array(owners),
        places=np.zeros(len(owners)),
        scores=scores or {},
    )


class TestFigures:
    def test_a_chunk_moves_by_one_less_its_cosine(self):
        angles = np.radians([0.0, 60.0, 90.0, 180.0])
        alone = np.tile([1.0, 0.0], (4, 1)).astype(np.float32)
        whole = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        context = context_of({"alone": alone, "in-context": whole}, [0, 0, 1, 1])
        assert context.moved("in-context") == pytest.approx([0, 0.5, 1, 2], abs=1e-6)
        assert context.moved("alone") == pytest.approx([0, 0, 0, 0], abs=1e-6)

    def test_a_gain_is_the_mean_difference_over_the_same_queries(self):
        scores = {
            "alone": {"b": {"ndcg_at_10": 0.5}, "a": {"ndcg_at_10": 0.0}},
            "in-context": {"a": {"ndcg_at_10": 0.2}, "b": {"ndcg_at_10": 1.0}},
        }
        context = context_of({"alone": np.eye(2, dtype=np.float32)}, [0, 1], scores)
        gain = context.gain("in-context", "alone")
        assert gain.mean == pytest.approx(0.35)
        assert (gain.low, gain.high) == pytest.approx((0.2, 0.5))

    @pytest.mark.parametrize(
        ("gain", "words"),
        [
            ((0.04, 0.01, 0.08), "reading whole: worth it for these documents"),
            ((0.04, -0.01, 0.09), "not worth it for these documents, as far as"),
            ((0.004, 0.001, 0.008), "not worth it for these documents, as far as"),
            ((-0.04, -0.09, -0.01), "not worth it for these documents, for less is found"),
            (None, "no verdict without queries"),
        ],
    )
    def test_it_is_worth_it_where_the_gain_is_sure_and_of_some_size(self, gain, words):
        assert words in verdict(gain and Interval(*gain))


class TestAnnotated:
    def test_what_is_found_is_the_suite_s_own_figure(self, result):
        found = {row["a chunk is read"]: row for row in rows(result, "What is found")}
        assert list(found) == list(CHUNK_CONTEXTS)
        assert found["titled"]["nDCG@10"] == found["in-context+title"]["nDCG@10"] == 1.0
        assert found["alone"]["nDCG@10"] < 0.8
        assert found["alone"]["more than alone"] is None
        for row in list(found.values())[1:]:
            gain = row["nDCG@10"] - found["alone"]["nDCG@10"]
            assert row["more than alone"] == pytest.approx(gain)
            assert row["more than alone low"] <= gain <= row["more than alone high"]

    def test_the_same_section_of_all_leases_is_told_apart_only_in_context(self, result):
        moved = {row["a chunk is read"]: row for row in rows(result, "How far a chunk is moved")}
        assert list(moved) == list(CHUNK_CONTEXTS)[1:]
        for row in moved.values():
            quantiles = [value for name, value in row.items() if name.endswith("up to")]
            assert quantiles == sorted(quantiles)
            assert quantiles[0] > 0
        near = {
            row["a chunk is read"]: row
            for row in rows(result, "How near the chunks of a document come to each other")
        }
        assert near["titled"]["siblings"] > near["alone"]["siblings"]
        for row in near.values():
            assert row["difference"] == pytest.approx(row["siblings"] - row["others"])

    def test_the_verdict_is_in_words_and_in_the_summary(self, result):
        [row] = rows(result, "Is reading whole worth it?")
        assert (row["documents"], row["chunks"], row["queries"]) == (3, 6, 3)
        assert row["answers that name the title"] == 0.0
        assert result.summary.startswith(f"leases: {row['verdict']}: nDCG@10")
        assert "3 queries" in result.summary

    def test_where_titles_are_metadata_the_verdict_is_of_the_pass_under_them(
        self, mini, cache, tmp_path
    ):
        places = ("Norway", "Japan", "Brazil", "Kenya", "Canada", "Greece", "Peru", "India")
        titles = {name.lower(): name for name in places}
        folder = write_leases(tmp_path / "leases", titles=titles, in_text=False)
        page = audit_context(mini, [folder], cache=cache)
        assert page.summary.startswith(
            "leases: reading whole, under the title: worth it for these documents: nDCG@10"
        )
        assert "encode_document(titles=...)" in page.summary
        [row] = rows(page, "Is reading whole worth it?")
        found = {each["a chunk is read"]: each for each in rows(page, "What is found")}
        assert row["gain"] == found["under-title"]["more than alone"] > 0.2

    def test_a_page_is_the_same_again_and_its_plots_hold_everything(
        self, mini, leases, cache, result
    ):
        again = audit_context(mini, [leases], cache=cache)
        assert again.tables == result.tables
        histogram, places, near, bars = result.plots
        assert sum(histogram.series[0].y) == pytest.approx(1)
        assert len(places.series[0].x) == 10
        assert near.series[0].x == bars.series[0].x == tuple(CHUNK_CONTEXTS)

    def test_a_folder_of_folders_is_several_and_a_sample_is_smaller(
        self, mini, leases, cache, tmp_path
    ):
        for name in ("one", "two"):
            shutil.copytree(leases, tmp_path / name)
        page = audit_context(mini, [tmp_path], num_documents=2, cache=cache)
        found = rows(page, "Is reading whole worth it?")
        assert [(row["documents of"], row["documents"]) for row in found] == [
            ("one", 2),
            ("two", 2),
        ]

    def test_without_queries_there_is_no_verdict_and_it_says_so(
        self, mini, leases, cache, tmp_path
    ):
        for name in ("documents.jsonl", "chunks.jsonl"):
            shutil.copy(leases / name, tmp_path / name)
        page = audit_context(mini, [tmp_path], cache=cache)
        assert "no verdict without queries about the chunks" in page.summary
        [row] = rows(page, "Is reading whole worth it?")
        assert row["gain"] is row["queries"] is None
        assert [table.title for table in page.tables if table.title == "What is found"] == []
        assert len(page.plots) == 3

    def test_documents_without_chunks_are_counted(self, mini, leases, cache, tmp_path):
        folder = shutil.copytree(leases, tmp_path / "leases")
        with (folder / "documents.jsonl").open("a") as documents:
            documents.write('{"_id": "yew", "title": "Yew", "text": "Nobody cut this."}\n')
        page = audit_context(mini, [folder], cache=cache)
        assert "leases: 1 of 4 documents have no chunk." in page.tables[0].notes
        (folder / "queries.jsonl").unlink()
        drawn = [_drawn(folder, mini, seed) for seed in range(12)]
        assert any(
            "none of 1 documents has a chunk; give a larger number" in each for each in drawn
        )

    def test_chunks_without_any_token_are_refused(self, mini, leases, cache, tmp_path):
        folder = shutil.copytree(leases, tmp_path / "leases")
        lines = (folder / "documents.jsonl").read_text().splitlines()
        ends = {(each := json.loads(line))["_id"]: len(each["text"]) for line in lines}
        (folder / "chunks.jsonl").write_text(
            "".join(
                json.dumps({"_id": f"{name}:0", "doc": name, "start": end - 2, "end": end}) + "\n"
                for name, end in ends.items()
            )
        )
        with (
            pytest.warns(UserWarning, match="hold no token"),
            pytest.raises(TaskError, match="leases: no chunk holds a token"),
        ):
            audit_context(mini, [folder], cache=cache)


def _drawn(folder, model, seed):
    """What is said of one document of a folder."""
    try:
        list(collections(folder, model, num_documents=1, chunk_tokens=8, seed=seed))
    except TaskError as error:
        return str(error)
    return ""


class TestPlainDocuments:
    def test_files_are_cut_into_sentences_under_the_names_of_files(self, mini, cache, tmp_path):
        (tmp_path / "oak_street.txt").write_text("The rent is due. " * 40)
        (tmp_path / "notes.txt").write_text("Heating is repaired. " * 3)
        (tmp_path / "empty.txt").write_text("  ")
        page = audit_context(mini, [tmp_path], chunk_tokens=32, cache=cache)
        [row] = rows(page, "Is reading whole worth it?")
        assert row["documents"] == 2
        assert row["chunks"] > 5
        [table] = [each for each in page.tables if each.title == "Is reading whole worth it?"]
        notes = " ".join(table.notes)
        assert "2 documents have the name of their file as a title" in notes
        assert "1 of 2 documents are one chunk, which has no context" in notes

    def test_a_beir_folder_is_its_corpus(self, mini, cache, corpus):
        [found] = collections(corpus, mini, num_documents=4, chunk_tokens=16, seed=0)
        assert len(found.documents) == 4
        assert not found.queries

    def test_a_chunk_that_is_its_document_stays_where_it_is(self, mini, cache, tmp_path):
        (tmp_path / "one.jsonl").write_text(json.dumps({"text": "The rent is due."}) + "\n")
        [found] = collections(tmp_path, mini, num_documents=9, chunk_tokens=64, seed=0)
        context = Context.of(found, mini, ChunkVectorCache(mini, cache))
        assert context.moved("in-context") == pytest.approx([0], abs=1e-6)

    def test_nothing_to_read_is_an_error(self, mini, cache, tmp_path):
        (tmp_path / "blank.txt").write_text("\n \n")
        with pytest.raises(TaskError, match="holds no document with text"):
            audit_context(mini, [tmp_path], cache=cache)
        with pytest.raises(ReadError):
            audit_context(mini, [tmp_path / "nowhere"], cache=cache)
        with pytest.raises(ConfigError, match="no data are given"):
            audit_context(mini, [], cache=cache)
        with pytest.raises(ConfigError, match="num_documents is 0"):
            audit_context(mini, [tmp_path], num_documents=0, cache=cache)


def test_titles_that_cannot_do_what_they_are_for_are_counted():
    text = "Rent of Oak. Heat of Oak."
    spans = [(0, 12), (13, 25)]
    notes = list(
        title_notes(
            [
                ChunkedDocument(title="", text=text, spans=spans),
                ChunkedDocument(title="oak", text=text, spans=spans),
                ChunkedDocument(title="Lease of a flat", text=text, spans=spans),
                ChunkedDocument(title="Elm", text=text, spans=spans[:1]),
            ]
        )
    )
    assert notes == [
        "1 of 4 documents have no title",
        "1 of 4 documents have a title longer than a chunk of theirs",
        "1 of 4 documents name their title in every chunk",
        "1 of 4 documents are one chunk, which has no context",
    ]


class TestCommand:
    def test_the_command_writes_a_page(self, leases, cache, result, tmp_path):
        output = tmp_path / "context.json"
        done = start("context", "--data", leases, "--cache", cache, "-o", output, "--device", "cpu")
        printed, errors = done.communicate()
        assert done.returncode == 0, errors
        assert ResultPage.read(output).tables == result.tables
        assert printed.strip() == result.summary

    def test_a_mistake_is_one_line(self, tmp_path):
        assert "nowhere" in refused("context", "--data", tmp_path / "nowhere")


COMMANDS = (
    ("audit", "context", "mini", "--data", "nowhere"),
    ("audit", "alignment", "mini", "--data", "nowhere"),
    ("audit", "length", "mini", "--data", "nowhere"),
    ("audit", "cost", "mini", "--data", "nowhere"),
    ("audit", "baseline", "nowhere"),
    ("eval", "mini", "--suite", "nowhere"),
    ("eval", "mini", "--suite", "nowhere", "--contexts", "all"),
)


def test_what_is_not_there_is_refused_before_anything_heavy_is_imported(tmp_path):
    code = f"""
import sys
from dewey_embed.cli import main
for words in {COMMANDS!r}:
    sys.argv = ["dewey", *words]
    try:
        main()
    except SystemExit as error:
        assert error.code == 1, words
    assert "torch" not in sys.modules and "mteb" not in sys.modules, words
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(COMMANDS)
    assert all("nowhere" in line for line in lines)
