"""The alignment audit: closed forms of angles and clusters, its page, its corpora, its mistakes."""

import json
import shutil

import numpy as np
import pytest
import torch

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, InputError, ReadError, TaskError, TeacherError
from dewey_embed.eval.audits.alignment import audit_alignment, named_teacher
from dewey_embed.eval.audits.angles import (
    Alignment,
    by_document,
    by_length,
    by_place,
    degrees,
    pair_cosines,
    row_cosines,
    tightness,
)
from dewey_embed.eval.generated import essay
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.train.diagnostics import HeldOut
from tests.eval.audits.commands import refused, start
from tests.train.conftest import MINI

SIZES = (16, 32)
DIM = 8


def unit(random, *shape):
    vectors = random.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(3)


class Parrot:
    """A teacher that says of a text what the student would say of it alone, turned by an angle."""

    name = "parrot"
    dim = 384

    def __init__(self, model, angle=0.0):
        self.model, self.angle = model, np.radians(angle)

    def embed(self, texts):
        made = self.model.encode_document(list(texts), chunk_tokens=100_000)
        vectors = np.stack([each.chunks[0] for each in made])
        if self.model.teacher_axes is not None:
            vectors = vectors @ self.model.teacher_axes.T
        across = np.roll(vectors, 1, axis=1)
        across -= (across * vectors).sum(1, keepdims=True) * vectors
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        return (np.cos(self.angle) * vectors + np.sin(self.angle) * across).astype(np.float32)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Ten texts of 60 to 600 words, as JSON lines."""
    words = essay(10_000).split()
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rows = [{"text": " ".join(words[100 * n : 100 * n + 60 * (n + 1)])} for n in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("alignment")


@pytest.fixture(scope="module")
def minilm():
    return named_teacher("minilm", device="cpu")


def audit(model, data, teacher, cache, **options):
    return audit_alignment(
        model, [data], teacher=teacher, cache=cache, **{"chunk_tokens": SIZES} | options
    )


@pytest.fixture(scope="module")
def result(mini, texts, minilm, cache):
    return audit(mini, texts, minilm, cache)


def rows(findings, title):
    [table] = [table for table in findings.tables if table.title == title]
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def made(chunks, targets, owners, *, places=None, lengths=None):
    owners = np.asarray(owners)
    num = int(owners.max()) + 1
    held = HeldOut(
        cls=chunks[:num], cls_targets=targets[:num], chunks=chunks, chunk_targets=targets,
        texts=owners, chunk_tokens=np.full(len(chunks), 16),
        text_tokens=np.full(num, 100) if lengths is None else np.asarray(lengths),
    )  # fmt: skip
    return Alignment(size=16, held=held, places=np.zeros(len(chunks)) if places is None else places)


class TestAngles:
    def test_of_known_vectors(self):
        ours = np.eye(3, dtype=np.float32)
        theirs = np.array([[1, 0, 0], [1, 0, 0], [0, 0, -1]], np.float32)
        assert np.allclose(degrees(row_cosines(ours, theirs)), [0, 90, 180])

    def test_rounding_past_one_is_no_nan(self):
        vector = np.full((1, 3), 0.57735032, np.float32)
        assert degrees(row_cosines(vector, vector))[0] == pytest.approx(0, abs=0.05)

    def test_documents_count_alike_however_long(self):
        values, owners = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 2])
        mean = by_document(values, owners)
        assert mean.mean == 0.5
        assert mean.low <= 0.5 <= mean.high
        assert by_document(values[:0], owners[:0]) is None

    def test_by_place_leaves_out_short_documents(self, random):
        chunks = unit(random, 25, DIM)
        targets = chunks.copy()
        targets[0] = -targets[0]  # first of the document of twenty
        places = np.concatenate([(np.arange(20) + 0.5) / 20, (np.arange(5) + 0.5) / 5])
        [line] = by_place([made(chunks, targets, [0] * 20 + [1] * 5, places=places)])
        assert line[0].mean == pytest.approx(90, abs=0.1)
        assert all(angle.mean == pytest.approx(0, abs=0.1) for angle in line[1:])

    def test_by_length_has_the_documents_vectors_last(self, random):
        # 512 is the last of its row.
        chunks = unit(random, 4, DIM)
        targets = np.concatenate([chunks[:2], -chunks[2:]])
        lines = by_length([made(chunks, targets, [0, 0, 1, 1], lengths=[512, 513])])
        assert [[round(angle.mean) for angle in line] for line in lines] == [[0, 180], [0, 0]]


class TestTightness:
    def test_equals_a_count_of_all_pairs(self, random):
        chunks, owners = unit(random, 12, DIM), np.array([0] * 5 + [1] * 1 + [2] * 6)
        pairs = [
            (owners[a] == owners[b], owners[a], float(chunks[a] @ chunks[b]))
            for a in range(12) for b in range(a)
        ]  # fmt: skip
        each = [np.mean([c for same, o, c in pairs if same and o == n]) for n in (0, 2)]
        result = tightness(chunks, owners)
        assert result.within == pytest.approx(np.mean(each), abs=1e-5)
        apart = [c for same, _, c in pairs if not same]
        assert result.between == pytest.approx(np.mean(apart), abs=1e-5)
        assert result.difference == pytest.approx(result.within - result.between)
        same, other = pair_cosines(chunks, owners, 100)
        assert len(same) == 10 + 15
        assert other.mean() == pytest.approx(np.mean(apart), abs=1e-5)

    def test_equal_chunks_within_and_opposite_ones_between(self):
        pole = np.eye(1, DIM, dtype=np.float32)
        result = tightness(np.concatenate([pole, pole, -pole, -pole]), np.array([0, 0, 1, 1]))
        assert result == (1.0, -1.0)
        assert result.difference == 2.0

    def test_what_has_no_pairs_has_no_figure(self, random):
        chunks = unit(random, 3, DIM)
        assert tightness(chunks, np.zeros(3, int)).between is None
        assert tightness(chunks, np.arange(3)).within is None
        assert tightness(chunks, np.arange(3)).difference is None


class TestPage:
    def test_a_student_that_equals_its_teacher_has_no_angle(self, mini, tmp_path):
        # One chunk each: what the student reads is what the teacher reads.
        lines = [
            json.dumps({"text": f"A text of number {n}, which is short. " * 8}) for n in range(4)
        ]
        (tmp_path / "short.jsonl").write_text("\n".join(lines) + "\n")
        for angle in (0, 30):
            result = audit(
                mini, tmp_path / "short.jsonl", Parrot(mini, angle), tmp_path, chunk_tokens=(500,)
            )
            [row] = rows(result, "By size of chunks")
            assert row["chunks"] == 4
            assert row["angle"] == pytest.approx(angle, abs=0.1)
            assert row["cosine"] == pytest.approx(np.cos(np.radians(angle)), abs=1e-4)
            assert row["own target nearest"] == 1.0

    def test_mini_is_near_its_teacher(self, result):
        for row in rows(result, "By size of chunks"):
            assert 10 < row["angle"] < 45
            assert row["angle low"] <= row["angle"] <= row["angle high"]
            assert row["cosine"] == pytest.approx(np.cos(np.radians(row["angle"])), abs=0.03)

    def test_every_text_is_in_one_row_of_lengths(self, result):
        lengths = rows(result, "By length of the document")
        assert sum(row["documents"] for row in lengths) == 10
        assert all(row["over"] < row["up to"] for row in lengths)

    def test_tenths_of_documents_that_have_ten_chunks(self, result):
        tenths = rows(result, "By place in the document")
        assert [row["place in the document"] for row in tenths][::9] == ["0–10%", "90–100%"]
        assert all(row["chunks of 16"] > 0 for row in tenths)

    def test_tightness_is_the_difference_of_its_columns(self, result):
        for row in rows(result, "How tightly a document's chunks cluster"):
            for who in ("student", "teacher"):
                assert row[f"{who}: difference"] == pytest.approx(
                    row[f"{who}: within"] - row[f"{who}: between"]
                )

    def test_histograms_hold_everything(self, result):
        shares = [plot for plot in result.plots if plot.kind == "histogram"]
        assert len(shares) == 2
        for plot in shares:
            for series in plot.series:
                assert sum(series.y) == pytest.approx(1)

    def test_a_second_run_finds_the_same(self, mini, texts, minilm, cache, result):
        assert audit(mini, texts, minilm, cache) == result
        assert audit(mini, texts, minilm, cache, seed=1, num_documents=3) != result

    def test_notes_say_what_the_teacher_does_not_read_and_what_is_cut(
        self, mini, texts, minilm, cache
    ):
        notes = audit(
            mini, texts, minilm, cache, teacher_tokens=20, max_tokens=100, num_documents=2
        ).tables[0].notes  # fmt: skip
        assert any("reads 20 tokens: of chunks of 32 tokens it sees" in note for note in notes)
        assert any("cut at 100 tokens" in note for note in notes)

    def test_one_document_has_no_likeness_between_documents(self, mini, texts, minilm, cache):
        result = audit(mini, texts, minilm, cache, num_documents=1)
        [row, _] = rows(result, "How tightly a document's chunks cluster")
        assert row["student: between"] is None
        assert row["student: within"] is not None
        assert any("One document" in note for note in result.tables[0].notes)


class TestCorpora:
    def test_text_files_and_a_beir_folder(self, mini, corpus, minilm, cache, tmp_path):
        (tmp_path / "a.txt").write_text(essay(200))
        result = audit_alignment(
            mini, [tmp_path / "a.txt", corpus], teacher=minilm, cache=cache, chunk_tokens=SIZES
        )
        [row, *_] = rows(result, "By length of the document")
        assert row["documents"] > 5

    def test_nothing_long_enough_is_an_error(self, mini, minilm, cache, tmp_path):
        (tmp_path / "short.jsonl").write_text('{"text": "too short"}\n')
        with pytest.raises(TaskError, match=r"no text to measure on \(left out: 1 too short\)"):
            audit(mini, tmp_path / "short.jsonl", minilm, cache)

    def test_nothing_held_out_is_an_error(self, mini, texts, minilm, cache):
        with pytest.raises(TaskError, match="all others are trained on"):
            audit(mini, texts, minilm, cache, held_out=0.0)

    def test_blank_texts_are_an_error(self, mini, minilm, cache, tmp_path):
        (tmp_path / "blank.jsonl").write_text(json.dumps({"text": " " * 300}) + "\n")
        with pytest.raises(TaskError, match="none of 1 texts holds a token"):
            audit(mini, tmp_path / "blank.jsonl", minilm, cache)

    def test_a_missing_file_is_an_error(self, mini, minilm, cache, tmp_path):
        with pytest.raises(ReadError, match="no file here"):
            audit(mini, tmp_path / "none", minilm, cache)


class TestRefusals:
    def test_a_teacher_of_another_width(self, texts, minilm, cache, tmp_path):
        shutil.copytree(
            MINI, tmp_path / "m", ignore=shutil.ignore_patterns("teacher_axes.safetensors")
        )
        narrow = Dewey.load(tmp_path / "m", device="cpu", truncate_dim=64)
        with pytest.raises(ConfigError, match=r"64 dimensions and those of all-MiniLM-L6-v2 384"):
            audit(narrow, texts, minilm, cache)

    def test_a_teacher_that_answers_nan(self, mini, texts, tmp_path):
        class Broken(Parrot):
            def embed(self, texts):
                return np.full((len(texts), 384), np.nan, np.float32)

        with pytest.raises(TeacherError, match="NaN"):
            audit(mini, texts, Broken(mini), tmp_path)

    def test_a_student_that_answers_nan(self, texts, minilm, tmp_path):
        broken = Dewey.load(device="cpu")
        with torch.no_grad():
            next(broken.model.parameters()).fill_(float("nan"))
        with pytest.raises(InputError, match="NaN or infinite"):
            audit(broken, texts, minilm, tmp_path)

    @pytest.mark.parametrize("name", ["maxilm", "openai:http://localhost:1"])
    def test_an_unknown_teacher(self, name):
        with pytest.raises(ConfigError, match="teachers: minilm, st:MODEL, openai:URL#MODEL"):
            named_teacher(name)


class TestCommand:
    def test_the_command_writes_a_page(self, texts, result, cache, tmp_path):
        output = tmp_path / "out" / "alignment.json"
        done = start(
            "alignment", "--data", texts, "--chunk-tokens", "16,32", "--cache", cache, "-o", output
        )
        printed, errors = done.communicate()
        assert done.returncode == 0, errors
        assert ResultPage.read(output).tables == result.tables
        assert printed.strip() == result.summary

    def test_a_mistake_is_one_line(self, tmp_path):
        printed = refused("alignment", "--data", tmp_path, "--chunk-tokens", "many")
        assert "--chunk-tokens is 'many'" in printed
