"""Titles: what a document is called, by its title or by the name of its file."""

import pytest

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
