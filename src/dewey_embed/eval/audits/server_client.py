"""A client of embedding servers that keeps what others hide: statuses, counts, broken answers."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np

from dewey_embed.errors import ConfigError, EndpointError
from dewey_embed.eval.scores import Doubles
from dewey_embed.extras import needs
from dewey_embed.printable import counted, one_line

if TYPE_CHECKING:
    import httpx2

ApiName = Literal["openai", "tei", "ollama"]

CONNECT_S = 10.0
RETRIES = 3
LONGEST_WAIT_S = 30.0
"""A server that answers 429 is waited for this long at most, each of three times."""

SHOWN_CHARS = 200
"""Characters of a server's message that are shown."""

HIDDEN = "***"
"""What stands for a key in everything that is shown."""


class Parsed(NamedTuple):
    """The embeddings of an answer, each numbers or base64, and the tokens that it counts."""

    embeddings: list[Any]
    tokens: int | None


def _parse_openai(value: Any, headers: Mapping[str, str]) -> Parsed:
    """`{"data": [{"index", "embedding"}], "usage": {"prompt_tokens"}}`."""
    rows = sorted(value["data"], key=lambda row: row["index"])
    return Parsed(
        [row["embedding"] for row in rows], (value.get("usage") or {}).get("prompt_tokens")
    )


def _parse_tei(value: Any, headers: Mapping[str, str]) -> Parsed:
    """A list of vectors; the count of tokens is a header."""
    tokens = headers.get("x-compute-tokens", "")
    return Parsed(list(value), int(tokens) if tokens.isdigit() else None)


def _parse_ollama(value: Any, headers: Mapping[str, str]) -> Parsed:
    """`{"embeddings": [...], "prompt_eval_count"}`."""
    return Parsed(list(value["embeddings"]), value.get("prompt_eval_count"))


class ModelInfo(NamedTuple):
    """What a server says of a model: its name, and how many tokens it reads of a text."""

    name: str
    limit: int | None


LIMITS = ("max_model_len", "max_tokens", "max_input_length", "context_length", "max_context_length")
"""Names under which servers state how many tokens a model reads."""


def _models_in(value: Any, rows: str | None, name: str) -> list[ModelInfo]:
    """The models in an answer, which lists them under `rows` or is one itself."""
    listed = value[rows] if rows else [value]
    found = []
    for row in listed:
        limits = [row[key] for key in LIMITS if isinstance(row.get(key), int)]
        found.append(ModelInfo(str(row[name]), min(limits, default=None)))
    return found


@dataclass(frozen=True, kw_only=True)
class Api:
    """The shape of an API: its path, the names of its fields, and how answers are parsed.

    `models` is the path that describes models, the key of their list, and that of a name.
    """

    path: str
    texts: str
    models: tuple[str, str | None, str]
    names_model: bool = True
    parse: Callable[[Any, Mapping[str, str]], Parsed]


APIS: Mapping[ApiName, Api] = {
    "openai": Api(
        path="/v1/embeddings", texts="input", models=("/v1/models", "data", "id"),
        parse=_parse_openai,
    ),
    "tei": Api(
        path="/embed", texts="inputs", models=("/info", None, "model_id"), names_model=False,
        parse=_parse_tei,
    ),
    "ollama": Api(
        path="/api/embed", texts="input", models=("/api/tags", "models", "name"),
        parse=_parse_ollama,
    ),
}  # fmt: skip
"""The APIs that are spoken, in the order in which they are tried."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer, or why there is none.

    `status` is 0 where the connection broke or nothing came in time. `vectors` are (N, D) of a
    well-formed answer, else `None` with `error`.
    """

    status: int
    vectors: Doubles | None = None
    tokens: int | None = None
    error: str = ""
    seconds: float = 0.0
    timed_out: bool = False
    is_base64: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the request was refused as the client's mistake."""
        return 400 <= self.status < 500 and self.status != 429

    @property
    def is_broken(self) -> bool:
        """Whether the server failed: a 5xx, a broken connection, an answer without vectors."""
        broke = self.status == 0 and not self.timed_out
        return broke or self.status >= 500 or (self.status == 200 and self.vectors is None)

    @property
    def fault(self) -> str:
        """Why there are no vectors to compare, or an empty text."""
        if self.vectors is None:
            status = str(self.status) if self.status else ""
            return one_line(": ".join(filter(None, (status, self.error)))) or "no answer"
        if not np.isfinite(self.vectors).all():
            return "200 with vectors of NaN or infinity"
        if len(self.vectors) and not np.linalg.norm(self.vectors, axis=1).all():
            return "200 with vectors of zeros"
        return ""


class Server:
    """An embedding server: sends texts, and bodies as they are, and returns a `Reply` for each.

    `limit` is how many tokens of a text it says that it reads, if it says so.
    """

    def __init__(
        self, name: ApiName, base: str, *, model: str | None, key: str | None, timeout_s: float
    ) -> None:
        with needs("serve", "auditing a server"):
            import httpx2
        self.name, self.base, self.model = name, base, model
        self.limit: int | None = None
        self.api = APIS[name]
        self.timeout_s = timeout_s
        self._secrets = secrets_in(base, key)
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        self._http = httpx2.Client(headers=headers, timeout=timeout)

    @property
    def url(self) -> str:
        """The address of the endpoint, without a password."""
        return redacted(self.base, self._secrets) + self.api.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def body(self, texts: Any, **fields: Any) -> bytes:
        """A request's JSON; `fields` stand beside the texts."""
        model = {"model": self.model} if self.model and self.api.names_model else {}
        return json.dumps({self.api.texts: texts, **model, **fields}).encode()

    def embed(self, texts: str | Sequence[str], **fields: Any) -> Reply:
        """The reply to a text or a list of texts."""
        count = 1 if isinstance(texts, str) else len(texts)
        return self.post(self.body(texts, **fields), count)

    def post(self, content: bytes, count: int | None = None) -> Reply:
        """The reply to a body as it is, of which `count` vectors are due."""
        import httpx2

        began = time.perf_counter()
        try:
            response = self._post(content)
        except httpx2.TimeoutException:
            reason = f"no answer in {self.timeout_s:g} s; --timeout-s waits longer"
            return Reply(status=0, error=reason, seconds=self.timeout_s, timed_out=True)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            said = redacted(str(error), self._secrets) or type(error).__name__
            return Reply(status=0, error=said, seconds=time.perf_counter() - began)
        seconds = time.perf_counter() - began
        if response.status_code != 200:
            return Reply(
                status=response.status_code, error=self._message(response), seconds=seconds
            )
        return _reply_of(response, self.api, count, seconds)

    def find_model(self) -> None:
        """Look the model up, the first one that is listed if none is named, with its limit."""
        import httpx2

        path, rows, name = self.api.models
        listed: list[ModelInfo] = []
        undescribed = (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError)
        with suppress(*undescribed, AttributeError):
            listed = _models_in(self._http.get(self.base + path).json(), rows, name)
        for model in listed:
            if self.model in (None, model.name):
                self.model, self.limit = model
                break

    def _post(self, content: bytes) -> httpx2.Response:
        """The response; a server that answers 429 gets time."""
        for _ in range(RETRIES):
            response = self._http.post(self.base + self.api.path, content=content)
            after = response.headers.get("retry-after", "1")
            if response.status_code != 429 or not after.isdigit():
                break
            time.sleep(min(float(after), LONGEST_WAIT_S))
        return response

    def _message(self, response: httpx2.Response) -> str:
        """The message of an error, without keys and shortened."""
        try:
            value = response.json()
        except ValueError:
            value = response.text
        for key in ("error", "message", "detail"):
            if isinstance(value, dict) and key in value:
                value = value[key]
        text = value if isinstance(value, str) else json.dumps(value)
        return one_line(redacted(text, self._secrets))[:SHOWN_CHARS]


def _reply_of(response: httpx2.Response, api: Api, count: int | None, seconds: float) -> Reply:
    """The reply of an answer with status 200."""
    try:
        embeddings, tokens = api.parse(response.json(), response.headers)
        is_base64 = any(isinstance(each, str) for each in embeddings)
        rows = [_numbers(each) for each in embeddings]
        vectors = np.stack(rows) if rows else np.empty((0, 0))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = (
            f"no embeddings in the answer ({type(error).__name__}: {one_line(str(error))[:80]})"
        )
        return Reply(status=200, error=reason, seconds=seconds)
    if count is not None and len(vectors) != count:
        reason = f"{counted(len(vectors), 'vector')} for {counted(count, 'text')}"
        return Reply(status=200, error=reason, seconds=seconds)
    return Reply(
        status=200, vectors=vectors, tokens=tokens, seconds=seconds, is_base64=is_base64
    )  # fmt: skip


def _numbers(embedding: Any) -> Doubles:
    """(D,) of an embedding, as numbers or as base64 of float32."""
    if isinstance(embedding, str):
        data = base64.b64decode(embedding, validate=True)
        return np.frombuffer(data, "<f4").astype(np.float64)
    vector = np.array(embedding, np.float64)
    if vector.ndim != 1:
        raise ValueError(f"an embedding has the shape {vector.shape}")
    return vector


def secrets_in(url: str, key: str | None) -> list[str]:
    """What must not be shown: the key, and the user and password of an address."""
    user = urlsplit(url).netloc.rpartition("@")[0]
    password = user.partition(":")[2]
    basic = base64.b64encode(unquote(user).encode()).decode()
    return [each for each in (key, user and basic, user, password) if each]


def redacted(text: str, secrets: Sequence[str]) -> str:
    """A text with `***` in the place of secrets."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def connect(
    url: str,
    *,
    api: ApiName | Literal["auto"] = "auto",
    model: str | None = None,
    key: str | None = None,
    timeout_s: float,
) -> Server:
    """The server at an address, which has answered one short text.

    The address may end in the path of an API, which is then the one that is spoken.

    Raises:
        ConfigError: the address is none, or the key cannot be sent in a header.
        EndpointError: the server cannot be reached, or speaks none of the APIs.

    """
    base, named = _split(url)
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError("the key holds blanks or characters that are not ASCII; copy it again")
    names = [api] if api != "auto" else [named] if named else list(APIS)
    refusals = []
    for name in names:
        server = Server(name, base, model=model, key=key, timeout_s=timeout_s)
        server.find_model()
        reply = server.embed(["a short text"])
        if reply.vectors is not None:
            return server
        server.__exit__()
        if reply.status == 0:
            raise EndpointError(
                f"{server.url}: cannot be reached ({reply.error}); start the server, or correct "
                "the address"
            )
        refusals.append(f"{server.url} answers {reply.fault}")
    raise EndpointError(
        f"{'; '.join(refusals)}; give the address of a server of embeddings, and where it wants "
        "them --model and --key-file"
    )


def _split(url: str) -> tuple[str, ApiName | None]:
    """The address without the path of an API, and that API.

    Raises:
        ConfigError: it is no address.

    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no address; give one such as http://127.0.0.1:8080")
    path = parts.path.rstrip("/")
    known: dict[str, ApiName] = {each.path: name for name, each in APIS.items()}
    known["/v1"] = "openai"
    named = next((end for end in sorted(known, key=len)[::-1] if path.endswith(end)), None)
    base = urlunsplit(parts._replace(path=path.removesuffix(named or ""), query="", fragment=""))
    return base, known.get(named or "")
