"""Clients of the Model Context Protocol over pipes and over HTTP, of this revision and the last."""

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from fastapi import FastAPI
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from starlette.routing import Route

from dewey_embed import Dewey, Document, Index
from dewey_embed.serve.mcp import McpEndpoint
from tests.commands import ended
from tests.serve.conftest import running

REVISION = "2026-07-28"
MODES = {"auto": REVISION, "legacy": "2025-11-25"}


@pytest.fixture(scope="module")
def index(mini, tmp_path_factory):
    index = Index.open(tmp_path_factory.mktemp("indexes") / "mine", "mini")
    index.add([
        Document(id="moth", text="Moths eat wool and silk. They come at night."),
        Document(id="bee", text="Bees make honey of nectar. They live in hives."),
    ])  # fmt: skip
    return index


@pytest.fixture(scope="module")
def url(index):
    """The address of a real server with the endpoint, mounted as its module says."""
    endpoint = McpEndpoint({"mine": index})

    @asynccontextmanager
    async def lifespan(_):
        async with endpoint.running():
            yield

    app = FastAPI(lifespan=lifespan)
    app.router.routes.append(Route("/mcp", endpoint=endpoint))
    with running(app) as address:
        yield address + "/mcp"


async def session(server, mode, seen):
    """Search, expand and fetch as a client does; what it got goes to `seen`."""
    unread = []

    async def note(message):
        if isinstance(message, Exception):
            unread.append(message)

    async with Client(server, mode=mode, message_handler=note, read_timeout_seconds=60) as client:
        tools = await client.list_tools()
        refused = await client.call_tool("fetch", {"id": "nothing"})
        found = await client.call_tool("search", {"query": "what eats silk?", "max_tokens": 300})
        best = json.loads(found.content[0].text)["results"][0]
        expanded = await client.call_tool("expand", {"id": best["id"]})
        fetched = await client.call_tool("fetch", {"id": best["id"]})
        seen[mode] = {
            "revision": client.protocol_version,
            "tools": [tool.name for tool in tools.tools],
            "refused": refused.is_error,
            "best": best["id"],
            "texts": [json.loads(each.content[0].text)["text"] for each in (expanded, fetched)],
            "unread": unread,
        }


def check(seen):
    for mode, revision in MODES.items():
        assert seen[mode] == {
            "revision": revision,
            "tools": ["search", "fetch", "expand", "outline", "similar"],
            "refused": True,
            "best": "moth#char=0,44",
            "texts": ["Moths eat wool and silk. They come at night."] * 2,
            "unread": [],
        }


def test_clients_of_both_revisions_work_over_pipes(index):
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "dewey_embed.cli", "mcp", f"--index={index.path}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    seen = {}

    async def both():
        async with anyio.create_task_group() as group:
            for mode in MODES:
                group.start_soon(session, server, mode, seen)

    anyio.run(both)
    check(seen)


def test_clients_of_both_revisions_work_over_http(url):
    seen = {}
    for mode in MODES:
        anyio.run(session, url, mode, seen)
    check(seen)


def post(url, method, name=None, headers=None, **params):
    """The answer to a request of the present revision, written by hand."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    sent = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": REVISION,
        "Mcp-Method": method,
        **({"Mcp-Name": name} if name else {}),
        **(headers or {}),
    }
    params = {**params, **({"name": name} if name else {}), "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return httpx.post(url, json=body, headers=sent)


def test_a_request_alone_is_answered_without_a_session(url):
    answer = post(url, "tools/call", "search", arguments={"query": "what do bees make?"})
    assert answer.status_code == 200
    assert "mcp-session-id" not in answer.headers
    [item] = answer.json()["result"]["content"]
    assert json.loads(item["text"])["results"][0]["title"] == "bee"


def test_discovery_names_the_revision_the_tools_and_how_long_their_list_holds(url):
    found = post(url, "server/discover").json()["result"]
    assert REVISION in found["supportedVersions"]
    assert set(found["capabilities"]) == {"tools"}
    assert "search first" in found["instructions"]
    listed = post(url, "tools/list").json()["result"]
    assert listed["ttlMs"] > 0
    assert listed["cacheScope"] == "public"
    assert listed == post(url, "tools/list").json()["result"]


def test_headers_that_contradict_the_body_are_refused(url):
    for headers in ({"Mcp-Name": "fetch"}, {"Mcp-Method": "tools/list"}):
        answer = post(url, "tools/call", "search", headers, arguments={"query": "bees"})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == -32020


def test_an_unknown_tool_and_a_body_that_is_not_json_are_refused(url):
    answer = post(url, "tools/call", "delete", arguments={})
    assert "search, fetch" in answer.json()["error"]["message"]
    headers = {"Accept": "application/json", "MCP-Protocol-Version": REVISION}
    answer = httpx.post(url, content="{", headers={**headers, "Content-Type": "application/json"})
    assert answer.status_code == 400
    assert httpx.get(url, headers=headers).status_code == 405


def test_the_command_needs_indexes_that_are_there_and_of_one_model(index, tmp_path):
    assert ended("mcp", "--index", tmp_path / "none") == 1
    assert ended("mcp") == 2
    other = Index.open(tmp_path / "other", Dewey.load(truncate_dim=64))
    other.add(Document(id="moth", text="Moths eat wool."))
    assert ended("mcp", "--index", index.path, "--index", other.path) == 1


@pytest.mark.parametrize(("end", "code"), [("input", 0), ("signal", -signal.SIGTERM)])
def test_indexes_come_from_the_environment_and_the_run_ends_at_once(index, tmp_path, end, code):
    (tmp_path / "home").symlink_to(index.path.parent)
    params = {"protocolVersion": "2025-11-25", "capabilities": {},
              "clientInfo": {"name": "test", "version": "1"}}  # fmt: skip
    asked = {"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params}
    run = subprocess.Popen(
        [sys.executable, "-m", "dewey_embed.cli", "mcp"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "DEWEY_MCP_INDEX": "~/mine", "HOME": str(tmp_path / "home")},
    )  # fmt: skip
    run.stdin.write(f"not JSON\n{json.dumps(asked)}\n")
    run.stdin.flush()
    assert json.loads(run.stdout.readline())["id"] == 7
    if end == "signal":
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == code
    assert run.communicate(timeout=20) == ("", "")
    assert run.returncode == code
