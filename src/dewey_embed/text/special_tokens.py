"""A tokenizer's post-processor → the ids of the special tokens that it puts around a text.

The template is what transformers and Sentence Transformers follow; the ids in a model's
`config.json` are often left over from another tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers

from dewey_embed.errors import CheckpointError


class SpecialIds(NamedTuple):
    """Ids before a text and after it."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def special_ids(backend: tokenizers.Tokenizer) -> SpecialIds:
    """The special tokens around a single text; none without a post-processor.

    Raises:
        CheckpointError: the post-processor is of an unknown kind, or its template is wrong.

    """
    processor = backend.post_processor
    if processor is None:
        return SpecialIds((), ())
    return _of(json.loads(processor.__getstate__()))


def _of(state: Mapping[str, Any]) -> SpecialIds:
    kind = state.get("type")
    if kind == "ByteLevel":  # moves offsets only
        return SpecialIds((), ())
    if kind in ("BertProcessing", "RobertaProcessing"):
        return SpecialIds((state["cls"][1],), (state["sep"][1],))
    if kind == "TemplateProcessing":
        return _of_template(state)
    if kind == "Sequence":
        before: tuple[int, ...] = ()
        after: tuple[int, ...] = ()
        for inner in state["processors"]:
            outer = _of(inner)
            before, after = outer.before + before, after + outer.after
        return SpecialIds(before, after)
    raise CheckpointError(
        f"post-processor {kind!r} is unknown; save the tokenizer with a TemplateProcessing"
    )


def _of_template(state: Mapping[str, Any]) -> SpecialIds:
    sides: tuple[list[int], list[int]] = ([], [])
    num_texts = 0
    for piece in state["single"]:
        if "Sequence" in piece:
            num_texts += piece["Sequence"]["id"] == "A"
        else:
            name = piece["SpecialToken"]["id"]
            if name not in state["special_tokens"]:
                raise CheckpointError(
                    f"the post-processor's template names {name!r}, whose ids it does not give; "
                    "save the tokenizer again"
                )
            sides[min(num_texts, 1)].extend(state["special_tokens"][name]["ids"])
    if num_texts != 1:
        raise CheckpointError(
            f"the post-processor's template names the text {num_texts} times, need exactly once; "
            "save the tokenizer with a template such as '[CLS] $A [SEP]'"
        )
    return SpecialIds(tuple(sides[0]), tuple(sides[1]))


NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def named_tokens(config: Mapping[str, Any]) -> set[str]:
    """The special tokens that a `tokenizer_config.json` names, as transformers collects them."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    values = [config.get(f"{name}_token") for name in NAMED]
    values += extra if isinstance(extra, list) else []
    contents = (value.get("content") if isinstance(value, dict) else value for value in values)
    return {content for content in contents if isinstance(content, str)}
