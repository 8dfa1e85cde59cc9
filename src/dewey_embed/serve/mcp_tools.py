"""The tools that agents call: for each its parameters, its function, and when to use it.

An answer is one JSON object whose text stays within `max_tokens`. What does not fit is cut at
sentences or left out, and the answer says how much, and how to get the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from dewey_embed.serve.mcp_budget import Answer
from dewey_embed.serve.mcp_parameters import (
    ExpandParameters,
    FetchParameters,
    Given,
    OutlineParameters,
    SearchParameters,
    SimilarParameters,
)
from dewey_embed.serve.mcp_places import Library
from dewey_embed.serve.mcp_reading import expand, fetch, outline
from dewey_embed.serve.mcp_search import search, similar


@dataclass(frozen=True, slots=True)
class Tool(Generic[Given]):
    """A tool: its parameters, its function, and what an agent reads about it."""

    parameters: type[Given]
    answer: Callable[[Library, Given], Answer]
    title: str
    description: str


TOOLS: dict[str, Tool[Any]] = {
    "search": Tool(
        SearchParameters,
        search,
        "Search the documents",
        "Use this to find where something is said in the documents: facts, clauses, numbers. "
        "Ask in words, as a person would. Returns the best passages with their text, id, title, "
        "address, page, headings and characters, which you can cite. Call expand with a passage's "
        "id to read around it, fetch to read on.",
    ),
    "fetch": Tool(
        FetchParameters,
        fetch,
        "Read a document",
        "Use this to read a document, or a range of its characters or pages. What does not fit is "
        "named as before and after: fetch again with that start and end. For a passage's id it "
        "returns the text around the passage.",
    ),
    "expand": Tool(
        ExpandParameters,
        expand,
        "Read around a passage",
        "Use this to read the sentences around a passage that search found, before you rely on it.",
    ),
    "outline": Tool(
        OutlineParameters,
        outline,
        "See the sections of a document",
        "Use this to see how a long document is divided before reading it: its headings, or pages, "
        "with the characters at which each starts and ends, for fetch.",
    ),
    "similar": Tool(
        SimilarParameters,
        similar,
        "Find the same elsewhere",
        "Use this to find where else something is said: in other documents or in other places of "
        "the same one. Give a passage's id or a text.",
    ),
}
"""The tools by their names, in the order in which they are listed."""
