"""An OpenAI-compatible server as a teacher: `/v1/embeddings` of OpenAI, vLLM, TEI or Ollama.

Retries and waiting are the `openai` client's. Vectors are put in order by their index, never by the
order in which they come.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from dewey_embed.errors import TeacherError
from dewey_embed.extras import needs
from dewey_embed.train.recipe import EndpointTeacher
from dewey_embed.train.teachers.teacher import batch_name, checked
from dewey_embed.types import Floats

if TYPE_CHECKING:
    from openai.types import CreateEmbeddingResponse

NO_KEY = "no-key"
"""Sent where no key is set: servers of one's own want none, but the client insists on one."""


class RemoteTeacher:
    """The model behind a recipe's url, asked once on opening: for its width, and whether it is up.

    Raises:
        MissingDependencyError: the openai client is not installed.
        TeacherError: it cannot be reached, or does not answer with a vector.

    """

    def __init__(self, recipe: EndpointTeacher) -> None:
        with needs("train", "a teacher of kind 'endpoint'"):
            import openai
        url = recipe.url.rstrip("/").removesuffix("/embeddings")
        self.name = f"{recipe.model} at {url}"
        self._recipe = recipe
        pace = Pace(recipe.requests_per_minute)
        self._client = openai.OpenAI(
            base_url=url,
            api_key=os.environ.get(recipe.api_key_env) or NO_KEY,
            max_retries=recipe.retries,
            timeout=recipe.timeout_s,
            # In the hook, for the limit counts the client's retries too.
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [lambda _: pace.wait()]}),
        )
        self.dim: int = self._ask(["width"], 0, None).shape[1]

    def embed(self, texts: Sequence[str]) -> Floats:
        """(N, K) float32, unit length, in the order of the texts.

        Raises:
            TeacherError: no answer after all retries, or none that is a vector for each text.

        """
        size = self._recipe.batch_texts
        firsts = range(0, len(texts), size)

        def ask(first: int) -> Floats:
            return self._ask(texts[first : first + size], first, self.dim)

        # map keeps the order, and drops the requests not yet sent when one fails.
        with ThreadPoolExecutor(self._recipe.parallel_requests) as pool:
            batches = list(pool.map(ask, firsts))
        return np.concatenate([np.empty((0, self.dim), np.float32), *batches])

    def _ask(self, texts: Sequence[str], first: int, dim: int | None) -> Floats:
        """(N, K) of one request."""
        import openai

        batch = batch_name(self.name, texts, first)
        try:
            answer = self._client.embeddings.create(
                model=self._recipe.model,
                input=[self._recipe.prompt + text for text in texts],
                encoding_format="float",
            )
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON
            raise TeacherError(
                f"{batch}: no answer, retried up to {self._recipe.retries} times "
                f"({type(error).__name__}: {error}); {self._remedy(error)}"
            ) from error
        return checked(_in_order(answer, batch), len(texts), dim, batch)

    def _remedy(self, error: Exception) -> str:
        """What to do about a request that failed for good."""
        import openai

        remedies: tuple[tuple[type[Exception], str], ...] = (
            (openai.APITimeoutError, "raise teacher.timeout_s or lower teacher.batch_texts"),
            (openai.APIConnectionError, "check teacher.url, and that the server runs"),
            (openai.AuthenticationError, f"set {self._recipe.api_key_env} to a valid key"),
            (openai.PermissionDeniedError, f"set {self._recipe.api_key_env} to a key that may"),
            (
                openai.NotFoundError,
                "check teacher.url, which mostly ends in /v1, and teacher.model",
            ),
            (openai.BadRequestError, "lower teacher.batch_texts or teacher.max_tokens"),
            (openai.RateLimitError, "lower teacher.requests_per_minute and parallel_requests"),
            (openai.InternalServerError, "look into the server's log; finished shards are kept"),
        )
        for kind, remedy in remedies:
            if isinstance(error, kind):
                return remedy
        return "check that teacher.url is an OpenAI-compatible /v1"


class Pace:
    """Requests of all threads, spread evenly over the minute; None is no limit."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        with self._lock:
            turn = max(time.monotonic(), self._next)
            self._next = turn + self._seconds
        time.sleep(max(0.0, turn - time.monotonic()))


def _in_order(answer: CreateEmbeddingResponse, batch: str) -> list[object]:
    """The answer's vectors by their index.

    Raises:
        TeacherError: no list of embeddings, or indices other than one for each.

    """
    # The client does not validate: a page of HTML comes back as a str.
    data = getattr(answer, "data", None)
    if not isinstance(data, list):
        raise TeacherError(
            f"{batch}: got no list of embeddings but {str(answer)[:80]!r}; check that teacher.url "
            "is an OpenAI-compatible /v1"
        )
    indices = [getattr(item, "index", None) for item in data]
    places = {index: place for place, index in enumerate(indices)}
    if set(places) != set(range(len(data))):
        raise TeacherError(
            f"{batch}: got embeddings with the indices {indices[:8]}, expected each from 0 to "
            f"{len(data) - 1} once; the server is not OpenAI-compatible"
        )
    return [getattr(data[places[index]], "embedding", None) for index in range(len(data))]
