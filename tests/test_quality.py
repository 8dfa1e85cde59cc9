"""`benchmarks/quality.py` on data of a few words, where the answers are known."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("pytrec_eval")

DOCUMENTS = {
    "ship": "The ship carries timber across the northern sea.",
    "rent": "A tenant pays the monthly rent to the landlord.",
    "bread": "Bakers knead dough before dawn.",
}
STS = [
    ("A cat sleeps.", "A cat sleeps.", 5.0),
    ('The "old" ship carries timber.', "The ship carries timber.", 4.0),
    ("Bakers knead dough.", "The parliament votes on taxes.", 0.0),
]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "eval" / "tiny"
    folder.mkdir(parents=True)
    rows = [{"_id": name, "title": "", "text": text} for name, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    asked = [{"_id": f"q-{name}", "text": text} for name, text in DOCUMENTS.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    judged = [f"q-{name}\t{name}\t1" for name in DOCUMENTS]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    sts = tmp_path / "data" / "sts" / "pairs.tsv"
    sts.parent.mkdir()
    lines = ["sentence1\tsentence2\tscore", *(f"{a}\t{b}\t{score}" for a, b, score in STS)]
    sts.write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


@pytest.fixture
def quality(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import quality

    return quality


def test_ndcg_is_as_computed_by_hand(quality):
    documents = dict.fromkeys("abx", "")
    task = quality.Retrieval("tiny", "", documents, {"q": ""}, {"q": {"a": 2, "b": 1}})
    scores = task.score(np.array([[0.1, 0.9, 0.5]], np.float32))  # ranked b, x, a
    ideal = 2 + 1 / np.log2(3)
    assert scores == {"ndcg@10": pytest.approx((1 + 2 / 2) / ideal), "recall@10": 1.0}


def test_documents_asked_for_by_their_own_words_come_first(quality, data, monkeypatch, capsys):
    output = data / "results.json"
    command = ["quality.py", "--data", str(data), "--output", str(output), "--no-teacher"]
    monkeypatch.setattr(sys, "argv", command)
    quality.main()
    tasks = json.loads(output.read_text())["tasks"]
    for mode in ("multi", "single_mean", "single_cls", "single_cls_add_mean"):
        assert tasks["tiny"]["model"]["scores"][mode] == {"ndcg@10": 1.0, "recall@10": 1.0}
    assert tasks["pairs"]["model"]["scores"]["mean"]["spearman"] == pytest.approx(1)
    printed = capsys.readouterr().out
    assert output.with_suffix(".md").read_text() == printed
    assert "| tiny | – | – | – | 1.0000 | 1.0000 | 1.0000 | – |" in printed

    quality.main()
    assert json.loads(output.read_text())["tasks"] == tasks, "a finished task was done again"
