"""The paper's experiments as commands: each measures a model on data and returns a `ResultPage`."""

from pathlib import Path

CACHE = Path("~/.cache/dewey-embed/audits")
"""Where audits keep vectors and the figures of models, unless another folder is named."""

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
"""Lengths of documents in tokens at which `length` measures."""

MIN_DOCUMENTS = 8
"""A length into which fewer documents fit is left out: their figures would mean nothing."""
