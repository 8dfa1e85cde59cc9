"""The length audit on tiny lengths: its figures, its cache, its answer, and kills."""

import json
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, InputError, TaskError
from dewey_embed.eval.audits.length import JoinedTasks, LengthScores, audit_length, first_fall
from dewey_embed.eval.beir import read_beir
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.eval.scores import Interval
from dewey_embed.eval.vector_cache import ChunkSize, DocumentVectorCache
from dewey_embed.single_vectors import SINGLE_VECTORS
from tests.eval.audits.commands import start
from tests.eval.audits.conftest import write_corpus

LENGTHS = (64, 128, 256)
NUM_VECTORS = 2 * len(LENGTHS) * 8


def audit(model, corpus, cache, **options):
    options = {"lengths": LENGTHS, "tokens_per_length": 1, "chunk_tokens": 32} | options
    return audit_length(model, data=[corpus], cache=cache, **options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def result(mini, corpus, cache):
    return audit(mini, corpus, cache)


def rows(findings, title="By length"):
    [table] = [table for table in findings.tables if table.title == title]
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


class TestFigures:
    def test_a_row_for_each_task_mode_and_length(self, result):
        assert [(row["task"], row["length"], row["mode"]) for row in rows(result)] == [
            (task, length, mode)
            for task in ("towns", "passkey")
            for length in LENGTHS
            for mode in ("single", "topics", "multi")
        ]
        assert {row["documents"] for row in rows(result)} == {8}
        assert {row["queries"] for row in rows(result)} == {8}

    def test_pass_keys_go_up_to_the_longest_allowed(self, mini, corpus, cache):
        some = rows(audit(mini, corpus, cache, longest_passkey=128))
        longest = {row["task"]: row["length"] for row in some}
        assert longest == {"towns": 256, "passkey": 128}
        none = rows(audit(mini, corpus, cache, longest_passkey=0))
        assert {row["task"] for row in none} == {"towns"}
        with pytest.raises(ConfigError, match="nothing to measure"):
            audit_length(mini, lengths=LENGTHS, longest_passkey=0)

    def test_figures_lie_in_their_intervals_and_between_zero_and_one(self, result):
        for row in rows(result):
            for name in ("nDCG@10", "accuracy@1"):
                values = row[f"{name} low"], row[name], row[f"{name} high"]
                assert 0 <= values[0] <= values[1] <= values[2] <= 1
            assert row["accuracy@1"] <= row["nDCG@10"]

    def test_the_mini_finds_towns_in_short_documents(self, result):
        short = [row for row in rows(result) if row["length"] == 64 and row["task"] == "towns"]
        assert all(row["accuracy@1"] >= 0.75 for row in short)

    def test_documents_have_the_length_of_the_row(self, result):
        for row in rows(result):
            if row["task"] == "towns":
                assert row["length"] - 6 <= row["mean of documents"] <= row["length"] - 2

    def test_plots_hold_the_tables_figures_over_a_logarithmic_axis(self, result):
        names = {"accuracy@1": 6, "nDCG@10": 6, "EDI": 4}
        for plot, (name, lines) in zip(result.plots, names.items(), strict=True):
            assert plot.log_x
            assert len(plot.series) == lines
            for series in plot.series:
                task, mode = series.name.split(", ")
                own = [row for row in rows(result) if (row["task"], row["mode"]) == (task, mode)]
                assert series.x == LENGTHS
                assert series.y == tuple(row[name] for row in own)

    @pytest.mark.parametrize("window", [8192, 128])
    def test_figures_are_those_of_a_model_with_such_vectors(
        self, mini, tmp_path, monkeypatch, window
    ):
        """As a user would measure them, where documents are long enough to have several topics."""
        kind = replace(SINGLE_VECTORS["topics"], window=window)
        monkeypatch.setitem(SINGLE_VECTORS, "topics", kind)
        corpus = write_corpus(tmp_path / "mixed", others=0)
        texts = ("The tenant pays the rent. " * 40, "Ships carry timber over the sea. " * 40)
        with (corpus / "corpus.jsonl").open("a") as file:
            for number, text in enumerate(texts):
                file.write(json.dumps({"_id": f"other{number}", "text": text}) + "\n")
        topical = Dewey.load(device="cpu", single_vector="topics")
        found = rows(audit(mini, corpus, tmp_path, lengths=(64, 640), longest_passkey=0))
        by_mode = {row["mode"]: row for row in found if row["length"] == 640}
        data = JoinedTasks(
            read_beir(corpus), mini.tokenizer, lengths=[62, 638], num_documents=8, seed=0
        ).at(638)
        documents = topical.encode_document(list(data.documents.values()), chunk_tokens=32)
        assert max(len(each.vectors) for each in documents) > 1
        queries = topical.encode_query(list(data.queries.values()))
        answers = [list(data.documents).index(*gains) for gains in data.qrels.values()]
        several = topical.similarity(queries, documents, mode="single")
        whole = mini.encode_document(list(data.documents.values()), chunk_tokens=32)
        one = mini.similarity(queries, whole, mode="single")
        for mode, read, scores in (("single", whole, one), ("topics", documents, several)):
            best = [
                (read[row].chunks @ query).max()
                for row, query in zip(answers, queries, strict=True)
            ]
            own = scores[range(len(answers)), answers]
            assert by_mode[mode]["EDI"] == pytest.approx(np.mean(best - own), abs=2e-3)
            assert by_mode[mode]["accuracy@1"] == np.mean(own == scores.max(axis=1))
        assert by_mode["topics"]["EDI"] < by_mode["single"]["EDI"] - 0.01
        assert by_mode["multi"]["EDI"] is None

    def test_single_is_the_models_own_kind(self, mini, corpus, cache, tmp_path):
        options = {"lengths": (64,), "longest_passkey": 0}
        means = rows(audit(mini, corpus, cache, **options))
        cls = Dewey.load(device="cpu", single_vector="cls")
        others = rows(audit(cls, corpus, tmp_path, **options))
        assert others[0]["mode"] == "single"
        assert others[0]["EDI"] != means[0]["EDI"]

    def test_more_tokens_make_more_documents(self, mini, corpus, cache):
        more = audit(mini, corpus, cache, lengths=(64, 128), tokens_per_length=9 * 128)
        assert {row["documents"] for row in rows(more)} == {9}

    def test_notes_say_which_lengths_were_read_in_windows_or_left_out(self, tmp_path):
        small = Dewey.load(device="cpu", max_tokens=100)
        corpus = write_corpus(tmp_path / "longer", sentences=4)
        result = audit(small, corpus, tmp_path, lengths=(64, 128))
        assert {row["length"] for row in rows(result) if row["task"] == "longer"} == {128}
        notes = " ".join(result.tables[1].notes)
        assert "100 tokens, so read in overlapping windows: 128." in notes
        assert "documents fit into 64 tokens: not measured" in notes

    def test_the_page_is_a_file_that_reads_back(self, result, tmp_path):
        result.write(tmp_path / "length.json")
        assert ResultPage.read(tmp_path / "length.json") == result
        assert result.kind == "length"


def points(*accuracies):
    return [
        LengthScores(
            task="t", mode="single", length=2**number, num_documents=8, num_queries=8,
            num_tokens=1.0, in_windows=False, ndcg=Interval(1, 1, 1),
            accuracy=Interval(value, value, value),
        )
        for number, value in enumerate(accuracies)
    ]  # fmt: skip


class TestFirstFall:
    def test_five_points_below_the_shortest_is_a_fall(self):
        assert first_fall(points(0.9, 0.86, 0.85, 0.2)) == 4

    def test_a_smaller_difference_is_not_a_fall(self):
        assert first_fall(points(0.9, 0.86, 0.97, 0.851)) is None

    def test_the_summary_names_it(self, result):
        falls = rows(result, "Where accuracy@1 falls by 5 points")
        assert len(falls) == 6
        for row in falls:
            assert row["accuracy@1 there"] >= row["accuracy@1 at the longest"] - 0.5
            words = "does not fall" if row["5 points less at"] is None else "has fallen"
            [printed] = [
                line
                for line in result.summary.replace(". ", ".\n").splitlines()
                if line.startswith(f"{row['task']}, {row['mode']}")
            ]
            assert words in printed


class TestCache:
    def test_a_second_run_encodes_nothing_and_finds_the_same(self, mini, corpus, cache, result):
        before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
        assert audit(mini, corpus, cache) == result
        assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")} == before

    def test_vectors_are_read_as_written(self, mini, tmp_path):
        told = []
        vectors = DocumentVectorCache(mini, tmp_path, [ChunkSize(32)])
        first, second = (
            vectors.encode(["The grass is green. " * 20], told.append)[0] for _ in "ab"
        )
        for name in ("vector", "chunks", "granularity"):
            assert np.array_equal(getattr(first, name), getattr(second, name))
        assert first.spans == second.spans
        assert (first.num_tokens, first.used_tokens, first.overflow) == (100, 100, None)
        assert (second.num_tokens, second.used_tokens, second.overflow) == (100, 100, None)
        assert told[-1] == 100

    def test_a_damaged_file_is_made_again(self, mini, tmp_path):
        vectors = DocumentVectorCache(mini, tmp_path, [ChunkSize(32)])
        [made] = vectors.encode(["The sky is blue."])
        path = vectors.path("The sky is blue.")
        path.write_bytes(path.read_bytes()[:200])
        [again] = vectors.encode(["The sky is blue."])
        assert np.array_equal(made.vector, again.vector)

    def test_other_chunks_are_other_vectors(self, mini, tmp_path):
        paths = {
            DocumentVectorCache(mini, tmp_path, [ChunkSize(size)]).path("a") for size in (32, 64)
        }
        assert len(paths) == 2


class TestRefusals:
    @pytest.mark.parametrize("lengths", [(), (128, 64), (64, 64), (32, 64)])
    def test_lengths_that_do_not_ascend_from_64(self, mini, corpus, cache, lengths):
        with pytest.raises(ConfigError, match="must ascend, from 64 tokens"):
            audit(mini, corpus, cache, lengths=lengths)

    def test_no_tokens(self, mini, corpus, cache):
        with pytest.raises(ConfigError, match="tokens_per_length is 0"):
            audit(mini, corpus, cache, tokens_per_length=0)

    def test_a_folder_without_a_task(self, mini, tmp_path, cache):
        with pytest.raises(TaskError, match=r"corpus\.jsonl: is not there"):
            audit(mini, tmp_path, cache)

    def test_nan_is_an_error_and_not_kept(self, corpus, tmp_path):
        broken = Dewey.load(device="cpu")
        with torch.no_grad():
            next(broken.model.parameters()).fill_(float("nan"))
        with pytest.raises(InputError, match="NaN or infinite"):
            audit(broken, corpus, tmp_path)
        assert not list(tmp_path.rglob("*.npz"))


def command(corpus, cache, output, *options):
    return start(
        "length", "--data", corpus, "--lengths", "64,128,256", "--chunk-tokens", "32",
        "--tokens-per-length", "1", "--cache", cache, "--output", output, *options,
    )  # fmt: skip


class TestCommand:
    def test_a_killed_run_resumes_with_its_vectors(self, corpus, result, tmp_path):
        cache, output = tmp_path / "cache", tmp_path / "out" / "length.json"
        killed = command(corpus, cache, output)
        while killed.poll() is None and len(list(cache.rglob("*.npz"))) < 7:
            time.sleep(0.002)
        killed.kill()
        _, errors = killed.communicate()
        assert killed.returncode == -signal.SIGKILL, errors
        kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
        assert 7 <= len(kept) < NUM_VECTORS
        assert not output.exists()

        resumed = command(corpus, cache, output)
        printed, errors = resumed.communicate()
        assert resumed.returncode == 0, errors
        now = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
        assert len(now) == NUM_VECTORS
        assert kept.items() <= now.items()
        assert ResultPage.read(output).tables == result.tables
        assert printed.strip() == result.summary
        assert "audit length --data" in ResultPage.read(output).command

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (
                ("--lengths", "1024,many"),
                "is '1024,many'; give values with commas between",
            ),
            (("--data", "/nowhere"), "/nowhere: is not there; a task is a folder of three files"),
        ],
    )
    def test_mistakes_are_one_line_and_an_exit_code(self, corpus, tmp_path, options, words):
        failed = command(corpus, tmp_path, tmp_path / "length.json", *options)
        _, errors = failed.communicate()
        assert failed.returncode == 1
        assert errors.startswith("dewey: error: ")
        assert len(errors.splitlines()) == 1
        assert words in errors
        assert not (tmp_path / "length.json").exists()
