"""`dewey audit server` against real servers: an honest one passes, and each fault is found."""

import base64
import json
import re
import socket
import threading
import time
from zlib import crc32

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from dewey_embed import Dewey
from dewey_embed.errors import ConfigError, EndpointError
from dewey_embed.eval.audits.server import audit_server
from dewey_embed.eval.audits.server_checks import Audit, limit_said
from dewey_embed.eval.audits.server_client import connect
from dewey_embed.eval.result_page import ResultPage
from tests.commands import ended

LIMIT = 700
MAX_TOKENS = 1024
WIDTH = 48
KEY = "sk-very-secret-0123456789"


class RefusedError(Exception):
    """A request that a server answers with an error."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class FakeModel:
    """The mean of random vectors of a text's words."""

    def __init__(self):
        self.rows = {}

    def tokens(self, text):
        return text.split()

    def vector(self, tokens):
        for token in set(tokens) - self.rows.keys():
            self.rows[token] = np.random.default_rng(crc32(token.encode())).normal(size=WIDTH)
        total = np.sum([self.rows[token] for token in tokens], axis=0)
        return total / np.linalg.norm(total)


class Mini:
    """The model in the package, without windows."""

    def __init__(self):
        self.model = Dewey.load()
        self.lock = threading.Lock()

    def tokens(self, text):
        return [text[a:b] for a, b in self.model.tokenizer.encode([text])[0].offsets]

    def vector(self, tokens):
        with self.lock:
            return np.asarray(self.model.encode([" ".join(tokens)])[0], np.float64)


class FakeServer:
    """A server of embeddings with at most one fault, in all three APIs."""

    def __init__(self, model, fault=""):
        self.model, self.fault = model, fault
        self.is_broken = False
        self.running_long = 0

    def refuse(self, fault, message, status=400):
        """Refuse a request; with that fault as an error of the server's own."""
        raise RefusedError(500 if self.fault == fault else status, message)

    def texts(self, body, field):
        """The texts of a request."""
        try:
            value = json.loads(body.decode("utf-8"))
        except UnicodeDecodeError:
            self.refuse("unicode", "not UTF-8")
        except ValueError:
            self.refuse("json", "not JSON")
        texts = value.get(field)
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            self.refuse("types", "no texts", 422)
        if not texts:
            self.refuse("empty", "no texts")
        if len(texts) > 2048:
            self.refuse("many", f"{len(texts)} texts; at most 2048")
        for text in texts:
            if any(0xD800 <= ord(each) < 0xE000 for each in text):
                self.refuse("unicode", "a lone surrogate")
        return texts, value

    def embed(self, body, field):
        """The vectors, the count of tokens and the fields of a request."""
        texts, value = self.texts(body, field)
        if self.fault == "blank" and not all(each.strip() for each in texts):
            return [np.zeros(WIDTH)] * len(texts), 1, value
        if not all(each.strip() for each in texts):
            raise RefusedError(400, "a blank text")
        rows = [self.model.tokens(text) for text in texts]
        sizes = [len(row) for row in rows]
        if max(sizes) > LIMIT and self.fault not in NO_LIMIT:
            self.refuse("limit", f"{max(sizes)} tokens; at most {LIMIT}", 413)
        vectors = self.faulty(rows, sizes, [self.model.vector(self.cut(row)) for row in rows])
        if wanted := value.get("dimensions"):
            vectors = self.narrowed(vectors, wanted)
        count = sum(sizes)
        if self.fault == "constant usage":
            count = 7 * len(texts)
        elif self.fault == "padded usage":
            count = max(sizes) * len(texts)
        return vectors, count, value

    def cut(self, row):
        """The tokens that a text's vector is made of."""
        if self.fault == "cuts the end":
            return row[:256]
        return row[-300:] if self.fault == "cuts the start" else row

    def faulty(self, rows, sizes, vectors):
        """The vectors, with the server's fault."""
        longest = max(sizes)
        if self.fault == "padding leaks":
            vectors = [
                vector + 0.01 * (longest - size) * np.eye(WIDTH)[0]
                for vector, size in zip(vectors, sizes, strict=True)
            ]
        elif self.fault == "sorts":
            vectors = [vectors[each] for each in np.argsort(sizes, kind="stable")]
        elif self.fault == "repeats":
            seen = [row in rows[:place] for place, row in enumerate(rows)]
            vectors = [v[::-1] if again else v for v, again in zip(vectors, seen, strict=True)]
        elif self.fault == "constant vectors":
            vectors = [np.ones(WIDTH)] * len(rows)
        elif self.fault == "NaN":
            vectors = [np.full(WIDTH, np.nan)] * len(rows)
        elif self.is_broken or (self.fault == "zeros for long" and longest > 800):
            vectors = [np.zeros(WIDTH)] * len(rows)
        elif self.fault == "shared buffer" and self.running_long:
            vectors = [vector[::-1] for vector in vectors]
        self.is_broken |= self.fault == "zeros after long" and longest > 800
        if self.fault == "shared buffer" and longest > 400:
            self.running_long += 1
            time.sleep(0.05)
            self.running_long -= 1
        return vectors

    def narrowed(self, vectors, wanted):
        """Vectors with fewer dimensions."""
        if self.fault == "ignores dimensions":
            return vectors
        if wanted > len(vectors[0]):
            raise RefusedError(400, f"{wanted} dimensions; at most {len(vectors[0])}")
        short = [vector[:wanted] for vector in vectors]
        if self.fault == "short dimensions":
            return short
        return [vector / np.linalg.norm(vector) for vector in short]

    def openai(self, body):
        vectors, count, value = self.embed(body, "input")
        rows = [vector.tolist() for vector in vectors]
        if value.get("encoding_format") == "base64":
            kind = ">f4" if self.fault == "base64" else "<f4"
            rows = [base64.b64encode(v.astype(kind).tobytes()).decode() for v in vectors]
        data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
        return {"data": data, "usage": {"prompt_tokens": count, "total_tokens": count}}, {}

    def tei(self, body):
        vectors, count, _ = self.embed(body, "inputs")
        return [vector.tolist() for vector in vectors], {"x-compute-tokens": str(count)}

    def ollama(self, body):
        vectors, count, _ = self.embed(body, "input")
        return {"embeddings": [v.tolist() for v in vectors], "prompt_eval_count": count}, {}


FAULTS = {
    "cuts the end": "length: both ends count",
    "cuts the start": "length: both ends count",
    "limit": "length: past the limit",
    "constant usage": "usage: tokens grow with the text",
    "padded usage": "usage: a batch counts its texts",
    "padding leaks": "batches: alone and in a batch",
    "sorts": "batches: in another order",
    "repeats": "batches: twice in one batch",
    "zeros after long": "long requests: a short text afterwards",
    "zeros for long": "long requests: a short text afterwards",
    "shared buffer": "long requests: short ones beside it",
    "constant vectors": "vectors: distinct, finite, not zero",
    "NaN": "vectors: distinct, finite, not zero",
    "blank": "bad input: a blank text",
    "empty": "bad input: an empty list",
    "types": "bad input: a wrong type",
    "unicode": "bad input: broken Unicode",
    "json": "bad input: not JSON",
    "many": "bad input: too many texts",
    "base64": "formats: base64 is float",
    "ignores dimensions": "formats: dimensions",
    "short dimensions": "formats: dimensions",
}
"""Faults of a server, each with the one check that fails."""

KEPT = {"cuts the end": 256, "cuts the start": 300}
"""Tokens that a server keeps of a text."""

NO_LIMIT = ("cuts the end", "cuts the start", "zeros after long", "zeros for long")


def answer(value, status, headers=None):
    return Response(json.dumps(value), status, headers, "application/json")


def answered(server, shape, body):
    """The response to a body, in the shape of an API."""
    try:
        value, headers = getattr(server, shape)(body)
    except RefusedError as error:
        return answer({"error": {"message": str(error)}}, error.status)
    return answer(value, 200, headers)


def application():
    """Servers by the first part of the path, each with its fault; `mini` runs the real model."""
    app = FastAPI()
    fake = FakeModel()
    servers = {fault.replace(" ", "-"): FakeServer(fake, fault) for fault in FAULTS}
    servers |= {name: FakeServer(fake) for name in ("honest", "keyed", "busy", "only-tei")}
    servers["mini"] = FakeServer(Mini())
    waits = {"busy": 2}

    async def run(name, request, shape):
        if name == "only-tei" and shape == "openai":
            return answer({"error": "no such path"}, 404)
        if name == "keyed" and request.headers.get("authorization") != f"Bearer {KEY}":
            return answer({"error": f"wrong key {request.headers.get('authorization')}"}, 401)
        if waits.get(name):
            waits[name] -= 1
            return answer({}, 429, {"retry-after": "0"})
        return await run_in_threadpool(answered, servers[name], shape, await request.body())

    @app.get("/{name}/v1/models")
    def models(name: str):
        return {"data": [{"id": "another"}, {"id": f"model-of-{name}", "max_model_len": 300}]}

    @app.get("/{name}/info")
    def info(name: str):
        return {"model_id": f"model-of-{name}", "max_input_length": LIMIT}

    @app.post("/{name}/v1/embeddings")
    async def openai(name: str, request: Request):
        return await run(name, request, "openai")

    @app.post("/{name}/embed")
    async def tei(name: str, request: Request):
        return await run(name, request, "tei")

    @app.post("/{name}/api/embed")
    async def ollama(name: str, request: Request):
        return await run(name, request, "ollama")

    return app


@pytest.fixture(scope="module")
def address():
    """The address of the servers, which run in a thread."""
    # Only where the protocol is named does asyncio send small answers at once.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(application(), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join()


def audited(url, max_tokens=MAX_TOKENS, **options):
    return audit_server(url, max_tokens=max_tokens, timeout_s=20, **options)


EVIDENCE = {
    "cuts the end": r"from about 2\d\d tokens on the end does not count, and nothing says so",
    "cuts the start": "the start does not count",
    "limit": "500: 1024 tokens; at most 700",
    "sorts": "in another order than the texts",
    "zeros after long": r"after a request of 1,024 tokens \(200\) .* vectors of zeros",
    "zeros for long": r"a text of 1,024 tokens: 200 with vectors of zeros",
    "NaN": "200 with vectors of NaN",
    "constant vectors": "120 of 120 pairs have equal vectors",
    "constant usage": "count as 7, 7, 7, 7, 7 tokens",
    "blank": "200 with vectors of zeros",
    "ignores dimensions": "24 gives 48 numbers of length 1.0000",
    "many": "4,096 texts: 500: 4096 texts; at most 2048",
}
"""What the evidence of a fault says, where it is more than a number."""


def named(checks):
    return [f"{check.topic}: {check.name}" for check in checks]


def statuses(results):
    return {f"{check.topic}: {check.name}": check.status for check in results.checks}


class TestFindings:
    @pytest.mark.parametrize(
        ("name", "options"),
        [("honest", {}), ("honest", {"api": "tei"}), ("honest", {"api": "ollama"}), ("mini", {})],
    )
    def test_an_honest_server_passes_every_check(self, address, name, options):
        results = audited(f"{address}/{name}", **options)
        wanted = {"pass", "info"}
        assert {k: v for k, v in statuses(results).items() if v not in wanted} == {}
        assert [row.tokens for row in results.lengths] == [256, 512]
        [check] = [each for each in results.checks if each.name == "past the limit"]
        assert re.search(r"413: \d+ tokens; at most 700", check.evidence)
        assert LIMIT in check.figures["numbers"]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_fault_is_found_by_its_own_check_and_no_other(self, address, fault):
        results = audited(f"{address}/{fault.replace(' ', '-')}")
        assert named(results.failed) == [FAULTS[fault]], results.failed
        [check] = results.failed
        assert re.search(EVIDENCE.get(fault, "."), check.evidence), check.evidence
        assert check.remedy
        if fault in KEPT:
            assert KEPT[fault] < check.figures["cut_from"] < KEPT[fault] + 40

    @pytest.mark.parametrize(
        ("name", "options", "status", "words"),
        [
            # It reads more than it says.
            ("honest", {"model": "model-of-honest"}, "pass", "364 tokens are answered, more than"),
            ("honest", {"model": "another"}, "cannot tell", "--max-tokens tries longer ones"),
            ("honest", {"api": "tei"}, "pass", "413: 787 tokens; at most 700"),
            ("cuts-the-end", {"model": "model-of-cuts-the-end"}, "fail", "the end does not count"),
        ],
    )
    def test_a_limit_that_a_server_states_is_tried(self, address, name, options, status, words):
        with connect(f"{address}/{name}", timeout_s=20, **options) as server:
            finding = limit_said(Audit(server=server, max_tokens=256))
        assert finding.status == status
        assert words in finding.evidence


class TestServers:
    @pytest.mark.parametrize(
        ("path", "api", "model"),
        [
            ("only-tei", "tei", "model-of-only-tei"),
            ("honest/api/embed", "ollama", None),
            ("honest/v1", "openai", "another"),
            ("honest/v1/embeddings/", "openai", "another"),
        ],
    )
    def test_auto_finds_the_api_that_answers(self, address, path, api, model):
        with connect(f"{address}/{path}", timeout_s=20) as server:
            assert (server.name, server.model) == (api, model)

    def test_a_busy_server_is_waited_for(self, address):
        with connect(f"{address}/busy", timeout_s=20) as server:
            assert server.embed(["a"]).status == 200

    def test_a_server_that_is_not_there_is_named(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(EndpointError, match=r"cannot be reached .*; start the server"):
            audited(url)

    def test_a_server_without_embeddings_is_named_with_its_answers(self, address):
        with pytest.raises(EndpointError, match=r"/v1/embeddings answers 404.*/api/embed answers"):
            audited(f"{address}/a/b/c")

    @pytest.mark.parametrize("url", ["ftp://host", "http://", ""])
    def test_what_is_no_address_is_refused(self, url):
        with pytest.raises(ConfigError, match="is no address"):
            audited(url)


class TestCommand:
    def test_a_failed_check_ends_the_run_with_one(self, address, capsys):
        url = f"{address}/constant-usage"
        assert ended("audit", "server", url, "--max-tokens", MAX_TOKENS) == 1
        printed = capsys.readouterr().out
        assert "FAIL" in printed
        assert "remedy: count tokens yourself" in printed
        assert "1 fail" in printed.splitlines()[-1]

    def test_json_and_a_page_hold_the_same_checks(self, address, capsys, tmp_path):
        page_file = tmp_path / "server.json"
        url = f"{address}/honest"
        words = ("--max-tokens", MAX_TOKENS, "--json", "-o", page_file)
        assert ended("audit", "server", url, *words) == 0
        value = json.loads(capsys.readouterr().out)
        assert value["failed"] == 0
        page = ResultPage.read(page_file)
        assert page.kind == "server"
        rows = [row[:4] for row in page.tables[0].rows]
        assert rows == [
            (each["topic"], each["name"], each["status"], each["evidence"])
            for each in value["checks"]
        ]

    def test_the_key_is_sent_and_never_shown(self, address, capfd, tmp_path, monkeypatch):
        (tmp_path / "key").write_text(f"{KEY}\n")
        page = tmp_path / "page.json"
        monkeypatch.setattr("sys.argv", ["dewey", "audit", "server", "--key", KEY])
        common = ("--max-tokens", 256, "-o", page)
        url = f"{address}/keyed"
        assert ended("audit", "server", url, "--key-file", tmp_path / "key", *common) == 0
        assert ended("audit", "server", url, "--key", f"{KEY}x", *common) == 1
        assert ended("audit", "server", url.replace("//", f"//user:{KEY}@"), *common) == 1
        shown = "".join(capfd.readouterr()) + page.read_text()
        assert "401: wrong key Bearer ***" in shown
        assert "401: wrong key Basic ***" in shown
        assert KEY not in shown
        assert ResultPage.read(page).command == "dewey audit server --key ***"

    def test_one_line_says_that_nothing_answers(self, capsys):
        assert ended("audit", "server", "http://127.0.0.1:9", "--timeout-s", "1") == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("dewey: error: http://127.0.0.1:9/v1/embeddings: cannot be reached")
