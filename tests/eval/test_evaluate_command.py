"""`dewey eval` as it is typed: scores, resumption, caches, and what it refuses."""

import json
import signal
import time

import pytest

from tests.commands import Dewey
from tests.commands import dewey as finished

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def write_task(folder, num_documents=12, words=40):
    folder.mkdir(parents=True)
    topics = [f"topic{number} marker{number} " for number in range(num_documents)]
    corpus = [
        {"_id": f"d{n}", "title": "", "text": topic * words} for n, topic in enumerate(topics)
    ]
    queries = [{"_id": f"q{n}", "text": f"marker{n}"} for n in range(num_documents)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    lines = "".join(f"q{n}\td{n}\t1\n" for n in range(num_documents))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


def dewey(*arguments, check=True):
    done = finished(*arguments, timeout=600, **ENVIRONMENT)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    work = tmp_path_factory.mktemp("eval")
    write_task(work / "data" / "one")
    write_task(work / "data" / "two", num_documents=5)
    return work


def run_it(work, name, *more, check=True):
    return dewey(
        "eval", "mini", "bm25", "--suite", work / "data", "--results", work / name,
        "--cache", work / "cache", "-o", work / f"{name}.json", *more, check=check,
    )  # fmt: skip


def test_all_modes_and_a_peer_are_measured_and_the_same_twice(work):
    first = run_it(work, "first")
    assert "mini hybrid" in first.stdout
    assert "bm25" in first.stdout
    assert "BM25S" not in first.stderr  # bars are for terminals
    again = run_it(work, "again")
    assert again.stdout.splitlines()[:12] == first.stdout.splitlines()[:12]
    found = json.loads((work / "first.json").read_text())
    main, intervals, differences = found["tables"]
    assert [row[0] for row in intervals["rows"]] == [row[0] for row in differences["rows"]]
    names = [column["name"] for column in main["columns"]]
    assert names == ["task", "measure", "mini single", "mini multi", "mini hybrid", "bm25"]
    assert [row[0] for row in main["rows"]] == ["one", "two", "mean"]
    assert main["rows"][0][-1] == 1.0  # every marker is in one document only
    assert "measured" not in again.stderr


def test_a_finished_run_measures_nothing_again_and_some_tasks_can_be_asked_for(work):
    run_it(work, "first")
    done = run_it(work, "first", "--tasks", "two", "--finished-only")
    assert "two: mini" not in done.stderr
    assert "| two " in done.stdout
    assert "| one " not in done.stdout


def test_a_killed_run_goes_on_with_the_task_it_was_in(work):
    words = [
        "eval", "mini", "--mode", "multi", "--suite", work / "data",
        "--results", work / "killed", "--cache", work / "other-cache",
    ]  # fmt: skip
    run = Dewey(*words, **ENVIRONMENT)
    while "two" not in run.printed("stderr"):
        assert run.poll() is None, run.printed("stderr")
        time.sleep(0.01)
    run.kill()
    run.communicate(timeout=60)
    assert run.returncode == -signal.SIGKILL
    done = dewey(*words)
    assert "one: mini multi" not in done.stderr
    assert "two: mini multi" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mini", "--suite", "nonsense"], "nonsense"),
        (["mini", "mini", "--suite", "DATA"], "twice"),
        (["mini", "--suite", "DATA", "--tasks", "three"], "no task three"),
        (["./nowhere", "--suite", "DATA"], "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(work, arguments, message):
    arguments = [str(work / "data") if each == "DATA" else each for each in arguments]
    done = dewey("eval", *arguments, "--results", work / "refused", check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_a_wrong_task_is_refused_with_its_file_and_line(work):
    folder = write_task(work / "wrong" / "one", num_documents=3)
    with (folder / "qrels.tsv").open("a") as qrels:
        qrels.write("q1\td0\t0.5\n")
    done = dewey(
        "eval", "bm25", "--suite", folder, "--results", work / "refused", check=False
    )  # fmt: skip
    assert done.returncode == 1
    assert "qrels.tsv, line 5" in done.stderr
    assert "'0.5'" in done.stderr


def test_faults_cost_themselves_and_are_told_in_the_findings(work):
    """A blank query, a dangling judgement and a torn task: the rest is measured."""
    for name in ("a_blank", "b_torn", "c_good"):
        write_task(work / "faults" / name, num_documents=4, words=4)
    with (work / "faults" / "a_blank" / "queries.jsonl").open("a") as queries:
        queries.write('{"_id": "blank", "text": " "}\n')
    with (work / "faults" / "a_blank" / "qrels.tsv").open("a") as qrels:
        qrels.write("blank\td0\t1\nq0\tnobody\t1\n")
    (work / "faults" / "b_torn" / "queries.jsonl").write_text('{"_id": "q0"\n')
    done = dewey(
        "eval", "mini", "bm25", "--mode", "single", "--suite", work / "faults", "--results",
        work / "some", "--cache", work / "cache", "-o", work / "some.json", check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "1 left out for having no words: 'blank' (line 5)" in done.stderr
    assert "not in corpus.jsonl: 'nobody' (line 7)" in done.stderr
    assert "dewey: failed: b_torn: " in done.stderr
    tables = {
        table["title"]: table["rows"] for table in read_strictly(work / "some.json")["tables"]
    }
    assert [row[0] for row in tables["Main scores"]] == ["a_blank", "c_good", "mean"]
    assert all(isinstance(score, float) for row in tables["Main scores"] for score in row[2:])
    [(task, model, reason)] = tables["Failed"]
    assert (task, model) == ("b_torn", "every model")
    assert "queries.jsonl, line 1" in reason
    assert [row[0] for row in tables["Left out of the tasks"]] == ["a_blank", "a_blank"]


def read_strictly(path):
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)
