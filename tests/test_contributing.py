"""The code of CONTRIBUTING.md works as it stands: each section is followed by its text alone."""

import io
import json
import re
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from dewey_embed import Dewey, Document, Index
from dewey_embed.cli import outputs
from dewey_embed.cli.app import app
from dewey_embed.errors import ReadError
from dewey_embed.single_vectors import SINGLE_VECTORS
from dewey_embed.text import encodings, formats, splitter
from dewey_embed.text.inputs import ReadOptions
from dewey_embed.train import loss_terms

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def code(section: str) -> list[str]:
    """The Python of a section, block by block."""
    [text] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def row(source: str, names: dict) -> dict:
    """A row of a table, as the page writes it."""
    return eval(f"{{{source}}}", names)


def test_a_file_format():
    function, entry = code("A file format")
    names = {**vars(formats), "decode": encodings.decode}
    exec(function, names)
    [(_, added)] = row(entry, names).items()
    film = io.BytesIO(b"1\n00:00:01,000 --> 00:00:02,000\nThe tenant pays.\n")
    [content] = added.read(film, ReadOptions())
    assert content.text == "The tenant pays."
    with pytest.raises(ReadError, match="no subtitles"):
        list(added.read(io.BytesIO(b"1\n\n"), ReadOptions()))


def test_a_single_vector(monkeypatch):
    import dewey_embed.single_vectors as module

    [(name, added)] = row(code("A single vector")[0], vars(module)).items()
    monkeypatch.setitem(SINGLE_VECTORS, name, added)
    [doubled] = Dewey.load(single_vector=name).encode(["The tenant pays the rent."])
    cls, mean = (
        Dewey.load(single_vector=each).encode(["The tenant pays the rent."])[0]
        for each in ("cls", "mean")
    )
    expected = cls + 2 * mean
    assert np.allclose(doubled, expected / np.linalg.norm(expected), atol=1e-5)


def test_a_loss_term():
    [(_, added)] = row(code("A loss term")[0], vars(loss_terms)).items()
    rows = F.normalize(torch.randn(4, 8), dim=-1)
    places = torch.zeros(4, 4, dtype=torch.int64)
    batch = loss_terms.Batch(
        rows, rows, rows, -rows, *3 * [rows[:0]], chunk_places=places, answer_places=places[:0]
    )
    assert added.of(batch).item() == pytest.approx(2)
    assert added.weight == 0


def test_a_splitter(monkeypatch):
    function, entry = code("A splitter")
    names = dict(vars(splitter))
    exec(function, names)
    [(name, added)] = row(entry, names).items()
    monkeypatch.setitem(splitter.SPLITTERS, name, added)
    text = "The tenant pays the rent.\nShips carry timber down the river.\n" * 6
    spans = Dewey.load().encode_document(text, splitter=name, chunk_tokens=8, chunk_overlap=0).spans
    chunks = [text[span.char_start : span.char_end] for span in spans]
    assert chunks[:2] == text.splitlines()[:2]


def test_a_storage_format(tmp_path, monkeypatch):
    names = dict(vars(outputs))
    exec(code("A storage format")[0], names)
    monkeypatch.setitem(outputs.WRITERS, ".tsv", names["write_tabs"])
    (tmp_path / "lease.txt").write_text("The tenant pays the rent.", encoding="utf-8")
    shown = CliRunner().invoke(
        app, ["encode", str(tmp_path / "lease.txt"), "--output", str(tmp_path / "v.tsv")]
    )
    assert shown.exit_code == 0, shown.output
    [line] = (tmp_path / "v.tsv").read_text(encoding="utf-8").splitlines()
    assert len(line.split("\t")[-1].split()) == 384


def test_an_endpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Index.open("my.index").add([Document(id="lease", text="The tenant pays the rent.")])
    names = {"__name__": "endpoint"}
    exec(code("An endpoint")[0], names)
    server = ThreadingHTTPServer(("127.0.0.1", 0), names["Handler"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(address, json.dumps({"query": "rent"}).encode()) as answer:
            assert [hit["id"] for hit in json.load(answer)] == ["lease"]
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(address, json.dumps({"query": ""}).encode())
    finally:
        server.shutdown()
        server.server_close()
