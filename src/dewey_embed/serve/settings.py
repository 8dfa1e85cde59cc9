"""What a server is started with: where it listens, who may ask, and how much."""

from __future__ import annotations

from dataclasses import dataclass

MAX_INPUTS = 2048
"""Source: OpenAI's limit of inputs in one request, which its clients know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Settings of a server.

    | field             | meaning                                                                |
    |-------------------|------------------------------------------------------------------------|
    | `host`, `port`    | the address that it listens at; port 0 is any that is free             |
    | `hosts`           | names under which it may be asked besides its address and loopback's   |
    | `aliases`         | further names under which clients may ask for the model                |
    | `keys`            | keys of which a request must bear one; without any all may ask         |
    | `max_body_mb`     | megabytes of one request                                               |
    | `max_inputs`      | texts of one request                                                   |
    | `max_tokens`      | tokens of one request, over all of its texts                           |
    | `timeout_s`       | seconds after which a request ends without an answer                   |
    | `max_wait_s`      | seconds that a request may have to wait, by estimate, before it runs   |
    | `read_only`       | whether indexes are only searched                                      |
    """

    host: str = "127.0.0.1"
    port: int = 8080
    hosts: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    max_body_mb: int = 64
    max_inputs: int = MAX_INPUTS
    max_tokens: int = 1_048_576
    timeout_s: float = 600.0
    max_wait_s: float = 30.0
    read_only: bool = False
