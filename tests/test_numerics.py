"""Numbers: what is not finite is named, float16 that overflows is mended, mates change nothing."""

import asyncio
import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dewey_embed import Dewey, Document, Index
from dewey_embed.cluster.encode import _Encoder, _ModelSpec, _Work, open_output
from dewey_embed.cluster.outputs import Making
from dewey_embed.errors import CheckpointError, ConfigError, InputError
from dewey_embed.model import engine
from dewey_embed.model.engine import build_kernels, inference_kernels
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.queue import EncodeQueue, QueuedModel
from tests.commands import ended

SENTENCES = [
    "The tenant pays the rent on the first day of the month.",
    "Ships carry timber across the sound, and moths eat wool.",
    "§4.2 (b): Überall gilt 你好 👋🏽, whatever the owner's heirs say.",
    "A roof that leaks is mended by the owner; windows are not.",
]
ENGINES = ("kernels", "PyTorch")

MATES = {"float32": 1e-6, "bfloat16": 1e-2}
"""How far mates may move a number of a vector; docs/reliability.md states it."""

EMBEDDINGS = "embeddings.tok_embeddings.weight"


def text(words: int, seed: int = 0) -> str:
    """A text of about so many words that begins with a number of its own."""
    sentences = (SENTENCES[(seed + number) % 4] for number in range(1 + words // 10))
    return f"{seed}. {' '.join(sentences)}"


def run_by(model: Dewey, name: str, patched: pytest.MonkeyPatch) -> None:
    """Have a model run by the kernels, or by plain PyTorch."""
    if name == "kernels":
        build_kernels(model.model.backbone)
        with torch.inference_mode():
            if inference_kernels(model.model.backbone) is None:
                pytest.skip("no kernels on this machine")
    else:
        patched.setattr(engine, "ENGINES", engine.ENGINES[-1:])


def saved(folder, change):
    """A folder of the default model with float32 weights, once `change` was applied to them."""
    with warnings.catch_warnings(category=UserWarning, action="ignore"):  # of its mean there
        Dewey.load(dtype="float32").save(folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "dewey_checksums.json").unlink()  # of the weights before
    return folder


@pytest.fixture(scope="module")
def zebra(tmp_path_factory):
    """A folder of a model that overflows for texts with the word zebra, though weights are finite.

    The sum of the numbers of the word's row is more than float32 holds.
    """
    word = Dewey.load().tokenizer.encode(["zebra"])[0].ids[0]

    def change(weights):
        [name] = [name for name in weights if name.endswith(EMBEDDINGS)]
        weights[name][word] = 3e38

    return saved(tmp_path_factory.mktemp("zebra"), change)


@pytest.fixture(scope="module")
def model(zebra):
    return Dewey.load(zebra, dtype="float32")


class TestFaults:
    @pytest.mark.parametrize("name", ENGINES)
    def test_part_and_place_are_named_and_mates_keep_their_vectors(
        self, zebra, name, monkeypatch
    ) -> None:
        model = Dewey.load(zebra, dtype="float32")
        run_by(model, name, monkeypatch)
        texts = [text(20), "word " * 200 + "zebra", text(40, 1), "zebra", text(300, 2)]
        found = model.encode_sound(model.prepare(texts, chunk_tokens=64))
        assert [isinstance(each, str) for each in found] == [False, True, False, True, False]
        assert found[1] == (
            "its vectors are not finite: in float32, backbone.embeddings.norm gives NaN from "
            "character 1,000 on"
        )
        for position in (0, 2, 4):
            alone = model.encode_document(texts[position], chunk_tokens=64)
            np.testing.assert_allclose(found[position].vector, alone.vector, atol=1e-6)
            np.testing.assert_allclose(found[position].chunks, alone.chunks, atol=1e-6)

    def test_the_error_counts_the_others(self, model) -> None:
        message = r"^text 1 \(and 1 more of 3\): its vectors are not finite: in float32, backbone"
        with pytest.raises(InputError, match=message):
            model.encode([text(20), "zebra", "a zebra"])
        assert model.encode(text(20)).any()

    def test_characters_are_those_of_the_text_also_in_windows(self, model) -> None:
        with pytest.raises(InputError, match=r"NaN from character 2,500 on"):
            model.encode_document("word " * 500 + "zebra", window=128)

    @pytest.mark.parametrize("name", ENGINES)
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
    def test_a_model_that_overflows_for_every_text_is_refused(
        self, name, dtype, monkeypatch
    ) -> None:
        model = Dewey.load(dtype=dtype)
        run_by(model, name, monkeypatch)
        weight = model.model.backbone.layers[2].mlp.Wo
        with torch.no_grad():
            if dtype == "int8":
                weight.scale.fill_(3e38)
            else:
                weight.weight.fill_(3e38)
        message = r"mini, even for the text .moths eat wool.: .*\.2\.mlp\.Wo \(layer 3 of 6\) gives"
        with pytest.raises(CheckpointError, match=message):
            model.encode_sound(model.prepare([text(30)]))

    @pytest.mark.parametrize("name", ENGINES)
    def test_a_vector_of_zeros_is_a_fault_too(self, name, monkeypatch) -> None:
        """Norms of numbers that float32 holds, and whose squares it does not."""
        model = Dewey.load(dtype="float32")
        run_by(model, name, monkeypatch)
        with torch.no_grad():
            model.model.backbone.layers[2].mlp.Wo.weight[7] = 1e25
        with pytest.raises(InputError, match=r"^text 0: its vector is zero: in float32, a norm's"):
            model.encode(text(30))

    def test_a_tensor_that_broke_in_memory_is_named(self) -> None:
        model = Dewey.load(dtype="float32")
        with torch.no_grad():
            model.model.backbone.layers[1].attn.Wqkv.weight[5, 5] = float("inf")
        tensor = (
            r"its tensor backbone\.layers\.1\.attn\.Wqkv\.weight holds 1 NaN or infinite value;"
        )
        with pytest.raises(InputError, match=tensor):
            model.encode(text(30))


class TestWhoeverEncodes:
    """One text without finite vectors costs that text."""

    def test_an_index_refuses_it_and_keeps_what_it_held(self, model, tmp_path) -> None:
        documents = [Document(id=name, text=text(40, len(name))) for name in ("a", "bb", "ccc")]
        bad = [
            Document(id="bb", text="A zebra changed it."),
            Document(id="new", text="A zebra."),
            Document(id="titled", text=text(20, 9), title="On the zebra"),
        ]
        with Index.open(tmp_path, model) as index:
            index.add(documents)
            for _ in range(2):  # it is tried again
                report = index.add([*bad, Document(id="sound", text=text(20, 8))])
                assert [each.source for each in report.unreadable] == ["bb", "new", "titled"]
                assert all(
                    "are not finite: in float32" in each.reason for each in report.unreadable
                )
            assert report.num_added == report.num_changed == 0
            assert sorted(each.id for each in index.documents()) == ["a", "bb", "ccc", "sound"]
            hits = index.search(documents[1].text, k=1)
            assert hits[0].document_id == "bb"

    def test_the_command_line_lists_it(self, zebra, tmp_path, capsys) -> None:
        lines = [{"id": name, "text": own} for name, own in (("a", text(9)), ("b", "a zebra"))]
        (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
        words = ("encode", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--model", zebra)
        assert ended(*words) == 3
        errors = capsys.readouterr().err
        assert "id 'b': its vectors are not finite: in " in errors
        assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1

    @pytest.mark.parametrize("name", ["out.lance", "out.parquet", "out.index"])
    def test_a_cluster_leaves_it_out_and_keeps_the_earlier_version(
        self, zebra, model, tmp_path, name
    ) -> None:
        place = open_output(str(tmp_path / name), model, Making())
        place.begin()
        encoder = _Encoder(place, _ModelSpec(str(zebra), model.fingerprint), 1, None)
        documents = [Document(id=one, text=f"{one} zebra") for one in "ab"]
        documents.append(Document(id="c", text=text(9)))
        contents = [bytes([number]) * 16 for number in range(3)]
        work = _Work(
            (0, 0), documents, [], 0, contents=contents, earlier=[{b"old"}, set(), {b"older"}]
        )
        [done] = encoder({"work": [work]})["work"]
        assert done.error is None
        assert [each.document_id for each in done.faults] == ["a", "b"]
        assert done.contents == contents[2:]
        assert done.stale == {b"older"}
        place.commit(done.written)
        assert len(place.begin().ids) == 1

    def test_a_server_refuses_its_request_alone(self, model) -> None:
        queue = EncodeQueue(model, max_wait_s=30)

        async def all_at_once():
            texts = [["one"], ["two", "a zebra"], ["three"]]
            return await asyncio.gather(
                *(queue.encode(model.prepare(each)) for each in texts), return_exceptions=True
            )

        try:
            first, refused, last = asyncio.run(all_at_once())
            [sound, reason] = QueuedModel(model, queue).encode_sound(
                model.prepare(["four", "zebra"])
            )
        finally:
            queue.close()
        assert isinstance(refused, ApiError)
        assert refused.status == 500
        fault = "text 1: its vectors are not finite: in float32, backbone.embeddings.norm gives"
        assert fault in str(refused)
        assert all(each.vector.any() for each in (first[0], last[0], sound))
        assert "are not finite" in reason


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """A folder of a model that overflows float16: one layer's values are 2¹³ times as large.

    Its second projection makes them small again.
    """

    def change(weights):
        [name] = [name for name in weights if name.endswith("layers.1.mlp.Wi.weight")]
        weights[name][len(weights[name]) // 2 :] *= 2.0**13
        weights[name.replace("Wi", "Wo")] *= 2.0**-13

    return saved(tmp_path_factory.mktemp("overflowing"), change)


class TestFloat16:
    def test_texts_that_overflow_are_read_again_and_it_is_said_once(self, overflowing) -> None:
        texts = [text(30, seed) for seed in range(3)]
        model, exact = (Dewey.load(overflowing, dtype=each) for each in ("float16", "float32"))
        message = (
            r"^texts that overflow float16 are read again in (bfloat16|float32) \(the first: .* in "
            r"float16, backbone\.layers\.1\.mlp\.W[io] \(layer 2 of 6\) gives (NaN|infinity) from"
        )
        with pytest.warns(UserWarning, match=message):
            found = model.encode_document(texts, chunk_tokens=16)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.encode(texts)
        for ours, expected in zip(
            found, exact.encode_document(texts, chunk_tokens=16), strict=True
        ):
            assert (ours.chunks * expected.chunks).sum(1).min() > 0.99
            assert ours.vector @ expected.vector > 0.995
        assert model.dtype == torch.float16

    def test_texts_that_fit_are_float16s_own(self) -> None:
        model, exact = (Dewey.load(dtype=each) for each in ("float16", "float32"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert model.encode(text(30)) @ exact.encode(text(30)) > 0.9999

    def test_a_text_that_overflows_there_too_is_refused(self) -> None:
        model = Dewey.load(dtype="float16")
        word = model.tokenizer.encode(["zebra"])[0].ids[0]
        with torch.no_grad():
            model.model.backbone.embeddings.tok_embeddings.weight[word] = float("inf")
        with (
            pytest.warns(UserWarning, match="in float16, backbone.embeddings.tok_embeddings"),
            pytest.raises(InputError, match=r"text 1: .* in (bfloat16|float32), backbone.emb"),
        ):
            model.encode(["moths", "zebra"])

    def test_weights_past_float16_are_refused_at_load(self, tmp_path) -> None:
        def change(weights):
            [name] = [name for name in weights if name.endswith("layers.1.mlp.Wo.weight")]
            weights[name][0, 0] = 1e5

        saved(tmp_path, change)
        with pytest.raises(
            ConfigError, match=r"layers\.1\.mlp\.Wo\.weight' holds 100,000, and float16 ends at 65"
        ):
            Dewey.load(tmp_path, dtype="float16")
        assert Dewey.load(tmp_path, dtype="bfloat16").encode("a text").any()


@pytest.fixture(scope="module", params=[(d, e) for d in MATES for e in ENGINES], ids="-".join)
def alone(request):
    """A model by an engine in a dtype, its limit, and texts of all kinds with their vectors."""
    dtype, name = request.param
    with pytest.MonkeyPatch.context() as patched:
        model = Dewey.load(dtype=dtype)
        run_by(model, name, patched)
        texts = [text(words, seed) for seed, words in enumerate((3, 9, 700, 60, 25, 180, 90))]
        options = {"chunk_tokens": [16, 64], "window": 256, "prompt": "About: "}
        titles = ["", "On rent", "", "A title", "On ships", "", "On roofs and windows"]
        each = [
            model.encode_document([one], titles=[title], **options)[0]
            for one, title in zip(texts, titles, strict=True)
        ]
        yield model, MATES[dtype], texts, titles, options, each


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(7)), st.integers(1, 7), st.sampled_from([1, 64, 300, 2_000, 16_384]))
def test_neither_mates_nor_order_change_a_vector(alone, order, count, batch_tokens) -> None:
    model, limit, texts, titles, options, each = alone
    chosen = order[:count]
    found = model.encode_document(
        [texts[number] for number in chosen],
        titles=[titles[number] for number in chosen],
        batch_tokens=batch_tokens,
        **options,
    )
    for number, ours in zip(chosen, found, strict=True):
        assert ours.spans == each[number].spans
        assert np.abs(ours.vector - each[number].vector).max() <= limit
        assert np.abs(ours.chunks - each[number].chunks).max() <= limit


@settings(max_examples=4, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_a_servers_lanes_change_no_vector(alone, numbers) -> None:
    model, limit, texts, _, _, _ = alone
    queue = EncodeQueue(model, max_wait_s=30)

    async def at_once():
        prepared = [model.prepare([texts[number]], chunk_tokens=32) for number in numbers]
        return await asyncio.gather(*map(queue.encode, prepared))

    try:
        found = asyncio.run(at_once())
    finally:
        queue.close()
    for number, [ours] in zip(numbers, found, strict=True):
        expected = model.encode_document(texts[number], chunk_tokens=32)
        assert np.abs(ours.vector - expected.vector).max() <= limit
        assert np.abs(ours.chunks - expected.chunks).max() <= limit
