"""A small corpus whose every other document answers one question."""

import json
from pathlib import Path
from random import Random

import pytest

from dewey_embed.encoder import Dewey
from dewey_embed.eval.generated import essay, facts

ANSWERS, OTHERS = 10, 10


def write_corpus(
    folder: Path, *, answers: int = ANSWERS, others: int = OTHERS, sentences: int = 1
) -> Path:
    """A folder in BEIR's layout: first short documents with a fact each, then others."""
    folder.mkdir(parents=True)
    known = facts(answers, Random(5))
    prose = essay(20_000).replace("\n\n", " ").split(". ")
    documents = [
        ". ".join([one.sentence.removesuffix("."), *prose[number : number + sentences]]) + "."
        for number, one in enumerate(known)
    ]
    documents += [
        ". ".join(prose[start : start + 3]) + "." for start in range(40, 40 + 3 * others, 3)
    ]
    write = {
        "corpus.jsonl": [
            {"_id": f"d{number}", "text": text} for number, text in enumerate(documents)
        ],
        "queries.jsonl": [
            {"_id": f"q{number}", "text": one.question} for number, one in enumerate(known)
        ],
    }
    for name, records in write.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = [f"q{number}\td{number}\t1" for number in range(answers)]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("audits") / "towns")


@pytest.fixture(scope="session")
def mini() -> Dewey:
    return Dewey.load(device="cpu")
