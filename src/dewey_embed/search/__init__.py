"""Documents in, kept up to date on disk; questions in, hits with characters out."""

from dewey_embed.search.index import Index
from dewey_embed.search.update import IndexReport

__all__ = ["Index", "IndexReport"]
