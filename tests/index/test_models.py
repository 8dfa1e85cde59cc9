"""The model of an index, and others."""

import pytest

from dewey_embed import Dewey
from dewey_embed.errors import IndexMismatchError
from dewey_embed.index.index import load_model
from dewey_embed.index.settings import INDEX_OPTIONS
from dewey_embed.index.sync import new_settings


def test_another_model_that_reads_fewer_tokens_is_said_to_be_another(tmp_path):
    made = new_settings(Dewey.load(), INDEX_OPTIONS, None)
    longer = made.model_copy(update={"max_tokens": 2**30, "fingerprint": "another"})
    with pytest.raises(IndexMismatchError, match="was made by model"):
        load_model("mini", longer, tmp_path)
