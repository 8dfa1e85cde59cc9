"""Damaged files of models, recipes and indexes: read rightly, healed, or refused by one error."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import numpy as np

from tests.fuzz.cases import Check, Draw

_PLACE = re.compile(
    r"line \d|end of document|missing; it has no default|nested too deeply|recipe: \w+\.\w+"
)
"""What a fault of a recipe names: its line, or what is not in the file, a default among it."""
_SCRATCH: list[tempfile.TemporaryDirectory[str]] = []


def scratch() -> Path:
    """A new folder for files under test, which is removed when the process ends."""
    _SCRATCH.append(tempfile.TemporaryDirectory(prefix="dewey-fuzz-"))
    return Path(_SCRATCH[-1].name)


def damaged(good: bytes, draw: Draw) -> bytes:
    """A file's bytes with what a case says put in place of some of them."""
    kind = draw.number(3)
    at = draw.number(65_535) % (len(good) + 1)
    length = draw.number(255)
    piece = draw.rest()
    if kind == 0:
        return piece
    if kind == 1:
        return good[:at]
    return good[:at] + piece + good[at + (length if kind == 2 else len(piece)) :]


def recipes() -> Check:
    """A recipe, or an error that names the file and, for what is in it, the line."""
    from dewey_embed.errors import ConfigError
    from dewey_embed.train.recipe import Recipe
    from dewey_embed.train.recipe_file import read_recipe
    from tests.train.test_recipe_file import RECIPE

    path = scratch() / "recipe.toml"

    def check(data: bytes) -> None:
        path.write_bytes(damaged(RECIPE.encode(), Draw(data)))
        try:
            assert isinstance(read_recipe(path), Recipe)
            return
        except ConfigError as error:
            message = str(error)
        assert message.startswith(f"{path}: ")
        assert _PLACE.search(message), message

    return check


def make_checkpoint(folder: Path) -> None:
    """A small model of Dewey's own layout."""
    from dewey_embed import Dewey
    from tests.model.random_folders import make_folder

    make_folder(folder / "others", 28)
    Dewey.load(folder / "others", dtype="float32").save(folder / "model")


def checkpoints() -> Check:
    """A folder with one damaged file: refused, or a model of finite numbers as its files say."""
    from dewey_embed.errors import CheckpointError, ConfigError
    from dewey_embed.model.checkpoint import build_model, read_checkpoint
    from dewey_embed.text.tokenizer import Tokenizer

    base = scratch()
    make_checkpoint(base)
    folders = [base / "model", base / "others"]
    files = [
        path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".json", ".safetensors")
    ]
    good = {path: path.read_bytes() for path in files}

    def read(folder: Path) -> None:
        checkpoint = read_checkpoint(folder)
        model = build_model(checkpoint)
        for tensor in model.state_dict().values():
            assert tensor.isfinite().all()
        Tokenizer.from_file(checkpoint.tokenizer / "tokenizer.json")

    def check(data: bytes) -> None:
        draw = Draw(data)
        path = files[draw.number(len(files) - 1)]
        folder = folders[path.is_relative_to(folders[1])]
        path.write_bytes(damaged(good[path], draw))
        refused = str(base)
        try:
            read(folder)
        except (CheckpointError, ConfigError) as error:
            refused = str(error)
        finally:
            path.write_bytes(good[path])
        assert str(base) in refused

    return check


def make_index(folder: Path) -> None:
    """An index after several runs: documents added, changed and removed, some with titles."""
    from dewey_embed.index.store import Store
    from tests.index.conftest import record, settings
    from tests.index.test_store import write

    store = Store(folder, settings())
    words = ("leases", "patents")
    texts = {f"d{n}": f"text {n} of zebras and {words[n % 2]}" for n in range(3)}
    write(store, [record(name, text, title=name) for name, text in texts.items()])
    write(store, [record("d1", "changed zebras"), record("late", "a late lease")], remove=["d2"])


Mark = tuple[int, int]
"""A file's size in bytes and time of change in nanoseconds."""


def _marks(folder: Path) -> dict[str, Mark]:
    """The marks of all files below a folder, by their paths."""
    marks = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            status = os.lstat(path)
            marks[path] = status.st_size, status.st_mtime_ns
    return marks


def _restore(folder: Path, good: dict[str, bytes], marks: dict[str, Mark]) -> None:
    """Put back every file that was written since its mark, and remove those that are new."""
    now = _marks(folder)
    for path in now.keys() - good.keys():
        os.unlink(path)
    for path, data in good.items():
        if now.get(path) != marks[path]:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).write_bytes(data)
            status = os.lstat(path)
            marks[path] = status.st_size, status.st_mtime_ns


def indexes() -> Check:
    """An index with one damaged file: the same answers, or one error of the index."""
    from dewey_embed.errors import IndexStoreError
    from dewey_embed.index.index import Index
    from tests.index.conftest import WIDTH, unit

    folder = scratch() / "index"
    make_index(folder)
    query = unit(np.random.default_rng(1), WIDTH)

    def answers() -> list[object]:
        with Index.open(folder) as index:
            found = index.search("zebras of a lease", 9, passages=2, vector=query)
            return [found, len(index), index.num_chunks]

    expected = answers()
    marks = _marks(folder)
    good = {path: Path(path).read_bytes() for path in sorted(marks)}

    def check(data: bytes) -> None:
        draw = Draw(data)
        path = [*good][draw.number(len(good) - 1)]
        Path(path).write_bytes(damaged(good[path], draw))
        refused = str(folder)
        try:
            assert answers() == expected
        except IndexStoreError as error:
            refused = str(error)
        finally:
            _restore(folder, good, marks)
        assert str(folder) in refused

    return check
