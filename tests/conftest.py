"""What all tests share."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from dewey_embed.text import child
from tests.parsers import Forked

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


LONGEST = (
    "test_train_kill.py", "test_splitter.py", "test_cli.py", "test_hostile.py", "test_depth.py",
    "test_native.py", "test_evaluate_command.py", "test_tokenizer.py", "test_cli_documents.py",
    "test_backbone.py", "test_paper_recipe.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: one that began last would be waited for, alone."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def parsers() -> Iterator[None]:
    """Parser processes that start fast."""
    with pytest.MonkeyPatch.context() as patched:
        if hasattr(os, "fork"):
            forked = SimpleNamespace(**{**vars(subprocess), "Popen": Forked})
            patched.setattr(child, "subprocess", forked)
        yield


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


@pytest.fixture(scope="module")
def browser():
    """A headless browser; of a module, since playwright keeps a loop running in its thread."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    path = os.environ.get("DEWEY_TEST_BROWSER", found)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()
