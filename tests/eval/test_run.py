"""Results on disk: what mteb reads of them, what is read again, what is never written."""

import json

import numpy as np
import pytest
from mteb.cache import ResultCache

from dewey_embed.errors import ResultsError, TaskError
from dewey_embed.eval.adapters import OneVector
from dewey_embed.eval.run import EvaluatedModel, Failure, TaskScores, evaluate, run
from dewey_embed.eval.suites import open_suite
from dewey_embed.eval.tasks import beir_task
from dewey_embed.eval.vector_cache import VectorCache, finite_rows
from tests.eval.conftest import Letters, write_beir

DOCUMENTS = {"a": "aaa bbb", "b": "ccc ddd", "c": "eee fff"}
QUERIES = {"q0": "aab", "q1": "ccd"}
QRELS = [("q0", "a", 1), ("q1", "b", 1)]


class Broken(Letters):
    """A model whose vectors of one word are not finite."""

    def __init__(self, value):
        self.value = value

    def encode(self, inputs, **_):
        rows = super().encode(inputs)
        rows[0, 0] = self.value
        return rows


class Elsewhere(Letters, OneVector):
    """A model whose results an earlier version kept as an experiment's."""

    def __init__(self):
        meta = Letters.mteb_model_meta
        earlier = meta.model_copy(update={"experiment_kwargs": {"mode": "multi"}})
        OneVector.__init__(
            self, meta.model_copy(update={"name": "tests/letters-multi"}), earlier_meta=earlier
        )


@pytest.fixture
def folder(tmp_path):
    return write_beir(tmp_path / "data" / "task", DOCUMENTS, QUERIES, QRELS)


def evaluated(model, label="letters"):
    return EvaluatedModel(name=label, label=label, open=lambda: model)


def measured(model, folder, output):
    return list(run([evaluated(model)], [beir_task(folder)], output))


def strictly(path):
    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_mteb_reads_the_results_by_its_defaults(folder, tmp_path):
    [outcome] = measured(Letters(), folder, tmp_path / "out")
    [loaded] = ResultCache(tmp_path / "out").load_results().model_results
    assert loaded.task_results[0].get_score() == pytest.approx(outcome.result.get_score(), abs=1e-6)


def test_results_of_an_earlier_layout_are_read_and_not_measured_again(folder, tmp_path):
    model, output = Elsewhere(), tmp_path / "out"
    earlier = Letters()
    earlier.mteb_model_meta = model.earlier_meta
    measured(earlier, folder, output)
    assert "experiments" in str(next(output.rglob("task.json")))
    model.encode = None  # it would fail
    [outcome] = measured(model, folder, output)
    assert isinstance(outcome, TaskScores)


@pytest.mark.parametrize("query", [{"q0": "aab"}, QUERIES])
def test_files_are_standard_json_and_scores_by_query_stay_out_of_git(tmp_path, query):
    lines = [line for line in QRELS if line[0] in query]
    folder = write_beir(tmp_path / "task", DOCUMENTS, query, lines)
    measured(Letters(), folder, tmp_path / "out")
    [kept_out] = (tmp_path / "out").rglob(".gitignore")
    assert kept_out.parent.name == "queries"
    assert kept_out.read_text() == "*\n"
    files = list((tmp_path / "out").rglob("*.json"))
    assert len(files) == 3  # a result, its queries, the model
    for file in files:
        strictly(file)
    [loaded] = ResultCache(tmp_path / "out").load_results().model_results
    assert 0 <= loaded.task_results[0].get_score() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_makes_nan_fails_by_name_and_leaves_no_result(folder, tmp_path, value):
    found = list(
        run(
            [evaluated(Broken(value), "broken"), evaluated(Letters())],
            [beir_task(folder)],
            tmp_path,
        )
    )
    assert [type(each) for each in found] == [Failure, TaskScores]
    assert (found[0].model, found[0].task) == ("broken", "task")
    assert "NaN" in found[0].reason


@pytest.mark.parametrize("content", ["{", "[]", "null", "5", '{"scores": 5}', "", "\xff"])
@pytest.mark.parametrize("which", ["task.json", "queries/task.json"])
def test_a_damaged_result_is_measured_again(folder, tmp_path, which, content):
    [first] = measured(Letters(), folder, tmp_path)
    path = tmp_path / "results" / "tests__letters" / "1" / which
    path.write_bytes(content.encode("latin-1"))
    [again] = measured(Letters(), folder, tmp_path)
    assert again.queries == first.queries
    strictly(path)


@pytest.mark.parametrize("which", ["task.json", "queries/task.json", "queries/task.crc"])
def test_one_digit_that_is_another_is_found_and_measured_again(folder, tmp_path, which):
    measured(Letters(), folder, tmp_path)
    path = tmp_path / "results" / "tests__letters" / "1" / which
    written = path.read_text()
    last = max(at for at, letter in enumerate(written) if letter.isdecimal())
    path.write_text(written[:last] + str((int(written[last]) + 1) % 10) + written[last + 1 :])
    assert (
        list(run([evaluated(Letters())], [beir_task(folder)], tmp_path, finished_only=True)) == []
    )
    measured(Letters(), folder, tmp_path)
    [again] = run([evaluated(Letters())], [beir_task(folder)], tmp_path, finished_only=True)
    assert isinstance(again, TaskScores)


def test_results_that_an_earlier_version_wrote_without_checksums_are_read(folder, tmp_path):
    measured(Letters(), folder, tmp_path)
    next(tmp_path.rglob("task.crc")).unlink()
    assert list(run([evaluated(Letters())], [beir_task(folder)], tmp_path, finished_only=True))


def test_a_result_that_may_not_be_read_is_not_measured_again(folder, tmp_path, nobody):
    measured(Letters(), folder, tmp_path)
    task, shut = beir_task(folder), tmp_path / "results"
    shut.chmod(0)
    try:
        with nobody(), pytest.raises(ResultsError, match="Permission denied"):
            list(run([evaluated(Letters())], [task], tmp_path))
    finally:
        shut.chmod(0o755)


def test_a_task_that_fails_does_not_cost_the_others(folder, tmp_path):
    write_beir(folder.parent / "torn", DOCUMENTS, QUERIES, [("q0", "a", 0.5)])
    said = []
    found = evaluate(
        open_suite(str(folder.parent)), [evaluated(Letters())], tmp_path / "out",
        on_failure=said.append,
    )  # fmt: skip
    assert len(said) == 1
    assert "'0.5' is not a whole number" in said[0]
    assert [table.title for table in found.tables][-1] == "Failed"
    with pytest.raises(TaskError, match="nothing could be measured; task: "):
        evaluate(open_suite(str(folder)), [evaluated(Broken(np.nan))], tmp_path / "none")


class TestVectors:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([[1, 0], [np.nan, 0]], "m made 1 of 2 vectors with NaN .*begins 'second'"),
            ([[np.inf, 0], [0, 1]], "begins 'first'"),
            ([[1, 0]], r"shape \(1, 2\) of 2 texts"),
        ],
    )
    def test_vectors_that_are_no_numbers_are_named_and_not_kept(self, tmp_path, rows, message):
        texts = ["first", "second"]
        with pytest.raises(ResultsError, match=message):
            finite_rows(np.array(rows, np.float32), texts, "m")
        cache = VectorCache(tmp_path / "v.sqlite", lambda _: np.array(rows, np.float32), name="m")
        with pytest.raises(ResultsError, match=message):
            cache.embed(texts, label="")
        sound = VectorCache(tmp_path / "v.sqlite", lambda own: np.ones((len(own), 2), np.float32))
        assert sound.embed(texts, label="").tolist() == [[1, 1], [1, 1]]

    def test_a_damaged_cache_is_named(self, tmp_path):
        path = tmp_path / "v.sqlite"
        path.write_bytes(b"no database at all, but long enough to be one" * 100)
        with pytest.raises(ResultsError, match=r"v\.sqlite: is not a cache of vectors"):
            VectorCache(path, lambda own: np.ones((len(own), 2), np.float32))

    def test_vectors_of_another_width_are_not_mixed(self, tmp_path):
        for width, texts in ((2, ["a"]), (3, ["a", "b"])):
            cache = VectorCache(
                tmp_path / "v", lambda own, width=width: np.ones((len(own), width), np.float32)
            )
            if width == 2:
                cache.embed(texts, label="")
        with pytest.raises(ResultsError, match="holds vectors of several widths"):
            cache.embed(texts, label="")
