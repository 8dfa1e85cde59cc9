"""`dewey mine`: hard negatives, beside Sentence Transformers' own, and what is left out."""

import json
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dewey_embed import Dewey
from dewey_embed.errors import ConfigError, InputError, ReadError
from dewey_embed.eval.pools import read_pool
from dewey_embed.train.negatives import Pool, Question, encode_passages, mine
from dewey_embed.train.pairs import read_pairs
from tests.commands import ended

PASSAGES = [
    paragraph
    for _, text in sorted(topics.items())
    for paragraph in text.split("\n\n")[1:4]
    if 80 < len(paragraph) < 600
][:120]
PAIRS = [
    {"question": " ".join(passage.split()[:9]), "passage": passage} for passage in PASSAGES[:30]
] + [{"question": " ".join(PASSAGES[0].split()[:9]), "passage": PASSAGES[40]}]


@pytest.fixture(scope="module")
def model():
    return Dewey.load(dtype="float32")


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class AsTheirs:
    """A Dewey model with the names that `mine_hard_negatives` calls."""

    device = torch.device("cpu")

    def __init__(self, model):
        from sentence_transformers import util

        self.similarity, self.similarity_pairwise = util.cos_sim, util.pairwise_cos_sim
        self.encode_query = lambda texts, **_: model.encode_query(texts)
        self.encode_document = lambda texts, **_: model.encode(texts, prompt_name="document")


@pytest.mark.parametrize("margin", [0.95, 0.8])
def test_without_documents_it_chooses_as_sentence_transformers_does(model, tmp_path, margin):
    pytest.importorskip("datasets")
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    theirs = mine_hard_negatives(
        Dataset.from_list(PAIRS), AsTheirs(model), anchor_column_name="question",
        positive_column_name="passage", relative_margin=1 - margin, num_negatives=3,
        range_max=len(PAIRS) - 2, output_format="n-tuple", output_scores=True, verbose=False,
    )  # fmt: skip
    pool = read_pairs(written(tmp_path / "pairs.jsonl", PAIRS))
    ours = mine(model, pool, negatives=3, margin=margin, scores=True).rows
    assert 20 < len(ours) == len(theirs)
    for mine_, row in zip(ours, theirs, strict=True):
        assert (mine_["anchor"], mine_["positive"]) == (row["question"], row["passage"])
        assert [mine_[f"negative_{n}"] for n in (1, 2, 3)] == [
            row[f"negative_{n}"] for n in (1, 2, 3)
        ]
        assert mine_["scores"] == pytest.approx(row["scores"], abs=1e-5)


TALES = [
    "The miller keeps bees. The mill grinds corn. Bees make honey in the mill. ",
    "The smith shoes horses. The forge is hot. Horses eat corn at the forge. ",
    "The miller keeps bees. The ferry crosses the river. Corn goes over the river. ",
]


@pytest.fixture
def folder(tmp_path):
    """Three tales of three sentences, the first of two tales the same; and five questions."""
    documents, chunks = [], []
    for number, text in enumerate(TALES):
        documents.append({"_id": f"t{number}", "title": "", "text": text})
        end = 0
        for place in range(3):
            start, end = end, text.index(". ", end) + 2
            chunks.append(
                {"_id": f"t{number}:{place}", "doc": f"t{number}", "start": start, "end": end}
            )
    written(tmp_path / "documents.jsonl", documents)
    written(tmp_path / "chunks.jsonl", chunks)
    questions = {"q0": "what does the miller keep?", "q1": "what do horses eat?",
                 "q2": "what crosses the river?", "q3": "nobody asks", "q4": " "}  # fmt: skip
    written(tmp_path / "queries.jsonl", [{"_id": name, "text": t} for name, t in questions.items()])
    judged = "q0\tt0:0\t1\nq1\tt1:2\t1\nq2\tt2:1\t1\n"
    (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*left out for having no words")
def test_half_of_the_negatives_are_from_the_document_that_answers(model, folder):
    pool = read_pool(folder)
    rows = mine(model, pool, negatives=4, margin=1.0).rows
    assert [row["anchor"] for row in rows] == [
        "what does the miller keep?", "what do horses eat?", "what crosses the river?"
    ]  # fmt: skip
    for row, tale in zip(rows, TALES, strict=True):
        chosen = [row[f"negative_{number}"] for number in range(1, 5)]
        assert sum(each in tale and each != row["positive"] for each in chosen) >= 2
        assert row["positive"] not in chosen
        assert len(set(chosen)) == 4


@pytest.mark.filterwarnings("ignore:.*left out for having no words")
def test_passages_of_documents_have_their_vectors_from_one_pass(model, folder):
    pool = read_pool(folder)
    vectors = encode_passages(model, pool)
    one = model.encode_document(TALES[1], spans=pool.places[1]).chunks
    assert vectors[3:6] == pytest.approx(one, abs=1e-5)
    alone = model.encode(pool.texts[3], prompt_name="document")
    assert abs(float(vectors[3] @ alone)) < 0.999


@pytest.mark.filterwarnings("ignore:.*left out for having no words")
def test_a_passage_nearer_than_the_margin_is_no_negative(model, folder):
    pool = read_pool(folder)
    for margin in (0.95, 0.6):
        mined = mine(model, pool, negatives=1, margin=margin, scores=True)
        for row in mined.rows:
            positive, *negatives = row["scores"]
            assert max(negatives) <= margin * positive + 1e-6
            assert negatives == sorted(negatives, reverse=True)
    strict = mine(model, pool, negatives=1, margin=0.6).num_too_near
    assert strict > mine(model, pool, negatives=1, margin=1.0).num_too_near


def test_what_overlaps_an_answer_is_no_negative(model):
    text = "The miller keeps bees in the garden behind the mill, and sells honey on Mondays."
    spans = [(0, 30), (20, 60), (60, len(text))]
    pool = Pool(
        texts=[text[start:end] for start, end in spans], owners=np.zeros(3, np.int64),
        questions=[Question("q", "who keeps bees?", (0,))], documents=[text], places=[spans],
    )  # fmt: skip
    assert pool.answers((0,)).tolist() == [True, True, False]
    rows = mine(model, pool, negatives=1, margin=1.0).rows
    assert rows[0]["negative_1"] == text[60:]


@pytest.mark.filterwarnings("ignore:.*left out for having no words")
def test_questions_without_passages_and_rows_of_few_are_named(model, folder):
    mined = mine(model, read_pool(folder), negatives=4)
    assert mined.left_out["without a passage"] == ["q3"]
    said = r"1 without a passage; 3 with fewer than 40 passages below the margin; \d+ passages are"
    with pytest.raises(InputError, match=rf"no question has enough negatives \({said} nearer"):
        mine(model, read_pool(folder), negatives=40)


def test_rows_of_pairs_without_a_question_or_a_passage_are_named(model, tmp_path):
    rows = [{"question": "", "passage": "x"}, {"question": "y"}, {"question": 3, "passage": " "},
            {"question": "bees?", "passage": "The miller keeps bees."},
            {"question": "corn?", "passage": "The mill grinds corn all day."},
            {"question": "oak?", "passage": "An oak \ud800 stands."},
            {"question": "elm?", "passage": ["An elm", "stands."]}]  # fmt: skip
    pool = read_pairs(written(tmp_path / "pairs.jsonl", rows))
    assert pool.left_out == {
        "without a question": ["row 1"], "without a passage": ["row 2", "row 3"],
        "with half of a surrogate pair, which is not Unicode text": ["row 6"],
        "whose passage is a list, not a text": ["row 7"],
    }  # fmt: skip
    assert len(mine(model, pool, negatives=1, margin=1.0).rows) == 2
    nothing = read_pairs(written(tmp_path / "none.jsonl", rows[:3]))
    with pytest.raises(InputError, match=r"no question has .* \(1 without a question; 2 without"):
        mine(model, nothing)


def test_parquet_and_json_lines_give_the_same_and_say_so(tmp_path, capsys):
    rows = [{"query": each["question"], "text": each["passage"], "doc": f"d{number // 6}"}
            for number, each in enumerate(PAIRS)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    written(tmp_path / "pairs.jsonl", [*rows, {"query": "", "text": "x", "doc": "d"}])
    for kind in ("parquet", "jsonl"):
        out = tmp_path / f"{kind}.out"
        assert ended("mine", tmp_path / f"pairs.{kind}", "-o", out, "--margin", "0.9") == 0
    output, errors = capsys.readouterr()
    assert "dewey: left out: 1 without a question: row 32\n" in errors
    num = len({each["query"] for each in rows})
    said = f"{len(rows)} rows of 4 negatives, for {num} of {num} questions with a passage; "
    assert output.count(said) == 2
    lines = (tmp_path / "parquet.out").read_text()
    assert lines == (tmp_path / "jsonl.out").read_text()
    columns = ["anchor", "positive", *(f"negative_{number}" for number in range(1, 5))]
    assert list(json.loads(lines.splitlines()[0])) == columns


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"question": "a"}\n', "has no column passage or positive or answer"),
        ("", "holds no rows; give a file with a question and a passage in each"),
        ('{"question": "a", "passage": "b"}\nnonsense\n', "line 2: is not JSON"),
        ("[1]\n", "line 1: is a JSON list, not an object"),
    ],
)
def test_a_file_without_pairs_is_refused(tmp_path, text, said):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(ReadError, match=said):
        read_pairs(path)


def test_the_output_may_be_in_a_new_folder_and_is_no_folder(tmp_path, capsys):
    source = written(tmp_path / "pairs.jsonl", PAIRS)
    assert ended("mine", source, "-o", tmp_path / "new" / "out.jsonl", "--margin", "0.9") == 0
    assert (tmp_path / "new" / "out.jsonl").read_text()
    before = source.read_bytes()
    assert ended("mine", source, "-o", tmp_path / "new" / ".." / "pairs.jsonl") == 1
    assert "is the file of pairs that is read" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert ended("mine", source, "-o", tmp_path) == 1
    assert "is a folder; name a file" in capsys.readouterr().err


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "pairs.parquet").write_text("x")
    with pytest.raises(ReadError, match="cannot be read"):
        read_pairs(tmp_path / "pairs.parquet")


@pytest.mark.parametrize(
    "options", [{"negatives": 0}, {"same_document": 5}, {"margin": 0.0}, {"margin": 1.1}]
)
def test_impossible_numbers_are_refused(model, tmp_path, options):
    pool = read_pairs(written(tmp_path / "pairs.jsonl", PAIRS[:2]))
    with pytest.raises(ConfigError, match="need at least one"):
        mine(model, pool, **options)
