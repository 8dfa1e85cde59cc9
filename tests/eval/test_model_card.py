"""`dewey card`: scores in a model's card, and the metadata that the hub reads."""

import pytest
from huggingface_hub import ModelCard

from dewey_embed.errors import ResultsError
from dewey_embed.eval.model_card import with_results, without_results
from dewey_embed.eval.result_page import Column, Machine, ResultPage, Table
from tests.commands import ended

CARD = """---
license: apache-2.0
tags: [dewey, long-context]
---
# A Dewey model

What it is.
"""


def page(name="context", **columns):
    """A page of an evaluation, with these columns over two tasks and their mean."""
    tasks = ("factbook", "medquad", "mean")
    rows = [
        (task, "nDCG@10" if task != "mean" else "", *(values[place] for values in columns.values()))
        for place, task in enumerate(tasks)
    ]
    titles = [Column(name=each) for each in ("task", "measure", *columns)]
    return ResultPage(
        kind="eval", name=name, title=f"Scores on {name}", machine=Machine.here(),
        command=f"dewey eval mini --suite {name}",
        tables=(Table(title="Main scores", columns=tuple(titles), rows=tuple(rows)),
                Table(title="Passages", columns=(Column(name="task"),), rows=(("x",),))),
    )  # fmt: skip


CONTEXT = page(**{"mini alone": (0.3241, 0.364, 0.344), "mini in-context": (0.349, None, None),
                  "bm25": (0.148, 0.26, 0.204)})  # fmt: skip


def test_the_table_stands_in_the_card_with_its_command():
    text = with_results(CARD, "mini", [CONTEXT])
    assert (
        text.index("What it is.") < text.index("## Results") < text.index("### Scores on context")
    )
    assert "| factbook | nDCG@10 | 0.3241 | 0.3490 |\n" in text.replace("**", "")
    assert "| medquad | nDCG@10 | 0.3640 | – |\n" in text.replace("**", "")
    assert "Measured with `dewey eval mini --suite context`" in text
    assert "Passages" not in text


def test_other_models_and_tasks_without_a_score_of_its_own_stand_in_no_card():
    measured = page(mini=(None, 0.364, None), bm25=(0.148, 0.26, 0.204))
    text = with_results(CARD, "mini", [measured])
    assert "| medquad | nDCG@10 | 0.3640 |\n" in text.replace("**", "")
    assert not any(word in text for word in ("bm25", "0.26", "factbook", "| mean |"))


def test_the_hub_reads_every_measured_score_of_the_model_and_no_mean():
    data = ModelCard(with_results(CARD, "mini", [CONTEXT])).data
    assert (data.license, data.tags, data.model_name) == (
        "apache-2.0",
        ["dewey", "long-context"],
        "mini",
    )
    found = {
        (each.dataset_type, each.dataset_config): (each.metric_type, each.metric_value)
        for each in data.eval_results
    }
    assert found == {
        ("factbook", "alone"): ("ndcg_at_10", 0.3241),
        ("factbook", "in-context"): ("ndcg_at_10", 0.349),
        ("medquad", "alone"): ("ndcg_at_10", 0.364),
    }
    assert {each.task_type for each in data.eval_results} == {"Retrieval"}


def test_new_scores_replace_the_old_and_the_rest_stays():
    once = with_results(CARD, "mini", [CONTEXT])
    assert with_results(once, "mini", [CONTEXT]) == once
    other = with_results(once, "mini", [page("other", mini=(0.5, 0.6, 0.55))])
    assert "Scores on context" not in other
    assert {each.dataset_config for each in ModelCard(other).data.eval_results} == {"default"}
    assert without_results(ModelCard(other).text).rstrip() == ModelCard(CARD).text.rstrip()


def test_figures_of_others_in_the_metadata_stay_unless_there_are_newer_ones():
    metric = "{type: ndcg_at_10, value: 0.1, name: nDCG@10}"
    theirs = [
        f"- {{task: {{type: Retrieval}}, dataset: {{type: {name}, name: x, config: alone, "
        f"split: test}}, metrics: [{metric}]}}"
        for name in ("theirs", "medquad")
    ]
    index = "\n  ".join(["results:", *theirs])
    card = CARD.replace("tags:", f"model-index:\n- name: mini\n  {index}\ntags:")
    for _ in range(2):
        card = with_results(card, "mini", [CONTEXT])
    found = [(each.dataset_type, each.metric_value) for each in ModelCard(card).data.eval_results]
    assert sorted(found) == [
        ("factbook", 0.3241), ("factbook", 0.349), ("medquad", 0.364), ("theirs", 0.1),
    ]  # fmt: skip


def test_a_mark_of_the_authors_own_costs_none_of_their_text():
    card = CARD + "<!-- results -->\nOur own words.\n"
    for _ in range(2):
        card = with_results(card, "mini", [CONTEXT])
    assert "Our own words." in card
    assert card.count("## Results") == 1


def test_several_pages_stand_in_their_order():
    both = with_results(CARD, "mini", [CONTEXT, page("other", mini=(0.5, 0.6, 0.55))])
    assert both.index("Scores on context") < both.index("Scores on other")
    assert len(ModelCard(both).data.eval_results) == 5


@pytest.mark.parametrize("label", ["min", "bm", "model"])
def test_a_page_without_scores_of_the_model_names_those_there_are(label):
    with pytest.raises(ResultsError, match="mini alone, mini in-context, bm25; give a page"):
        with_results(CARD, label, [CONTEXT])


def test_front_matter_that_cannot_be_read_is_refused():
    with pytest.raises(ResultsError, match="front matter cannot be read"):
        with_results("---\nlicense: [\n---\n", "mini", [CONTEXT])


def test_the_command_writes_the_card_of_a_folder(tmp_path, capsys):
    folder = tmp_path / "mini"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    CONTEXT.write(tmp_path / "context.json")
    words = ("--results", tmp_path / "context.json")
    assert ended("card", folder, *words) == 0
    assert (folder / "README.md").read_text() == with_results(CARD, "mini", [CONTEXT])
    assert ended("card", folder, "--results", tmp_path / "nowhere.json") == 1
    capsys.readouterr()
    assert ended("card", tmp_path, *words) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'README.md'}: there is no card; give the folder of a model" in said
    (folder / "README.md").write_bytes(b"\xff")
    assert ended("card", folder, *words) == 1
    assert "save it as UTF-8" in capsys.readouterr().err


def test_the_command_takes_the_folder_of_a_run(tmp_path):
    model = tmp_path / "mini" / "model"
    model.mkdir(parents=True)
    (model / "README.md").write_text(CARD)
    (model / "dewey.json").write_text("{}")
    CONTEXT.write(tmp_path / "context.json")
    assert ended("card", tmp_path / "mini", "--results", tmp_path / "context.json") == 0
    assert "| factbook | nDCG@10 |" in (model / "README.md").read_text()
