"""What each tool for agents takes: checked, described, and as JSON schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dewey_embed.errors import InputError
from dewey_embed.printable import short_repr

LEAST_TOKENS, MOST_TOKENS = 200, 100_000

MaxTokens = Annotated[
    int,
    Field(
        ge=LEAST_TOKENS,
        le=MOST_TOKENS,
        description="The most tokens that the complete answer may have.",
    ),
]
TopK = Annotated[int, Field(ge=1, le=100, description="How many results at most.")]
Filter = Annotated[
    dict[str, Any],
    Field(
        description="Metadata that documents must have: for each key a value, a range, or a list "
        'of which one must match, such as {"extension": [".pdf"], "year": {">=": 2020}}.'
    ),
]
DocumentId = Annotated[str, Field(description="The id of a document, or of a passage of it.")]


class Parameters(BaseModel):
    """What a tool takes; anything else is refused."""

    model_config = ConfigDict(extra="forbid")

    max_tokens: MaxTokens = 2_000


class SearchParameters(Parameters):
    """What `search` takes."""

    query: str = Field(description="A question or a description of what is sought, in words.")
    k: TopK = 5
    by: Literal["passage", "document"] = Field(
        "passage", description="What k counts. Documents come with their best three passages."
    )
    filter: Filter = {}


class FetchParameters(Parameters):
    """What `fetch` takes."""

    id: str = Field(
        description="The id of a document (its text from the beginning), or of a passage (the text "
        "around it)."
    )
    start: int | None = Field(None, ge=0, description="The first character to return.")
    end: int | None = Field(None, ge=0, description="The character after the last to return.")
    first_page: int | None = Field(None, ge=1, description="The first page, slide, sheet or cell.")
    last_page: int | None = Field(None, ge=1, description="The last; the first unless given.")
    max_tokens: MaxTokens = 4_000


class ExpandParameters(Parameters):
    """What `expand` takes."""

    id: str = Field(description="The id of a passage, from search or similar.")
    sentences: int = Field(5, ge=1, le=200, description="Sentences before it, and after it.")


class OutlineParameters(Parameters):
    """What `outline` takes."""

    id: DocumentId
    depth: int | None = Field(
        None,
        ge=1,
        le=9,
        description="Levels of headings; without it as many as fit, the widest first.",
    )
    start: int = Field(
        0, ge=0, description="List sections from this character on; next_start goes on."
    )


class SimilarParameters(Parameters):
    """What `similar` takes."""

    id: str | None = Field(None, description="The id of a passage, from search or similar.")
    text: str | None = Field(None, description="Or a text in words of its own.")
    k: TopK = 5
    other_documents: bool = Field(False, description="Only in other documents than the passage's.")
    filter: Filter = {}


Given = TypeVar("Given", bound=Parameters)


def parsed(kind: type[Given], name: str, arguments: dict[str, Any]) -> Given:
    """The arguments of a tool, checked; null stands for a parameter that is left out.

    Raises:
        InputError: an unknown or a missing parameter, or a value of another kind.

    """
    known = kind.model_fields
    arguments = {
        key: value for key, value in arguments.items() if value is not None or key not in known
    }
    try:
        return kind.model_validate(arguments)
    except ValidationError as error:
        faults = "; ".join(_fault(each) for each in error.errors())
        names = ", ".join(sorted(known, key="max_tokens".__eq__))
        raise InputError(f"{faults}. {name} takes {names}") from None


def schema_of(kind: type[Parameters]) -> dict[str, Any]:
    """The JSON schema of the parameters, in the order of their names."""
    schema: dict[str, Any] = kind.model_json_schema()
    properties = {name: _plain(value) for name, value in sorted(schema["properties"].items())}
    schema = {key: value for key, value in schema.items() if key not in ("title", "description")}
    return {**schema, "properties": properties}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter without its title and without null, which is its absence."""
    kinds = [each for each in schema.pop("anyOf", []) if each != {"type": "null"}]
    schema = {**schema, **(kinds[0] if kinds else {})}
    is_empty = schema.get("default", "") in (None, {})
    return {key: value for key, value in schema.items()
            if key != "title" and not (key == "default" and is_empty)}  # fmt: skip


def _fault(error: Any) -> str:
    """What is wrong with an argument."""
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"there is no parameter {short_repr(name)}"
    if error["type"] == "missing":
        return f"{name} is missing"
    message = error["msg"].replace("Input should be", "it must be")
    return f"{name} is {short_repr(error['input'])}; {message}"
