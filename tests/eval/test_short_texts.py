"""mteb's short-text tasks over local files: the same scores, and files that are refused."""

import mteb
import numpy as np
import pytest
from scipy.stats import spearmanr

from dewey_embed.errors import TaskError
from dewey_embed.eval.tasks import SHORT_TEXT_FILES, short_text_task

NUM_PAIRS = 1379
"""Of STSBenchmark's test split, as mteb counts them."""


def write_sts(data, *, num=NUM_PAIRS, scores=None):
    rng = np.random.default_rng(1)
    path = data / SHORT_TEXT_FILES["STSBenchmark"]["test"]
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        ["".join(rng.choice(list('abcdef "'), 20)).strip() + "x" for _ in range(2)]
        for _ in range(num)
    ]
    scores = rng.uniform(0, 5, num).round(2) if scores is None else scores
    lines = ["sentence1\tsentence2\tscore"]
    lines += [f"{a}\t{b}\t{score}" for (a, b), score in zip(rows, scores, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path, rows, scores


def test_similarity_is_the_rank_correlation_with_peoples_scores(tmp_path, letters):
    _, rows, scores = write_sts(tmp_path)
    task = short_text_task("STSBenchmark", tmp_path)
    assert isinstance(task, type(mteb.get_task("STSBenchmark")))
    found = mteb.evaluate(letters, task, cache=None, co2_tracker=False, show_progress_bar=False)
    first, second = (letters.encode([{"text": column}]) for column in zip(*rows, strict=True))
    wanted = spearmanr(np.asarray(letters.similarity_pairwise(first, second)), scores).statistic
    assert found.task_results[0].get_score() == pytest.approx(wanted, abs=1e-5)


def test_a_changed_file_has_another_revision(tmp_path):
    path, _, _ = write_sts(tmp_path)
    before = short_text_task("STSBenchmark", tmp_path).metadata.revision
    path.write_text(path.read_text() + "\n")
    after = short_text_task("STSBenchmark", tmp_path).metadata.revision
    assert len({before, after, mteb.get_task("STSBenchmark").metadata.revision}) == 3


def test_a_part_of_a_task_is_refused(tmp_path):
    write_sts(tmp_path, num=10)
    with pytest.raises(
        TaskError, match=r"stsb_test\.tsv: has 10 rows, mteb's STSBenchmark has 1379"
    ):
        short_text_task("STSBenchmark", tmp_path)


@pytest.mark.parametrize("score", ["nan", "6", "-1", "much", ""])
def test_a_score_that_is_none_is_refused_with_its_line(tmp_path, score):
    write_sts(tmp_path, num=3, scores=[1, score, 2])
    with pytest.raises(TaskError, match=r"stsb_test\.tsv, line 3"):
        short_text_task("STSBenchmark", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\n", "line 1: is 'a.*not the header"),
        ("sentence1\tsentence2\tscore\n", "holds no row"),
        ("sentence1\tsentence2\tscore\none\t1.0\n", "line 2: 2 cells"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text, message):
    path, _, _ = write_sts(tmp_path)
    path.write_text(text)
    with pytest.raises(TaskError, match=message):
        short_text_task("STSBenchmark", tmp_path)


def write_banking(data, *, num_train, labels):
    rng = np.random.default_rng(2)
    for split, num in (("train", num_train), ("test", 3080)):
        path = data / SHORT_TEXT_FILES["Banking77Classification"][split]
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{name * 3}{rng.integers(9)}\t{name}" for name in rng.choice(labels[split], num)]
        path.write_text("\n".join(["text\tlabel", *rows]) + "\n")


def test_classes_that_letters_tell_apart_are_told_apart(tmp_path, letters):
    names = ["abacus", "lamp", "pig"]
    write_banking(tmp_path, num_train=10003, labels={"train": names, "test": names})
    task = short_text_task("Banking77Classification", tmp_path)
    task.n_experiments = 1
    found = mteb.evaluate(letters, task, cache=None, co2_tracker=False, show_progress_bar=False)
    assert found.task_results[0].get_score() == pytest.approx(1.0)


def test_a_label_without_training_texts_is_refused(tmp_path):
    write_banking(tmp_path, num_train=10003, labels={"train": ["a", "b"], "test": ["a", "c"]})
    with pytest.raises(TaskError, match=r"labels \['c'\] have no text to train on"):
        short_text_task("Banking77Classification", tmp_path)


@pytest.mark.parametrize("name", SHORT_TEXT_FILES)
def test_real_files_have_as_many_rows_as_mteb_counts(shared_data, name):
    task = short_text_task(name, shared_data)
    task.load_data()
    known = mteb.get_task(name).metadata.n_samples
    assert {split: len(rows) for split, rows in task.dataset.items()} == known
