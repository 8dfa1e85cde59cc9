"""Models that several tests share."""

import pytest

from tests.model.twins import twins


@pytest.fixture(scope="session")
def model_twins():
    """`twins` made once per shape."""
    made = {}

    def get(shape: str):
        if shape not in made:
            made[shape] = twins(shape)
        return made[shape]

    return get
