"""`dewey mine`: hard negatives for questions, in columns that Sentence Transformers reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console, options
from dewey_embed.errors import ConfigError
from dewey_embed.files import write_text
from dewey_embed.printable import first_few

MOST_NAMED = 5


Source = Annotated[
    Path,
    typer.Argument(
        help="Pairs in JSON lines or Parquet; or a folder with documents.jsonl, chunks.jsonl, "
        "queries.jsonl and qrels.tsv, or in BEIR's layout."
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", callback=options.writable, help="The file of JSON lines to write."
    ),
]
Negatives = Annotated[
    int, typer.Option(min=1, max=1000, help="Negatives for each question and passage.")
]
SameDocument = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Negatives from the document that answers; where it has too few, others stand in. "
        "Default: half.",
    ),
]
Margin = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=1,
        help="The most of its answer's cosine that a negative may have: what is nearer is likely "
        "an answer, too.",
    ),
]
Scores = Annotated[
    bool, typer.Option("--scores", help="Write the cosines, too, in a column scores.")
]
QuestionField = Annotated[
    str | None,
    typer.Option(help="Column of pairs with the question. Default: question, query or anchor."),
]
PassageField = Annotated[
    str | None,
    typer.Option(
        help="Column of pairs with the passage. Default: passage, positive, answer, document or "
        "text."
    ),
]
DocumentField = Annotated[
    str | None,
    typer.Option(
        help="Column of pairs with the name of the passage's document. Default: document_id, "
        "doc_id, doc or source, if there is one."
    ),
]


def mine(
    source: Source,
    *,
    output: Output,
    model: options.Model = None,
    negatives: Negatives = 4,
    same_document: SameDocument = None,
    margin: Margin = 0.95,
    window: options.Window = 2048,
    scores: Scores = False,
    question_field: QuestionField = None,
    passage_field: PassageField = None,
    document_field: DocumentField = None,
    device: options.Device = None,
) -> None:
    """Mine hard negatives: passages that a model finds near a question and that do not answer it.

    Passages that come too near are left out as likely answers (TopK-PercPos, arXiv 2407.15831).
    Each line has anchor, positive, negative_1, ... as MultipleNegativesRankingLoss of Sentence
    Transformers reads them.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise ConfigError(f"{output}: is the file of pairs that is read; give another path")
    from dewey_embed.encoder import Dewey
    from dewey_embed.train.negatives import mine as run_mining

    if source.is_dir():
        from dewey_embed.eval.pools import read_pool

        pool = read_pool(source)
    else:
        from dewey_embed.train.pairs import read_pairs

        pool = read_pairs(
            source,
            question_field=question_field,
            passage_field=passage_field,
            document_field=document_field,
        )
    mined = run_mining(
        Dewey.load(model, device=device), pool,
        negatives=negatives, same_document=same_document, margin=margin, window=window,
        scores=scores, progress=True,
    )  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in mined.rows)
    write_text(output, "".join(lines))
    _name(mined.left_out)
    console.echo(
        f"{output}: {len(mined.rows):,} rows of {negatives} negatives, for {mined.num_questions:,} "
        f"of {len(pool.questions):,} questions with a passage; {mined.num_too_near:,} passages "
        "nearer than the margin left out"
    )


def _name(left_out: Mapping[str, Sequence[str]]) -> None:
    """Say on standard error of how many questions rows are missing, and why."""
    for reason, names in left_out.items():
        console.say(f"left out: {len(names):,} {reason}: {first_few(names, MOST_NAMED)}")
