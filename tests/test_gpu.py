"""What runs on a CUDA device gives what it gives on the CPU: encoding, training, the teacher."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dewey_embed import Dewey
from dewey_embed.model.device import default_dtype
from dewey_embed.train.batches import Collator, SampleSet
from dewey_embed.train.recipe import PackageTeacher
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.run import RunFolder, train
from dewey_embed.train.start import start_folder, start_tokenizer
from dewey_embed.train.student import build_student
from dewey_embed.train.teach import OnlineTeacher, teach, untaught
from dewey_embed.train.teachers.minilm import MiniLM
from tests.train.conftest import tiny as tiny  # noqa: PLC0414 - a fixture
from tests.train.test_targets import sample_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:.*the limit:UserWarning"),
]

TEXTS = ["The patents belong to Ms. Okafor's heirs. " * n for n in (1, 9, 60, 300)]


@pytest.mark.parametrize("max_tokens", [4096, 500], ids=["whole", "windows"])
def test_documents_are_encoded_as_on_the_cpu(tiny, tmp_path, max_tokens) -> None:
    start = start_folder(read_recipe(tiny.recipe), tmp_path / "start")
    there, here = (
        Dewey.load(start, device=device, dtype=dtype, max_tokens=max_tokens)
        for device, dtype in (("cuda", "auto"), ("cpu", "float32"))
    )
    assert default_dtype(torch.device("cuda")) == torch.bfloat16
    pairs = (model.encode_document(TEXTS, chunk_tokens=64) for model in (there, here))
    for ours, expected in zip(*pairs, strict=True):
        assert ours.spans == expected.spans
        assert (ours.chunks * expected.chunks).sum(1).min() > 0.995
        assert ours.vector @ expected.vector > 0.995


def test_documents_in_float32_are_encoded_as_on_the_cpu(tiny, tmp_path) -> None:
    """Within the limit that docs/reliability.md states."""
    start = start_folder(read_recipe(tiny.recipe), tmp_path / "start")
    there, here = (
        Dewey.load(start, device=device, dtype="float32").encode_document(TEXTS, chunk_tokens=64)
        for device in ("cuda", "cpu")
    )
    for ours, expected in zip(there, here, strict=True):
        np.testing.assert_allclose(ours.vector, expected.vector, atol=1e-4)
        np.testing.assert_allclose(ours.chunks, expected.chunks, atol=1e-4)


def test_float16_that_overflows_is_read_again_in_bfloat16(tiny, tmp_path) -> None:
    start = start_folder(read_recipe(tiny.recipe), tmp_path / "start")
    there, here = (
        Dewey.load(start, device=device, dtype=dtype)
        for device, dtype in (("cuda", "float16"), ("cpu", "float32"))
    )
    for model in (there, here):  # a hidden unit that surely overflows, and is worth nothing
        mlp = model.model.backbone.layers[0].mlp
        mlp.Wi.weight.data[-1] = 60_000.0
        mlp.Wo.weight.data[:, -1] = 0.0
    with pytest.warns(UserWarning, match="overflow float16 are read again in bfloat16"):
        found = there.encode_document(TEXTS, chunk_tokens=64)
    for ours, expected in zip(found, here.encode_document(TEXTS, chunk_tokens=64), strict=True):
        assert ours.vector @ expected.vector > 0.99


def test_a_batch_that_memory_does_not_hold_is_read_in_halves(tiny, tmp_path) -> None:
    start = start_folder(read_recipe(tiny.recipe), tmp_path / "start")
    model = Dewey.load(start, device="cuda", dtype="float32")
    once = model.encode_document(TEXTS * 8, chunk_tokens=64)
    passes, forward = [], model.model.backbone.forward

    def small(packed, *attention):
        passes.append(len(packed.ids_T))
        if len(packed.ids_T) > 8000:
            raise torch.OutOfMemoryError("no room")
        return forward(packed, *attention)

    model.model.backbone.forward = small
    again = model.encode_document(TEXTS * 8, chunk_tokens=64)
    assert max(passes) > 8000 > min(passes)
    for ours, expected in zip(again, once, strict=True):
        np.testing.assert_allclose(ours.chunks, expected.chunks, atol=2e-3)


def test_a_teacher_says_there_what_it_says_here() -> None:
    there, here = (MiniLM(max_tokens=254, device=device) for device in ("cuda", "cpu"))
    texts = [" ".join(text.split()[:150]) for text in TEXTS] * 3
    assert (there.embed(texts) * here.embed(texts)).sum(1).min() > 0.999
    rows = there.tokenize(texts)
    segments = [teacher.embed_rows(rows, 8)[1].cpu() for teacher in (there, here)]
    assert (segments[0] * segments[1]).sum(1).min() > 0.99


def test_a_step_has_the_gradients_of_the_cpu(tiny, tmp_path) -> None:
    recipe = read_recipe(tiny.recipe)
    start = start_folder(recipe, tmp_path / "start")
    samples = SampleSet(teach(recipe, start, tmp_path / "targets"), "train")
    batch = Collator(start_tokenizer(start))([samples[i] for i in range(6)])
    found = {}
    for device in ("cuda", "cpu"):
        model = build_student(recipe, start).to(device)
        moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            model(**moved)["loss"].backward()
        found[device] = {name: p.grad.cpu() for name, p in model.named_parameters()}
    for name, expected in found["cpu"].items():
        cosine = torch.nn.functional.cosine_similarity(
            found["cuda"][name].flatten(), expected.flatten(), dim=0
        )
        assert cosine > 0.97, name


def test_a_step_of_training_never_waits_for_the_gpu(tiny, tmp_path) -> None:
    recipe = read_recipe(tiny.recipe, ["base.vector_size=384", "targets.part_tokens=8"])
    recipe = recipe.model_copy(update={"teacher": PackageTeacher(kind="package", max_tokens=96)})
    start = start_folder(recipe, tmp_path / "start")
    tokenizer = start_tokenizer(start)
    online_teacher = OnlineTeacher(recipe, start, tmp_path)
    samples = [untaught(sample_of("s", [text[:400]])) for text in TEXTS]
    collator = Collator(tokenizer, online_teacher.request)
    [batch] = DataLoader(samples, len(samples), collate_fn=collator, pin_memory=True)
    model = build_student(recipe, start).cuda()
    for mode in ("default", "error"):  # the first time, memory is got and kernels are chosen
        moved = {k: v.cuda(non_blocking=True) if isinstance(v, torch.Tensor) else v
                 for k, v in batch.items()}  # fmt: skip
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast("cuda", torch.bfloat16):
                model(**online_teacher.with_targets(moved))["loss"].backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_run_asks_its_teacher_on_the_way_and_its_batches_are_made_by_workers(
    tiny, tmp_path
) -> None:
    changes = ["targets.on_the_fly=true", 'training.precision="bfloat16"']
    folder = RunFolder(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = train(read_recipe(tiny.recipe, changes), folder)
    result = json.loads(folder.result.read_text())
    assert result["machine"]["devices"]
    assert result["figures"] == figures
    assert figures["chunk_cosine"] > -1


def test_a_run_that_stops_within_an_epoch_ends_its_process(tiny, tmp_path) -> None:
    # Workers with batches for steps that are never taken must not keep it.
    done = subprocess.run(
        [sys.executable, "-m", "dewey_embed.cli", "train", tiny.recipe, "-o", tmp_path / "run",
         "--set", "targets.on_the_fly=true", "--set", "training.epochs=500",
         "--max-minutes", "0.1"], check=False, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "held-out cosine to the teacher" in done.stdout
