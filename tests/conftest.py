"""What all tests share."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """The project's root."""
    return Path(__file__).parents[1]


@pytest.fixture
def nobody() -> Callable[[], AbstractContextManager[None]]:
    """A block in which this process is not root, so that permissions hold."""

    @contextmanager
    def block() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return block
