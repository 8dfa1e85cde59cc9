"""Titles: what a document is called, by its title or by the name of its file."""

import pytest

from dewey_embed import Index
from dewey_embed.index.tables import file_name, title_text
from dewey_embed.types import Document


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (Document(id="1", text="", title="Annual report"), "Annual report"),
        (Document(id="/c/lease_2024-v2.pdf", source="/c/lease_2024-v2.pdf", text=""), "lease"),
        (
            Document(id="/c/a.pdf", source="/c/a.pdf", text="", title="Lease of the mill"),
            "Lease of the mill",
        ),
        (
            Document(id="/c/müll_Vertrag.txt", source="/c/müll_Vertrag.txt", text="", title=""),
            "müll Vertrag",
        ),
        (Document(id="/c/2503.20376.pdf", source="/c/2503.20376.pdf", text=""), ""),
        (Document(id="r1", source="/c/x.jsonl", text=""), ""),
        (Document(id="n", text=""), ""),
    ],
)
def test_a_document_is_called_by_its_title_or_the_words_of_its_files_name(document, text):
    assert title_text(document) == text
    assert (file_name(document) == "") == (document.id != document.source)


CLAUSES = (
    "The price is payable within seven days of the invoice.",
    "This instrument is governed by the laws of the Republic of Ireland.",
    "Either side may end the arrangement by giving ninety days written notice.",
)


@pytest.mark.parametrize(
    "top", ["Supply agreement between Elmsworth Dairy and Fenwick Glass\n\n", ""]
)
def test_a_title_in_the_text_does_not_draw_questions_to_its_own_passage(top, tmp_path):
    text = top + "\n\n".join(clause + "  Nothing else is changed by it." * 12 for clause in CLAUSES)
    title = "" if top else "Supply agreement between Elmsworth Dairy and Fenwick Glass"
    with Index.open(tmp_path / "index") as index:
        index.add(Document(id="lease", title=title, text=text))
        question = "Which law governs the contract between Elmsworth Dairy and Fenwick Glass?"
        [hit] = index.search(question, k=1, passages=1)
    assert "laws of the Republic of Ireland" in hit.passages[0].text


def test_a_short_first_paragraph_answers_like_any_other(tmp_path):
    others = "Ships carry timber from the north to the south. " * 20 + "Sailors pay for the ropes."
    with Index.open(tmp_path / "index") as index:
        index.add(Document(id="lease", text=f"The tenant pays the rent.\n\n{others}"))
        [hit] = index.search("who pays the rent?", k=1, passages=1)
    assert "tenant pays the rent" in hit.passages[0].text


def test_a_document_that_is_a_title_alone_is_found_by_its_words(tmp_path):
    with Index.open(tmp_path / "index") as index:
        index.add(
            [
                Document(id="mill", text="Lease of the mill at Harrow\n\n"),
                Document(id="barn", text="The lease of a mill is treated elsewhere, not in this."),
            ]
        )
        [first] = index.search("Lease of the mill at Harrow", k=1)
    assert first.document_id == "mill"
