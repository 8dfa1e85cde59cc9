"""Settings of a run as files: recipes in TOML with overrides, JSON objects, their differences."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dewey_embed.config import fault
from dewey_embed.errors import ConfigError, RunError
from dewey_embed.files import unsealed
from dewey_embed.train.recipe import DATA, FilesSource, Recipe, renamed

_KEY = re.compile(r"\b[a-z_]+\.[a-z_]+\b")
"""A key of a section, as messages name it."""

_NAME = r"""(?:[\w\-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*"
"""A dotted key of TOML, as a line begins with it."""


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, with `section.key=value` overrides applied, as TOML values.

    Raises:
        ConfigError: no such file, no TOML, an unknown key, a wrong type or an impossible value;
            the file, the line and what is accepted are named.

    """
    try:
        text, values = read_toml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give a recipe in TOML") from None
    for override in overrides:
        _apply(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        # A list whose items are faulty also counts as too short.
        items = error.errors()
        outer = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
        own = [item for item in items if item["loc"] not in outer]
        faults = "; ".join(_fault(item, text, overrides) for item in own)
        raise ConfigError(f"{path}: {faults}") from None


def with_data(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe whose sources under `data/` are those under `folder`.

    Raises:
        ConfigError: no source of the recipe is under `data/`.

    """
    sources = [
        source.model_copy(update={"path": str(folder / source.path.removeprefix(DATA))})
        if isinstance(source, FilesSource) and source.path.startswith(DATA)
        else source
        for source in recipe.corpus.sources
    ]
    if sources == list(recipe.corpus.sources):
        raise ConfigError(
            f"--data {folder}: no source of the recipe is under {DATA}; give its path by "
            "--set corpus.sources.0.path=PATH (sources count from 0)"
        )
    corpus = recipe.corpus.model_copy(update={"sources": tuple(sources)})
    return recipe.model_copy(update={"corpus": corpus})


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file and its values; a byte order mark is passed over.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it cannot be read, or is no TOML; names the line.

    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}: cannot be read as TOML (line {line} is no UTF-8 text; save it as UTF-8)"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: cannot be read as TOML (nested too deeply)") from None
    except (OSError, ValueError) as error:  # TOML's errors are ValueErrors
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read as TOML ({reason})") from None


def _apply(values: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into the values; a list's entries are named by number."""
    key, equals, literal = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise ConfigError(f"--set {override!r}: write section.key=value, such as training.seed=1")
    try:
        value = tomllib.loads(f"value = {literal}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = literal.strip()  # a bare word is a string
    place: Any = values
    for step in steps[:-1]:
        place = _descend(place, step, override)
    if isinstance(place, list):
        place[_number(steps[-1], place, override)] = value
    else:
        place[steps[-1]] = value


def _descend(place: Any, step: str, override: str) -> Any:
    """The table or list entry under `step`, made where a table lacks it."""
    if isinstance(place, list):
        below = place[_number(step, place, override)]
    else:
        below = place.setdefault(step, {})
    if not isinstance(below, dict | list):
        raise ConfigError(f"--set {override!r}: {step} is a value, not a section")
    return below


def _number(step: str, entries: list[Any], override: str) -> int:
    """An entry's number within its list."""
    if not step.isdecimal() or int(step) >= len(entries):
        raise ConfigError(f"--set {override!r}: {step!r} is none of the {len(entries)} entries")
    return int(step)


def _fault(item: Any, text: str, overrides: Sequence[str]) -> str:
    """One fault: where it stands, what was got, what is accepted."""
    steps = [str(step) for step in item["loc"]]
    if not steps and (named := _KEY.search(fault(item))):  # a check of several sections
        place = _place(named[0].split("."), text, overrides)
        # without a line it is a default's
        where = "recipe" if place == named[0] else place.removesuffix(f": {named[0]}")
        return f"{where}: {fault(item)}"
    where = _place(steps, text, overrides)
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key; accepted: {', '.join(_accepted(steps[:-1]))}"
    return f"{where}: {fault(item)}"


def _accepted(steps: Sequence[str]) -> list[str]:
    """The keys that the section at `steps` takes."""
    schema = _schema()
    definitions = schema["$defs"]
    for step in steps:
        if "properties" in schema:
            schema = schema["properties"].get(step, {})
        schema = schema.get("items", schema)
        mapping = schema.get("discriminator", {}).get("mapping", {})
        if step in mapping:
            schema = {"$ref": mapping[step]}
        for option in (schema, *schema.get("anyOf", ())):
            if "$ref" in option:
                schema = definitions[option["$ref"].rsplit("/", 1)[1]]
                break
    return list(schema.get("properties", ()))


@functools.cache
def _schema() -> Any:
    """The recipe's JSON schema; a file of many unknown keys asks for it once for each."""
    return Recipe.model_json_schema()


def _place(steps: Sequence[str], text: str, overrides: Sequence[str]) -> str:
    """`section.key`, with the line of the file or the override that it came from."""
    kinds = {"package", "sentence-transformers", "endpoint", "files", "hub"}
    steps = [step for step in steps if step not in kinds]
    name = ".".join(steps) or "recipe"
    if any(override.partition("=")[0].strip() == name for override in overrides):
        return f"--set {name}"
    line = _line(steps, text)
    return f"line {line}: {name}" if line else name


def _line(steps: Sequence[str], text: str) -> int | None:
    """The number of the line that sets `steps`, or opens the innermost section that is there."""
    wanted = list(steps)
    section: list[str] = []
    found, entries = None, 0
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(rf"\s*\[(\[)?\s*({_DOTTED})\s*\]", line):
            section = _names(header[2])
            if header[1]:
                same = [str(entries)] if section == wanted[: len(section)] else []
                entries += len(same)
                section += same
            if section == wanted[: len(section)]:
                found = number
            elif wanted == section[: len(wanted)]:  # only what is below it is opened
                found = found or number
        elif key := re.match(rf"\s*({_DOTTED})\s*=", line):
            path = [*section, *_names(key[1])]
            if path == wanted[: len(path)]:
                return number
            if wanted == path[: len(wanted)]:
                found = found or number
    return found


def _names(key: str) -> list[str]:
    """The names in a dotted key, which may be quoted and stand apart."""
    try:
        value: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:  # no key, though it looks like one
        return []
    names = []
    while isinstance(value, dict):
        [(name, value)] = value.items()
        names.append(name)
    return names


def read_object(path: Path, *, keys: Sequence[str] = (), remedy: str) -> dict[str, Any]:
    """The object in a JSON file, which must have the `keys`; `remedy` ends what an error says.

    Raises:
        RunError: the file is missing, unreadable, no JSON, no object, damaged, or lacks a key.

    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: holds a JSON {type(value).__name__}, not an object; {remedy}")
    if (value := unsealed(value)) is None:
        raise RunError(f"{path}: is damaged (another checksum); {remedy}")
    if lacking := [key for key in keys if key not in value]:
        raise RunError(f"{path}: lacks {', '.join(lacking)}; {remedy}")
    return value


def recipe_diff(before: Any, after: Any, name: str = "") -> str:
    """What differs between two recipes' values, as `key: before, now after`; "" if nothing does.

    A key that one of them lacks is of a later version: it differs only where it does something, for
    hours of teaching and training must outlive an upgrade. So a new key is off at 0, None or empty.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        before, after = renamed(before), renamed(after)
        found = [
            recipe_diff(before.get(key), after.get(key), f"{name}.{key}" if name else key)
            for key in sorted(before.keys() | after.keys())
            if (key in before and key in after) or before.get(key) or after.get(key)
        ]
        return "; ".join(part for part in found if part)
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        items = [recipe_diff(old, new, f"{name}[{place}]") for place, (old, new) in pairs]
        return "; ".join(part for part in items if part)
    return "" if before == after else f"{name}: {before}, now {after}"
