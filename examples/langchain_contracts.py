"""Contracts in LangChain: complete documents in, passages with their place out.

Needs `pip install ".[langchain]"`. The store reads each contract in one pass, so that a clause that
names neither party nor subject is found by what its contract is about.
"""

import sys

from langchain_core.documents import Document

from dewey_embed.integrations.langchain import DeweyEmbeddings, DeweyVectorStore

CONTRACTS = [
    Document(
        id="lease",
        page_content=(
            "Lease of the flat at 4 Mill Lane. The tenant pays 900 a month on the first Monday. "
            "Either side may end it with three months' notice. Pets need the owner's consent."
        ),
        metadata={"title": "Lease of a flat", "year": 2021},
    ),
    Document(
        id="loan",
        page_content=(
            "Loan for a fishing boat. The bank lends 40,000 at 4%. Either side may end it "
            "with six weeks' notice. The boat is the security until all is repaid."
        ),
        metadata={"title": "Loan for a boat", "year": 2023},
    ),
]


def main() -> None:
    """Search the contracts through a retriever."""
    store = DeweyVectorStore.from_documents(CONTRACTS, DeweyEmbeddings())
    retriever = store.as_retriever(search_kwargs={"k": 1})
    for query in ("how can the loan be ended?", "may I keep a dog in the flat?"):
        [passage] = retriever.invoke(query)
        place = passage.metadata
        sys.stdout.write(
            f"{query}\n  {place['document_id']} [{place['char_start']}:{place['char_end']}] "
            f"{passage.page_content}\n"
        )


if __name__ == "__main__":
    main()
