"""The table of targets: each a promise of Dewey's about any bytes, and how it is checked."""

from __future__ import annotations

from tests.fuzz import folders, formats, http, texts
from tests.fuzz.cases import Target

TARGETS: dict[str, Target] = {
    "tokenizer": Target(
        "offsets are within the text, never decrease, and hold each token's own characters",
        texts.tokenizer,
        150,
        max_bytes=1024,
    ),
    "splitters": Target(
        "spans cover all tokens within their sizes, none in another, no character cut",
        texts.splitters,
        max_bytes=1024,
    ),
    "pooling": Target(
        "means over spans and windows are those of their tokens, one by one",
        texts.pooling,
        max_bytes=64,
    ),
    "checkpoints": Target(
        "a model folder with a damaged file is refused by name, or holds finite numbers",
        folders.checkpoints,
        100,
        max_bytes=1024,
    ),
    "recipes": Target(
        "a recipe with damaged bytes is a recipe, or one error that names the file",
        folders.recipes,
        100,
        max_bytes=1024,
    ),
    "indexes": Target(
        "an index with a damaged file answers as before, or is called damaged",
        folders.indexes,
        40,
        max_bytes=1024,
    ),
    "http": Target(
        "a request to any endpoint is answered by 2xx or 4xx, and JSON is JSON",
        http.http,
        60,
        max_bytes=1024,
    ),
    "choose": Target("names and first bytes choose a format, or one reason", formats.choosing),
    **{
        name: Target("documents with their places, or one reason", make, 40)
        for name, make in formats.readers().items()
    },
}
