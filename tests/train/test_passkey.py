"""Pass keys and where they are hidden."""

from random import Random

import pytest

from dewey_embed.errors import ConfigError
from dewey_embed.train.passkey import FIRST_NAMES, LAST_NAMES, hide, pass_keys

TEXT = "One is here. Two is there! Is three anywhere? Four is gone."


class TestPassKeys:
    def test_every_person_has_one_key(self):
        every = len(FIRST_NAMES) * len(LAST_NAMES)
        assert len({key.question for key in pass_keys(every, Random(1))}) == every

    def test_more_people_than_names_are_refused(self):
        with pytest.raises(ConfigError, match="1,601 pass keys"):
            pass_keys(1601, Random(1))


class TestHide:
    @pytest.mark.parametrize(
        ("depth", "before"),
        [
            (0.0, ""),
            (0.25, "One is here. "),
            (0.5, "One is here. Two is there! "),
            (1.0, TEXT[:46]),
        ],
    )
    def test_it_stands_where_the_nearest_sentence_begins(self, depth, before):
        text, place = hide("Hidden.", TEXT, depth)
        assert text == f"{before}Hidden. {TEXT[len(before) :]}"
        assert text[place:].startswith("Hidden.")

    def test_in_a_text_of_one_sentence_it_stands_between_words(self):
        assert hide("Hidden.", "no full stop here", 0.5) == ("no full Hidden. stop here", 8)

    def test_an_empty_text_becomes_the_sentence(self):
        assert hide("Hidden.", "", 0.7) == ("Hidden. ", 0)
