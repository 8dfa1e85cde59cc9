"""Indexes over HTTP: the answers of `Index`, for documents in, out and searched."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from fastapi.testclient import TestClient

from dewey_embed import Document, Index
from dewey_embed.serve.app import create_app
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings

LEASE = (
    "# Lease\n\n## Rent\n\nThe tenant pays 900 a month. It is due on the first.\n\n"
    "## Repairs\n\nThe owner mends the roof. Gutters are cleaned in May.\n"
)
MOTHS = "Moths eat wool and silk. They avoid cedar and lavender."


@pytest.fixture
def shelf(mini, tmp_path):
    """A client of a server with one filled index and an empty one; the server."""
    with Index.open(tmp_path / "house.index", mini) as index:
        index.add(
            [
                Document(id="lease.md", text=LEASE, title="Lease", metadata={"year": 2021}),
                Document(id="moths", text=MOTHS, metadata={"year": 1898}),
            ]
        )
    server = Server(mini, {}, ServeSettings())
    for name in ("house", "new"):
        server.indexes[name] = server.open_index(tmp_path / f"{name}.index")
    app = create_app(server)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client, server
    server.close()


def plain(value):
    """The value as JSON has it."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 1, "passages": 1},
        {"mode": "multi"},
        {"filter": {"year": {">=": 2000}}},
        {"filter": {"year": [1898, 2021]}},
    ],
)
def test_a_search_gives_the_hits_of_the_index(shelf, mini, options) -> None:
    client, server = shelf
    query = "who mends the roof?"
    answer = client.post("/v1/indexes/house/search", json={"query": query, **options}).json()
    expected = Index.open(server.indexes["house"].path, mini).search(query, **options)
    assert [each["document_id"] for each in answer["hits"]] == [h.document_id for h in expected]
    for hit, other in zip(answer["hits"], map(plain, map(asdict, expected)), strict=True):
        assert hit["score"] == pytest.approx(other["score"], abs=1e-4)
        for passage, its in zip(hit["passages"], other["passages"], strict=True):
            assert passage["score"] == pytest.approx(its["score"], abs=1e-4)
            same = ("text", "char_start", "char_end", "location", "highlight", "number")
            assert {key: passage[key] for key in same} == {key: its[key] for key in same}


def test_passages_and_context_are_those_of_the_index(shelf) -> None:
    client, server = shelf
    client.post("/v1/indexes/new/files", files=[("files", ("lease.md", LEASE.encode()))])
    body = {"query": "who mends the roof?", "k": 1, "by": "passage", "context": 1}
    [hit] = client.post("/v1/indexes/new/search", json=body).json()["hits"]
    index = server.indexes["new"]
    [other] = index.passages(body["query"], 1)
    around = index.around(other.passages[0], 1)
    assert hit["passages"][0]["text"] == around.text
    assert hit["passages"][0]["location"]["headings"] == ["Lease", "Repairs"]


def test_documents_come_and_go(shelf) -> None:
    client, _ = shelf
    documents = [{"id": f"d/{n}", "text": f"Note {n}: moths.", "metadata": {"n": n}}
                 for n in range(3)]  # fmt: skip
    added = client.post("/v1/indexes/new/documents", json={"documents": documents}).json()
    assert (added["num_added"], added["num_changed"]) == (3, 0)
    documents[0]["text"] = "Note 0: butterflies."
    changed = client.post("/v1/indexes/new/documents", json={"documents": documents}).json()
    assert (changed["num_added"], changed["num_changed"], changed["num_unchanged"]) == (0, 1, 2)
    first = client.get("/v1/indexes/new/documents?limit=2").json()
    rest = client.get("/v1/indexes/new/documents", params={"after": first["data"][-1]["id"]}).json()
    assert [each["id"] for each in first["data"] + rest["data"]] == ["d/0", "d/1", "d/2"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    part = client.get("/v1/indexes/new/documents/d/0?start=8&end=19").json()
    assert (part["text"], part["num_chars"]) == ("butterflies", 20)
    assert client.delete("/v1/indexes/new/documents/d/0").json()["num_removed"] == 1
    assert client.delete("/v1/indexes/new/documents/d/0").status_code == 404
    gone = client.post("/v1/indexes/new/documents/delete", json={"ids": ["d/1", "none"]}).json()
    assert gone == {"num_removed": 1, "unknown": ["none"]}
    assert client.get("/v1/indexes/new").json()["num_documents"] == 1


def test_files_are_read_and_what_cannot_be_is_named(shelf) -> None:
    client, _ = shelf
    files = [("files", ("lease.md", LEASE.encode())), ("files", ("../../x.pdf", b"not a PDF")),
             ("files", ("moths.html", b"<p>Moths eat wool."))]  # fmt: skip
    report = client.post("/v1/indexes/new/files", files=files).json()
    assert sorted(report["added"]) == ["lease.md", "moths.html"]
    assert [each["source"] for each in report["unreadable"]] == ["x.pdf"]
    assert "tmp" not in report["unreadable"][0]["reason"]
    [hit] = client.post("/v1/indexes/new/search", json={"query": "roof", "k": 1}).json()["hits"]
    assert (hit["document_id"], hit["source"]) == ("lease.md", "lease.md")


@pytest.mark.parametrize("name", ["", " ", "/", "~", ".", ".."])
def test_documents_leave_by_their_ids_alone(shelf, mini, tmp_path, monkeypatch, name) -> None:
    client, server = shelf
    (tmp_path / "moth.txt").write_text(MOTHS)
    index = server.indexes["new"]
    index.add_files(tmp_path / "moth.txt")
    monkeypatch.chdir(tmp_path)
    gone = client.post("/v1/indexes/new/documents/delete", json={"ids": [name]}).json()
    assert (gone["num_removed"], len(index)) == (0, 1)
    if not name.strip():
        assert index.remove(name).unknown == [name]
        assert len(index) == 1


def test_a_blank_document_is_named_and_the_others_are_added(shelf) -> None:
    client, _ = shelf
    documents = [{"id": "blank", "text": " \n"}, {"id": "moths", "text": MOTHS}]
    report = client.post("/v1/indexes/new/documents", json={"documents": documents}).json()
    assert report["added"] == ["moths"]
    assert [each["source"] for each in report["unreadable"]] == ["blank"]


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("..", "file-0"), ("a\0b.txt", "ab.txt"), ("文" * 110 + ".txt", "文" * 65 + ".txt"),
        ("C:\\notes\\x.txt", "x.txt"),
    ],
)  # fmt: skip
def test_a_file_of_any_name_is_read(shelf, name, known_as) -> None:
    client, _ = shelf
    boundary = "----dewey"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"'
        f"\r\n\r\n{MOTHS}\r\n--{boundary}--\r\n"
    )
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    for path in ("/v1/indexes/new/files", "/page/files"):
        content = body if path != "/page/files" else body.replace('"files"', '"file"')
        answer = client.post(path, content=content.encode(), headers=headers)
        assert answer.status_code == 200, answer.text
    listed = client.get("/v1/indexes/new/documents").json()["data"]
    assert [each["id"] for each in listed] == [known_as]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "none/search", {"query": "x"}, 404),
        ("POST", "house/search", {"query": ""}, 422),
        ("POST", "house/search", {"query": " "}, 400),
        ("POST", "house/search", {"query": "x", "k": 0}, 422),
        ("POST", "house/search", {"query": "x", "top": 3}, 422),
        ("POST", "house/search", {"query": "x", "filter": {"none": 1}}, 400),
        ("POST", "house/search", {"query": "x", "filter": {"year": {"$gt": 1}}}, 400),
        ("POST", "house/search", {"query": "\ud800"}, 422),
        ("POST", "house/search", {"query": "x " * 200_000}, 413),
        ("POST", "new/search", {"query": "x"}, 503),
        ("GET", "house/documents/none", None, 404),
        ("GET", "house/documents/moths?start=7&end=3", None, 400),
        ("GET", "house/documents/moths?start=70000", None, 400),
        ("POST", "house/documents", {"documents": []}, 422),
        ("POST", "house/documents", {"documents": [{"id": "a", "text": 1}]}, 422),
        ("POST", "house/documents", {"documents": [{"id": "a", "text": "\ud800"}]}, 200),
        ("DELETE", "house/documents/%00", None, 404),
        ("DELETE", "house/documents//", None, 404),
        ("POST", "house/documents/delete", {"ids": ["\ud800"]}, 422),
        ("POST", "house/documents", {"documents": [{"id": "\ud800", "text": "a"}]}, 422),
    ],
)
def test_bad_requests_are_refused_with_a_reason(shelf, method, path, body, status) -> None:
    client, _ = shelf
    content = None if body is None else json.dumps(body)
    answer = client.request(
        method, f"/v1/indexes/{path}", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text


def test_an_index_that_vanishes_is_named_and_the_server_goes_on(shelf) -> None:
    client, server = shelf
    path = server.indexes["house"].path
    assert client.post("/v1/indexes/house/search", json={"query": "roof"}).status_code == 200
    shutil.rmtree(path)
    answers = [
        client.post("/v1/indexes/house/search", json={"query": "roof"}),
        client.get("/v1/indexes/house"),
        client.get("/v1/indexes/house/documents"),
        client.get("/v1/indexes/house/documents/moths"),
    ]
    assert [each.status_code for each in answers] == [503] * 4
    assert all(str(path) in each.text for each in answers)
    listed = client.get("/v1/indexes").json()["data"]
    assert str(path) in listed[0]["error"]
    assert client.post("/v1/embeddings", json={"input": "moths"}).status_code == 200


def test_an_index_without_a_document_is_empty_and_no_error(shelf) -> None:
    client, _ = shelf
    described = client.get("/v1/indexes/new").json()
    assert (described["num_documents"], described["model"]) == (0, None)


def test_an_index_that_is_made_after_it_was_opened_is_counted(mini, tmp_path) -> None:
    index = Index.open(tmp_path / "later", mini)
    assert len(index) == 0
    Index.open(tmp_path / "later", mini).add(Document(id="moths", text=MOTHS))
    assert (len(index), index.num_chunks) == (1, 2)


def test_a_server_that_only_reads_changes_nothing(mini, tmp_path) -> None:
    with Index.open(tmp_path / "house", mini) as index:
        index.add(Document(id="moths", text=MOTHS))
        app = create_app(Server(mini, {"house": index}, ServeSettings(read_only=True)))
        client = TestClient(app, base_url="http://127.0.0.1")
        document = {"documents": [{"id": "a", "text": "b"}]}
        answers = [
            client.post("/v1/indexes/house/documents", json=document),
            client.post("/v1/indexes/house/files", files=[("files", ("a.txt", b"b"))]),
            client.delete("/v1/indexes/house/documents/moths"),
        ]
        assert [each.status_code for each in answers] == [403] * 3
        assert len(index) == 1


def test_threads_share_a_model_and_an_index(mini, tmp_path) -> None:
    texts = [f"Note {n}: the tenant pays rent {n}." for n in range(24)]
    with Index.open(tmp_path / "shared", mini) as index, ThreadPoolExecutor(8) as threads:
        adding = [threads.submit(index.add, Document(id=str(n), text=text))
                  for n, text in enumerate(texts)]  # fmt: skip
        vectors = list(threads.map(mini.encode, texts))
        assert [each.result().num_added for each in adding] == [1] * 24
        found = list(threads.map(lambda text: index.search(text, 1)[0].document_id, texts))
    assert found == [str(n) for n in range(24)]
    for text, vector in zip(texts, vectors, strict=True):
        assert vector == pytest.approx(mini.encode(text), abs=1e-5)
