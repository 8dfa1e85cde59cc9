"""A new splitter is a row of the table: Python, indexes, recipes and the command line take it."""

import numpy as np
import pytest

from dewey_embed import Dewey, Index
from dewey_embed.errors import ConfigError
from dewey_embed.text.splitter import SPLITTERS
from dewey_embed.train.recipe import SplitRecipe
from tests.commands import ended


@pytest.fixture
def halves(monkeypatch):
    def cut(text, size, overlap):
        middle = len(text.tokens) // 2
        return np.array([0, middle]), np.array([middle, len(text.tokens)])

    monkeypatch.setitem(SPLITTERS, "halves", cut)


def test_a_row_of_the_table_is_known_everywhere(halves, tmp_path, capsys):
    text = "one two three four five six"
    assert len(Dewey.load().encode_document(text, splitter="halves").spans) == 2
    assert SplitRecipe(splitters={"halves": 1.0}).splitters == {"halves": 1.0}
    (tmp_path / "a.txt").write_text(text)
    words = ["index", tmp_path / "a.txt", "--index", tmp_path / "i", "--splitter", "halves"]
    assert ended(*words) == 0
    assert "1 document, 2 chunks" in capsys.readouterr().out
    assert Index.open(tmp_path / "i").settings.options.splitter == "halves"


def test_an_unknown_name_is_refused_with_all_names_before_anything_is_made(tmp_path, capsys):
    with pytest.raises(
        ConfigError, match="splitter is 'pages'; use 'tokens', 'recursive', 'words'"
    ):
        Index.open(tmp_path / "i", splitter="pages")
    with pytest.raises(ValueError, match="splitter is 'pages'; use 'tokens'"):
        SplitRecipe(splitters={"pages": 1.0})
    (tmp_path / "a.txt").write_text("one")
    words = ["index", tmp_path / "a.txt", "--index", tmp_path / "i", "--splitter", "pages"]
    assert ended(*words) == 2
    assert "splitter is 'pages'; use 'tokens', 'recursive', 'words'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
