"""Suites by name and by folder: what is found, what is missing and why, what is refused."""

import time

import pytest
from huggingface_hub import is_offline_mode

from dewey_embed.errors import ConfigError
from dewey_embed.eval import hub
from dewey_embed.eval.suites import SUITES, open_suite
from tests.eval.conftest import write_beir
from tests.eval.test_locov1 import DOCUMENTS, QUERIES, write
from tests.eval.test_short_texts import write_sts

LOCOV1_TASKS, LONGEMBED_TASKS, ENGLISH_TASKS, OFFLINE_TASKS = 12, 6, 41, 6


pytestmark = pytest.mark.usefixtures("no_hub")


def small(folder):
    return write_beir(folder, {"a": "timber", "b": "river"}, {"q": "timber"}, [("q", "a", 1)])


def names(suite):
    return [task.metadata.name for task in suite.tasks]


@pytest.mark.parametrize(
    ("name", "num"),
    [
        ("locov1", LOCOV1_TASKS),
        ("longembed", LONGEMBED_TASKS),
        ("mteb-eng-v2", ENGLISH_TASKS),
        ("mteb-offline", OFFLINE_TASKS),
    ],
)
def test_without_data_every_task_is_missing_soon_and_with_a_reason(tmp_path, name, num):
    open_suite(name, tmp_path)  # mteb is imported
    started = time.monotonic()
    suite = open_suite(name, tmp_path)
    assert time.monotonic() - started < 5
    assert not suite.tasks
    assert len(suite.missing) == num
    for reason in suite.missing.values():
        assert "cannot be reached" in reason
        assert "\n" not in reason
    without = open_suite(name)
    assert all("no data folder was given" in reason for reason in without.missing.values())


def test_a_hub_that_answers_is_believed(monkeypatch):
    monkeypatch.setattr(hub, "_why_unreachable", lambda: None)
    assert len(open_suite("locov1").tasks) == LOCOV1_TASKS
    assert len(open_suite("longembed").tasks) == LONGEMBED_TASKS


def test_an_offline_mode_that_was_asked_for_is_named(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in hub.why_no_dataset("mteb/arguana")


def test_what_is_in_the_cache_needs_no_hub(tmp_path):
    prepared = tmp_path / "no-cache" / "hazyresearch___lo_co_v1-documents" / "default" / "0.0.0"
    (prepared / "abc").mkdir(parents=True)
    (prepared / "abc" / "dataset_info.json").write_text("{}")
    assert hub.why_no_dataset("hazyresearch/LoCoV1-Documents") is None
    assert hub.why_no_dataset("hazyresearch/LoCoV1-Queries") is not None
    assert is_offline_mode(), "the cache opens after minutes of retries"


def test_what_lies_in_the_data_folder_is_found(tmp_path):
    write_sts(tmp_path)
    small(tmp_path / "LEMBQMSumRetrieval")
    small(tmp_path / "LEMBNeedleRetrieval" / "test_256")
    small(tmp_path / "ArguAna")
    write(tmp_path / "locov1", "documents", DOCUMENTS, parquet=False)
    write(tmp_path / "locov1", "queries", QUERIES, parquet=False)
    assert names(open_suite("longembed", tmp_path)) == ["LEMBQMSumRetrieval"]
    missing = open_suite("longembed", tmp_path).missing
    assert "has no corpus.jsonl for test_512" in missing["LEMBNeedleRetrieval"]
    assert names(open_suite("mteb-offline", tmp_path)) == ["STSBenchmark"]
    assert names(open_suite("mteb-eng-v2", tmp_path)) == ["ArguAna", "STSBenchmark"]
    assert len(open_suite("locov1", tmp_path).tasks) == LOCOV1_TASKS


def test_data_that_are_there_but_wrong_are_faulty_not_missing(tmp_path):
    write_sts(tmp_path, num=3)
    [(name, reason)] = open_suite("mteb-offline", tmp_path).faulty.items()
    assert name == "STSBenchmark"
    assert "has 3 rows" in reason


def test_a_faulty_folder_does_not_cost_the_others(tmp_path):
    for name in ("one", "torn", "two"):
        small(tmp_path / name)
    (tmp_path / "torn" / "corpus.jsonl").write_text("{")
    suite = open_suite(str(tmp_path))
    assert names(suite) == ["one", "two"]
    assert "corpus.jsonl, line 1" in suite.faulty["torn"]


def test_a_folder_is_a_task_and_a_folder_of_folders_is_several(tmp_path):
    small(tmp_path / "data" / "one")
    small(tmp_path / "data" / "two")
    (tmp_path / "data" / "empty").mkdir()
    one = open_suite(str(tmp_path / "data" / "one"))
    assert (one.name, names(one)) == ("one", ["one"])
    both = open_suite(str(tmp_path / "data"))
    assert (both.name, names(both)) == ("data", ["one", "two"])
    assert both.missing == {"empty": "holds no corpus.jsonl"}


def test_what_is_no_suite_is_refused_with_the_names(tmp_path):
    with pytest.raises(ConfigError) as refused:
        open_suite("longembedd")
    assert all(name in str(refused.value) for name in SUITES)
    with pytest.raises(ConfigError, match=r"holds no corpus\.jsonl, and neither does a folder"):
        open_suite(str(tmp_path))


def test_a_data_folder_that_is_not_there_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: no such folder.*--data.*or leave it out"):
        open_suite("mteb-offline", tmp_path / "nowhere")


def test_a_missing_folder_of_tasks_is_refused_with_the_three_files_that_one_holds(tmp_path):
    with pytest.raises(ConfigError, match=r"no such folder") as refused:
        open_suite(str(tmp_path / "my-task"))
    assert all(
        name in str(refused.value) for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv")
    )


def test_passkeys_are_scored_at_the_first_rank_as_in_longembed():
    suite = open_suite("passkey")
    assert not suite.missing
    assert len(suite.tasks) == len(set(names(suite))) == 8
    assert {task.metadata.main_score for task in suite.tasks} == {"ndcg_at_1"}


def test_the_real_data_hold_six_of_mtebs_tasks(shared_data):
    suite = open_suite("mteb-offline", shared_data)
    assert len(suite.tasks) == OFFLINE_TASKS
    assert not suite.missing
