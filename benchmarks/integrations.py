"""LangChain, LlamaIndex and Haystack: chunks read alone, and documents read in one pass.

    OMP_NUM_THREADS=2 python benchmarks/integrations.py data/context/medquad_sections_dev

The suite's queries ask for a section of a document, and most sections do not name what they are
about. Documents are drawn (`--documents`), and all their sections are ranked. The sections are the
suite's own in every route: alone, each is a document of the framework's; with its title, each has
the title before it, as the framework does it where it does; in one pass, a splitter gives their
ranges. A passage of an `Index`, which cuts documents itself, stands for the section that it
overlaps most. Each route is the calls that its users make, with the same model. Results are written
to benchmarks/results/integrations.json, with a table beside it and in docs/integrations.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import haystack
import numpy as np
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from langchain_core.documents import Document as LangChainDocument
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import Document as LlamaIndexDocument
from llama_index.core.schema import TextNode
from recording import RESULTS, write_page

from dewey_embed import Dewey
from dewey_embed.eval.passages import PassageData, Place, read_passages
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.eval.scores import interval, query_scores
from dewey_embed.files import write_text
from dewey_embed.integrations.haystack import DeweyDocumentEmbedder, DeweyTextEmbedder
from dewey_embed.integrations.langchain import DeweyEmbeddings, DeweyVectorStore
from dewey_embed.integrations.llama_index import DeweyEmbedding, DeweyNodeParser, DeweyRetriever

PACKAGES = ("langchain-core", "llama-index-core", "haystack-ai")
SEED = 20
TOP = 10
PASSAGES = 50
"""Passages of an index that are looked at for its ten best sections."""

DOCS = Path(__file__).parents[1] / "docs" / "integrations.md"
MARKS = ("<!-- measured -->\n", "<!-- /measured -->")

Search = Callable[[str], Sequence[str]]
"""The ids of the best sections for a query, best first."""


@dataclass(frozen=True)
class Suite:
    """Drawn documents, their sections, and the queries that these answer."""

    titles: Mapping[str, str]
    texts: Mapping[str, str]
    places: Mapping[str, Place]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    @classmethod
    def drawn(cls, data: PassageData, num: int) -> Suite:
        """The suite over as many of its documents."""
        rng = np.random.default_rng(SEED)
        names = set(map(str, rng.permutation(sorted(data.documents))[:num]))
        places = {key: place for key, place in data.places.items() if place.document in names}
        qrels = {
            query: gains
            for query, gains in data.chunks.qrels.items()
            if gains.keys() <= set(places)
        }
        return cls(
            titles={name: data.documents[name].title for name in sorted(names)},
            texts={name: data.documents[name].text for name in sorted(names)},
            places=places,
            queries={query: data.chunks.queries[query] for query in qrels},
            qrels=qrels,
        )

    @cached_property
    def sections_of(self) -> dict[str, dict[str, Place]]:
        """The sections of each document by their ids."""
        sections: dict[str, dict[str, Place]] = {name: {} for name in self.texts}
        for key, place in self.places.items():
            sections[place.document][key] = place
        return sections

    def sections(self) -> Iterator[tuple[str, str, str]]:
        """The id, the title and the text of each section."""
        for key, (document, start, end) in self.places.items():
            yield key, self.titles[document], self.texts[document][start:end]

    def split(self, text: str) -> list[tuple[int, int]]:
        """The ranges of the sections of a document's text."""
        [name] = [name for name, known in self.texts.items() if known == text]
        return [place[1:] for place in self.sections_of[name].values()]

    def section_at(self, document: str, start: int, end: int) -> str:
        """The section that a range overlaps most; a name of its own where it overlaps none."""
        place = Place(document, start, end)
        sections = self.sections_of[document]
        best = max(sections, key=lambda key: place.overlap(sections[key]))
        return best if place.overlap(sections[best]) else f"{document}, between sections"


def langchain_alone(suite: Suite, model: Dewey, *, titled: bool) -> Search:
    """LangChain's store in memory, over sections."""
    store = InMemoryVectorStore(DeweyEmbeddings(model))
    store.add_documents(
        [
            LangChainDocument(id=key, page_content=f"{title}\n\n{text}" if titled else text)
            for key, title, text in suite.sections()
        ]
    )
    return lambda query: [each.id or "" for each in store.similarity_search(query, k=TOP)]


def langchain_index(suite: Suite, model: Dewey, folder: Path) -> Search:
    """Dewey's store under LangChain, over documents."""
    documents = [
        LangChainDocument(id=name, page_content=text, metadata={"title": suite.titles[name]})
        for name, text in suite.texts.items()
    ]
    store = DeweyVectorStore.from_documents(documents, DeweyEmbeddings(model), index=folder)
    retriever = store.as_retriever(search_kwargs={"k": PASSAGES})

    def search(query: str) -> Sequence[str]:
        places = [each.metadata for each in retriever.invoke(query)]
        return [
            suite.section_at(each["document_id"], each["char_start"], each["char_end"])
            for each in places
        ]

    return search


def llama_index_alone(suite: Suite, model: Dewey, *, titled: bool) -> Search:
    """LlamaIndex's index over sections; it puts metadata before the text that it embeds."""
    nodes = [
        TextNode(id_=key, text=text, metadata={"title": title} if titled else {})
        for key, title, text in suite.sections()
    ]
    index = VectorStoreIndex(nodes, embed_model=DeweyEmbedding(model))
    retriever = index.as_retriever(similarity_top_k=TOP)
    return lambda query: [each.node.node_id for each in retriever.retrieve(query)]


def llama_index_pass(suite: Suite, model: Dewey, *, title_weight: float) -> Search:
    """LlamaIndex's index over the nodes of documents read in one pass each."""
    index = VectorStoreIndex.from_documents(
        llama_index_documents(suite),
        transformations=[DeweyNodeParser(model, splitter=suite.split, title_weight=title_weight)],
        embed_model=DeweyEmbedding(model),
    )
    retriever = index.as_retriever(similarity_top_k=TOP)

    def search(query: str) -> Sequence[str]:
        nodes = [each.node for each in retriever.retrieve(query)]
        return [
            suite.section_at(each.ref_doc_id, each.start_char_idx, each.end_char_idx)
            for each in nodes
        ]

    return search


def llama_index_index(suite: Suite, model: Dewey, folder: Path) -> Search:
    """Dewey's retriever under LlamaIndex, over documents."""
    from dewey_embed import Index

    retriever = DeweyRetriever(Index.open(folder, model), similarity_top_k=PASSAGES)
    retriever.add_documents(llama_index_documents(suite))

    def search(query: str) -> Sequence[str]:
        nodes = [each.node for each in retriever.retrieve(query)]
        return [
            suite.section_at(each.ref_doc_id, each.start_char_idx, each.end_char_idx)
            for each in nodes
        ]

    return search


def llama_index_documents(suite: Suite) -> list[LlamaIndexDocument]:
    """The documents with their titles."""
    return [
        LlamaIndexDocument(id_=name, text=text, metadata={"title": suite.titles[name]})
        for name, text in suite.texts.items()
    ]


def haystack_alone(suite: Suite, model: Dewey, *, titled: bool) -> Search:
    """Haystack's store in memory, over sections."""
    documents = [
        haystack.Document(id=key, content=f"{title}\n{text}" if titled else text)
        for key, title, text in suite.sections()
    ]
    embedder = DeweyDocumentEmbedder(model, splitter=lambda text: [(0, len(text))])
    return haystack_search(model, embedder, documents, lambda meta: meta["source_id"])


def haystack_pass(suite: Suite, model: Dewey, *, title_weight: float) -> Search:
    """Haystack's store in memory, over the chunks of documents read in one pass each."""
    documents = [
        haystack.Document(id=name, content=text, meta={"title": suite.titles[name]})
        for name, text in suite.texts.items()
    ]
    embedder = DeweyDocumentEmbedder(model, splitter=suite.split, title_weight=title_weight)
    return haystack_search(
        model,
        embedder,
        documents,
        lambda meta: suite.section_at(
            meta["source_id"], meta["split_idx_start"], meta["split_idx_end"]
        ),
    )


def haystack_search(
    model: Dewey,
    embedder: DeweyDocumentEmbedder,
    documents: list[haystack.Document],
    section: Callable[[dict], str],
) -> Search:
    """Haystack's pipeline over what an embedder makes of documents."""
    store = InMemoryDocumentStore()
    store.write_documents(embedder.run(documents)["documents"])
    pipeline = haystack.Pipeline()
    pipeline.add_component("embedder", DeweyTextEmbedder(model))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=TOP))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")

    def search(query: str) -> Sequence[str]:
        found = pipeline.run({"embedder": {"text": query}})["retriever"]["documents"]
        return [section(each.meta) for each in found]

    return search


Framework = Literal["LangChain", "LlamaIndex", "Haystack"]


def routes(
    suite: Suite, model: Dewey, folder: Path
) -> Iterator[tuple[Framework, str, Callable[[], Search]]]:
    """Each route by its framework and what it does."""
    alone = "each section alone"
    titled = "each section alone, its title before it"
    one_pass, weighted = "one pass a document", "one pass a document, with title_weight 1"
    over_index = "one pass a document, searched by Index"
    for framework, sections in (
        ("LangChain", langchain_alone),
        ("LlamaIndex", llama_index_alone),
        ("Haystack", haystack_alone),
    ):
        yield framework, alone, lambda make=sections: make(suite, model, titled=False)
        yield framework, titled, lambda make=sections: make(suite, model, titled=True)
    for framework, documents in (("LlamaIndex", llama_index_pass), ("Haystack", haystack_pass)):
        yield framework, one_pass, lambda make=documents: make(suite, model, title_weight=0)
        yield framework, weighted, lambda make=documents: make(suite, model, title_weight=1)
    for framework, make in (("LangChain", langchain_index), ("LlamaIndex", llama_index_index)):
        yield framework, over_index, lambda make=make: make(suite, model, folder / make.__name__)


def measured(suite: Suite, make: Callable[[], Search]) -> list[Cell]:
    """NDCG@10 with its interval, and recall@5."""
    search = make()
    ranking = {}
    for query, text in suite.queries.items():
        best = list(dict.fromkeys(search(text)))[:TOP]
        ranking[query] = {key: float(TOP - rank) for rank, key in enumerate(best)}
    scores = query_scores(suite.qrels, ranking).values()
    mean, low, high = interval(np.array([each["ndcg_at_10"] for each in scores]))
    recall = float(np.mean([each["recall_at_5"] for each in scores]))
    return [mean, f"{low:.3f} – {high:.3f}", recall]


def main() -> None:
    """Measure every route and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", type=Path, help="a folder of documents and their sections")
    parser.add_argument("--documents", type=int, default=100, help="documents that are drawn")
    options = parser.parse_args()
    suite = Suite.drawn(read_passages(options.suite), options.documents)
    model = Dewey.load()
    with tempfile.TemporaryDirectory() as folder:
        rows: list[list[Cell]] = []
        for framework, name, make in routes(suite, model, Path(folder)):
            rows.append([framework, name, *measured(suite, make)])
            print(*rows[-1], sep=" | ", flush=True)
    order = ["LangChain", "LlamaIndex", "Haystack"]
    rows.sort(key=lambda row: order.index(str(row[0])))
    names = ("framework", "route", "nDCG@10", "95% interval", "recall@5")
    page = ResultPage(
        kind="integrations",
        name="integrations",
        title="Sections read alone, and with their document",
        summary=(
            f"{options.suite.name}: {len(suite.queries)} queries, {len(suite.places)} sections of "
            f"{len(suite.texts)} documents drawn from {len(read_passages(options.suite).documents)}"
            f". The model is {model.name} in all routes."
        ),
        machine=Machine.running(model),
        tables=(
            Table(
                title="Sections read alone, and with their document",
                columns=tuple(Column(name=name, digits=3) for name in names),
                rows=tuple(map(tuple, rows)),
                notes=(f"{', '.join(f'{each} {version(each)}' for each in PACKAGES)}.",),
            ),
        ),
    )
    write_page(page, RESULTS / "integrations.json")
    table = (RESULTS / "integrations.md").read_text(encoding="utf-8")
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    body = "\n\n".join(part for part in table.split("\n\n") if not part.startswith(("#", "**")))
    write_text(DOCS, f"{before}{MARKS[0]}{body.strip()}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
