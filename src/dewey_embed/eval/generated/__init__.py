"""Retrieval tasks made here, at any length: the same every time for the same arguments."""

from dewey_embed.errors import ConfigError
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.generated.needle import needle
from dewey_embed.eval.generated.passkey import passkey
from dewey_embed.eval.generated.position import PLACES, position

__all__ = ["LENGTHS", "POSITION_LENGTHS", "SUITES", "needle", "passkey", "position", "suite"]

SUITES = ("passkey", "needle", "position")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""LongEmbed's."""
POSITION_LENGTHS = (512, 2048, 8192, 32768)


def suite(name: str) -> list[RetrievalData]:
    """The tasks of a suite at its standard lengths, shortest first.

    Raises:
        ConfigError: another name than those of `SUITES`.

    """
    if name == "passkey":
        return [passkey(length) for length in LENGTHS]
    if name == "needle":
        return [needle(length) for length in LENGTHS]
    if name == "position":
        return [position(length, place) for length in POSITION_LENGTHS for place in PLACES]
    raise ConfigError(f"no suite {name!r} can be generated; accepted: {', '.join(SUITES)}")
