"""Contracts in LlamaIndex: split and embedded in one pass each, in an index of LlamaIndex's own.

Needs `pip install ".[llama-index]"`. `DeweyNodeParser` stands in place of a splitter; its nodes
bring their embeddings, and `DeweyEmbedding` embeds the queries.
"""

import sys

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import Document

from dewey_embed import Dewey
from dewey_embed.integrations.llama_index import DeweyEmbedding, DeweyNodeParser

CONTRACTS = [
    Document(
        id_="lease",
        text=(
            "Lease of the flat at 4 Mill Lane. The tenant pays 900 a month on the first Monday. "
            "Either side may end it with three months' notice. Pets need the owner's consent."
        ),
        metadata={"title": "Lease of a flat"},
    ),
    Document(
        id_="loan",
        text=(
            "Loan for a fishing boat. The bank lends 40,000 at 4%. Either side may end it "
            "with six weeks' notice. The boat is the security until all is repaid."
        ),
        metadata={"title": "Loan for a boat"},
    ),
]


def main() -> None:
    """Search the contracts, sentence by sentence."""
    model = Dewey.load()
    index = VectorStoreIndex.from_documents(
        CONTRACTS,
        transformations=[DeweyNodeParser(model, splitter="sentence", title_weight=1)],
        embed_model=DeweyEmbedding(model),
    )
    retriever = index.as_retriever(similarity_top_k=1)
    for query in ("how can the loan be ended?", "may I keep a dog in the flat?"):
        [found] = retriever.retrieve(query)
        node = found.node
        sys.stdout.write(
            f"{query}\n  {node.ref_doc_id} [{node.start_char_idx}:{node.end_char_idx}] "
            f"{node.get_content()}\n"
        )


if __name__ == "__main__":
    main()
