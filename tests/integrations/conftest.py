"""What the tests of the integrations share: a model, and a text whose sentences need each other."""

import asyncio
import inspect

import numpy as np
import pytest

from dewey_embed import Dewey

TEXT = (
    "Aceruloplasminemia is a disorder of iron. Iron gathers in the brain. "
    "It begins in adulthood. It begins in adulthood with diabetes. Both parents carry the gene."
)
"""A sentence of it begins a later one, so that offsets found by searching would be wrong."""

LONG = "The tenant pays the rent on the first Monday of the month. " * 60


@pytest.fixture(scope="session")
def model():
    return Dewey.load()


@pytest.fixture(scope="session")
def sentences(model):
    """The document's sentences by the encoder itself: their spans and vectors."""
    document = model.encode_document(TEXT, splitter="sentence")
    return [(each.char_start, each.char_end) for each in document.spans], document.chunks


def same(vectors, expected):
    np.testing.assert_allclose(np.asarray(vectors), np.asarray(expected), atol=1e-5, rtol=0)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run coroutines, as LangChain's standard tests are, whatever plugins are there."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
