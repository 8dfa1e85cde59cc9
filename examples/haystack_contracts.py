"""Contracts in Haystack: one component splits and embeds, in one pass a document.

Needs `pip install ".[haystack]"`. `DeweyDocumentEmbedder` stands in place of a splitter and an
embedder; `DeweyTextEmbedder` embeds the queries.
"""

import sys

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from dewey_embed import Dewey
from dewey_embed.integrations.haystack import DeweyDocumentEmbedder, DeweyTextEmbedder

CONTRACTS = [
    Document(
        id="lease",
        content=(
            "Lease of the flat at 4 Mill Lane. The tenant pays 900 a month on the first Monday. "
            "Either side may end it with three months' notice. Pets need the owner's consent."
        ),
        meta={"title": "Lease of a flat"},
    ),
    Document(
        id="loan",
        content=(
            "Loan for a fishing boat. The bank lends 40,000 at 4%. Either side may end it "
            "with six weeks' notice. The boat is the security until all is repaid."
        ),
        meta={"title": "Loan for a boat"},
    ),
]


def main() -> None:
    """Write the contracts' sentences to a store, and search them."""
    model = Dewey.load()
    store = InMemoryDocumentStore()
    writing = Pipeline()
    embedder = DeweyDocumentEmbedder(model, splitter="sentence", title_weight=1)
    writing.add_component("embedder", embedder)
    writing.add_component("writer", DocumentWriter(store))
    writing.connect("embedder", "writer")
    writing.run({"embedder": {"documents": CONTRACTS}})

    searching = Pipeline()
    searching.add_component("embedder", DeweyTextEmbedder(model))
    searching.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    searching.connect("embedder.embedding", "retriever.query_embedding")
    for query in ("how can the loan be ended?", "may I keep a dog in the flat?"):
        [found] = searching.run({"embedder": {"text": query}})["retriever"]["documents"]
        meta = found.meta
        sys.stdout.write(
            f"{query}\n  {meta['source_id']} [{meta['split_idx_start']}:{meta['split_idx_end']}] "
            f"{found.content}\n"
        )


if __name__ == "__main__":
    main()
