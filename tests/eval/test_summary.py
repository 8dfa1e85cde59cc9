"""The page of an evaluation: means of development tasks and of the others, the paper's scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from dewey_embed.eval.locov1 import LOCOV1
from dewey_embed.eval.result_page import Machine
from dewey_embed.eval.scores import TaskScores
from dewey_embed.eval.summary import DEVELOPMENT_TASKS, summarise

MACHINE = Machine(processor="any", capability="none", cores=1, device="cpu")


def scores(model, task, score, num_queries=3):
    queries = {f"q{number}": {"ndcg_at_10": score} for number in range(num_queries)}
    result = SimpleNamespace(scores={"test": [{"main_score": score}]})
    return TaskScores(model=model, task=task, result=result, queries={"test": queries})


def page(by_task, suite="eval"):
    return summarise(
        suite,
        [scores("mini", task, score) for task, score in by_task.items()],
        measures=dict.fromkeys(by_task, "ndcg_at_10"),
        missing={},
        machine=MACHINE,
    )


def means(table):
    return {row[0]: row[2] for row in table.rows if row[0].startswith("mean")}


def test_means_are_given_for_development_tasks_and_for_others_apart():
    found = page({"cranfield": 0.2, "time": 0.4, "unseen": 0.9})
    assert means(found.tables[0]) == {
        "mean of 2 development tasks": pytest.approx(0.3),
        "mean of 1 other task": pytest.approx(0.9),
        "mean": pytest.approx(0.5),
    }
    assert any("flatter" in note and "cranfield, time" in note for note in found.tables[0].notes)
    assert found.summary == (
        "Means over 2 development tasks: mini 0.3000. Means over 1 other task: mini 0.9000."
    )
    [plot] = found.plots
    assert [(each.name, each.y) for each in plot.series] == [
        ("2 development tasks", (pytest.approx(0.3),)),
        ("1 other task", (pytest.approx(0.9),)),
    ]


@pytest.mark.parametrize(
    ("tasks", "name"), [(("a", "b"), "2 tasks"), (("time", "medline"), "2 development tasks")]
)
def test_tasks_of_one_kind_have_one_mean_which_says_of_what(tasks, name):
    found = page(dict.fromkeys(tasks, 0.5))
    assert list(means(found.tables[0])) == ["mean"]
    assert found.summary == f"Means over {name}: mini 0.5000."
    assert any("flatter" in note for note in found.tables[0].notes) == ("time" in tasks)


def test_the_tasks_on_which_weights_were_chosen_are_development_tasks():
    passages = {"chroma_chunks_passages", "factbook_fields_dev", "medquad_sections_dev"}
    assert len(DEVELOPMENT_TASKS) == 14
    assert passages < DEVELOPMENT_TASKS
    assert "scisumm_title" not in DEVELOPMENT_TASKS


def test_the_papers_scores_stand_beside_locov1s_and_no_other_suites():
    found = page({"qmsum": 0.5}, suite="locov1").tables[0]
    assert [column.name for column in found.columns][-3:] == [
        "paper, teacher", "paper, single", "paper, multi",
    ]  # fmt: skip
    assert found.rows[0][-3:] == LOCOV1["qmsum"]
    assert len(page({"legal_case_reports": 0.5}).tables[0].columns) == 3


def test_a_mean_needs_every_task():
    found = summarise(
        "eval",
        [scores("mini", "a", 0.5), scores("bm25", "a", 0.4), scores("bm25", "b", 0.6)],
        measures=dict.fromkeys("ab", "ndcg_at_10"),
        missing={},
        machine=MACHINE,
    )
    assert found.tables[0].rows[-1][2:] == (None, pytest.approx(0.5))
    assert found.plots[0].series[0].x == ("bm25",)
    assert np.isclose(found.plots[0].series[0].y[0], 0.5)


def test_differences_are_from_the_default_mode_or_else_from_the_first_model():
    for models, base in (
        (("mini single", "mini hybrid", "bm25"), "mini hybrid"),
        (("bm25", "minilm"), "bm25"),
    ):
        found = summarise(
            "eval",
            [scores(model, "unseen", 0.5) for model in models],
            measures={"unseen": "ndcg_at_10"},
            missing={},
            machine=MACHINE,
        )
        [table] = [each for each in found.tables if "difference" in each.title]
        assert table.title.startswith(f"{base} against the others")
        assert [column.name for column in table.columns[1::2]] == [
            f"{base} − {other}" for other in models if other != base
        ]
        assert found.plots[0].title == "Mean nDCG@10 over 1 retrieval task"
