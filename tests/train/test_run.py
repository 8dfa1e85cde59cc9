"""A whole run from the tiny recipe: what it leaves, what it refuses, when it stops."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import TrainerState

from dewey_embed import Dewey
from dewey_embed.cli.train import nearness
from dewey_embed.errors import CheckpointError, ConfigError, RunError, TargetsError
from dewey_embed.eval.model_card import without_results
from dewey_embed.model.folder import HISTORY_FILE
from dewey_embed.train.batches import Collator, SampleSet, ShardShuffle
from dewey_embed.train.card import card, with_axes
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.run import RunFolder, _Log, spread, train
from dewey_embed.train.start import runs_of, start_tokenizer, with_run
from dewey_embed.train.teach import teach
from dewey_embed.train.trainer import SUMS_FILE, last_complete_checkpoint
from tests.commands import dewey
from tests.train.groups import launched

from .conftest import MINI

# A tiny student after twelve steps is far from its teacher, and is warned about.
pytestmark = pytest.mark.filterwarnings("ignore:.*the limit:UserWarning")


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """The folder and the figures of a finished run."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    return folder, train(read_recipe(tiny.recipe), folder)


def test_a_run_leaves_a_model_that_encodes(finished) -> None:
    folder, figures = finished
    model = Dewey.load(folder.model)
    [document] = model.encode_document(["A text about ships. " * 40], chunk_tokens=32)
    assert document.chunks.shape == (len(document.spans), 32)
    assert Dewey.load(folder.path).fingerprint == model.fingerprint  # the run's folder has it
    assert figures["alignment"] == pytest.approx(
        (figures["chunk_cosine"] + figures["cls_cosine"]) / 2
    )


def test_a_run_logs_its_terms_and_figures_and_says_what_it_took(finished) -> None:
    folder, figures = finished
    lines = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert any("loss/cosine_chunks" in line for line in lines)
    assert sum("eval_alignment" in line for line in lines) == 2
    assert any("eval_passkey/256" in line for line in lines)
    assert any({"eval_chunk_cosine_contextual", "eval_plain_chunks"} <= set(line) for line in lines)
    assert any("chunk_cosine" in line.get("warning", "") for line in lines)
    result = json.loads(folder.result.read_text())
    assert result["figures"] == figures
    assert "passkey/256" in figures  # looked for at the end, too
    assert result["steps"] == 12
    assert result["tokens"] > 0
    assert result["machine"]["torch"]
    assert list(folder.checkpoints.glob("runs/*/events.*"))  # TensorBoard


def test_the_tokens_of_a_run_are_those_of_its_batches(finished, tiny) -> None:
    folder, _ = finished
    recipe = read_recipe(tiny.recipe)
    samples = SampleSet(teach(recipe, folder.start, folder.targets), "train")
    collator = Collator(start_tokenizer(folder.start))
    first = list(ShardShuffle(samples, recipe.training.seed))[: 12 * 4]
    batches = [collator([samples[i] for i in first[step : step + 4]]) for step in range(0, 48, 4)]
    result = json.loads(folder.result.read_text())
    assert result["tokens"] == sum(len(batch["ids"]) for batch in batches)


def test_a_finished_run_started_again_trains_nothing_more(finished, tiny) -> None:
    folder, figures = finished
    before = load_file(folder.model / "model.safetensors")
    took = json.loads(folder.result.read_text())
    assert train(read_recipe(tiny.recipe), folder) == figures
    after = load_file(folder.model / "model.safetensors")
    assert all(bool((before[name] == after[name]).all()) for name in before)
    again = json.loads(folder.result.read_text())
    assert (again["steps"], again["tokens"]) == (took["steps"], took["tokens"])


def licensed(recipe):
    """The recipe, each source under a licence."""
    sources = [{**source, "licence": "CC0"} for source in recipe["corpus"]["sources"]]
    return {**recipe, "corpus": {**recipe["corpus"], "sources": sources}}


def test_the_card_says_what_a_model_was_made_of(finished, tiny) -> None:
    folder, figures = finished
    text = (folder.model / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: sentence-transformers\n")
    assert f"- Goes on from: {tiny.student}\n- Teacher: {tiny.teacher}\n- 12 steps, " in text
    assert f"| {tiny.corpus.name} | 1.0 | not stated |" in text
    assert f"| chunks: cosine to their targets | {figures['chunk_cosine']:.3f} |" in text
    for kind, ends in (("contextual", "under its title and heading"), ("plain", "chunk alone")):
        row = rf"\| (\d+) chunks with {kind} targets: .*{ends} \| (.*) \|"
        [(number, value)] = re.findall(row, text)
        assert int(number) == figures[f"{kind}_chunks"] > 0
        assert value == f"{figures[f'chunk_cosine_{kind}']:.3f}"
    result = json.loads(folder.result.read_text())
    assert "\nlicense:" not in text
    source = result["recipe"]["corpus"]["sources"][0]
    assert "\nlicense: apache-2.0\n" in card({**result, "recipe": licensed(result["recipe"])})
    source["matching"] = "tide"
    assert f"| {tiny.corpus.name}, what matches | 1.0 | not stated |" in card(result)


def test_the_last_line_of_a_run_tells_contextual_chunks_from_plain_ones() -> None:
    figures = {"chunk_cosine": 0.7, "cls_cosine": 0.9}
    assert nearness(figures) == "held-out cosine to the teacher 0.700 for chunks, 0.900 for CLS"
    figures |= {"contextual_chunks": 3.0, "chunk_cosine_contextual": 0.6}
    assert "0.700 for chunks (0.600 for 3 contextual ones), 0.900" in nearness(figures)
    figures |= {"plain_chunks": 1204.0, "chunk_cosine_plain": 0.8}
    assert "(0.600 for 3 contextual, 0.800 for 1,204 plain ones)" in nearness(figures)


def test_a_run_tells_of_the_runs_before_it(finished, tiny, tmp_path: Path) -> None:
    folder, _ = finished
    first = json.loads(folder.result.read_text())
    assert first["before"] == []
    assert "## Runs before" not in (folder.model / "README.md").read_text()
    changes = [f"base.checkpoint={folder.model}", "training.max_steps=2",
               "diagnostics.passkey_tokens=[]"]  # fmt: skip
    again = RunFolder(tmp_path, folder.targets)
    train(read_recipe(tiny.recipe, changes), again)
    second = json.loads(again.result.read_text())
    assert [run["tokens"] for run in second["before"]] == [first["tokens"]]
    text = (again.model / "README.md").read_text()
    assert f"\n1 run; with this one {first['tokens'] + second['tokens']:,} tokens, " in text
    assert f"| `{first['command']}` | {first['tokens']:,} | " in text
    assert [run["steps"] for run in runs_of(again.model)] == [12, 2]
    (again.model / HISTORY_FILE).write_text('[{"command": "dewey"}]')
    with pytest.raises(CheckpointError, match=rf"{HISTORY_FILE}: is no history .*'steps'.*mend"):
        runs_of(again.model)
    (again.model / HISTORY_FILE).write_text("{}")
    with pytest.raises(CheckpointError, match=r"is no history .*a JSON dict"):
        runs_of(again.model)


def test_the_shipped_model_tells_of_the_shipped_result(repository) -> None:
    path = repository / "benchmarks" / "results" / "mini_training.json"
    result = json.loads(path.read_text())
    shipped, made = ModelCard.load(MINI / "README.md"), ModelCard(with_axes(card(result)))
    assert without_results(shipped.text).rstrip() == made.text.rstrip()
    assert shipped.data.to_dict() | made.data.to_dict() == shipped.data.to_dict()
    *runs, rotation = runs_of(MINI)
    assert runs == with_run(result["before"], result)
    assert rotation["command"].startswith("dewey rotate ")


def test_muon_goes_on_from_a_checkpoint_bit_for_bit(finished, tiny, tmp_path: Path) -> None:
    changes = ["training.optimizer=muon", "diagnostics.passkey_tokens=[]"]
    recipe = read_recipe(tiny.recipe, changes)
    whole = RunFolder(tmp_path / "whole", finished[0].targets)
    train(recipe, whole)
    broken = RunFolder(tmp_path / "broken", whole.targets)
    shutil.copytree(whole.path, broken.path)
    for written in ("checkpoints/checkpoint-12", "model"):
        shutil.rmtree(broken.path / written)
    train(recipe, broken)
    expected, found = (load_file(run.model / "model.safetensors") for run in (whole, broken))
    assert all(bool((found[name] == expected[name]).all()) for name in expected)
    plain = load_file(finished[0].model / "model.safetensors")
    assert any(bool((plain[name] != expected[name]).any()) for name in expected)
    told, wanted = (untimed(run.log) for run in (broken, whole))  # means of steps 1 to 10 and all
    assert told == wanted
    assert {"loss", "loss/cosine_chunks", "train_loss"} <= set().union(*wanted)


def untimed(log):
    """The lines of a run's log, but for what depends on the clock."""
    clock = re.compile("train_(runtime|.*_per_second)")
    return [
        {name: value for name, value in json.loads(line).items() if not clock.fullmatch(name)}
        for line in log.read_text().splitlines()
    ]


def test_what_was_logged_after_the_checkpoint_is_logged_once(finished, tmp_path: Path) -> None:
    folder, _ = finished
    log = tmp_path / "log.jsonl"
    lines = [*folder.log.read_bytes().splitlines(keepends=True), b"\xff torn\n"]
    log.write_bytes(b"".join(lines))
    early = [line for line in lines if not line.startswith((b'{"step": 10', b'{"step": 12'))]
    assert 1 < len(early) < len(lines)
    for step, said in ((12, lines), (9, early)):
        state = TrainerState(global_step=step, is_world_process_zero=True)
        _Log(log, None).on_train_begin(None, state, None)
        assert log.read_bytes().splitlines(keepends=True) == said


def test_the_steps_of_a_window_count_for_all_its_terms(finished) -> None:
    folder, _ = finished
    sums = json.loads((folder.checkpoints / "checkpoint-9" / SUMS_FILE).read_text())
    assert (sums["logged_step"], sums["summed_from"]) == (0, 0)
    assert all(len(values) == 9 for values in sums["terms"].values())


def test_the_run_of_another_recipe_is_refused_with_the_difference(finished, tiny) -> None:
    folder, _ = finished
    other = read_recipe(tiny.recipe, ["training.learning_rate=2e-3"])
    with pytest.raises(RunError, match=r"training\.learning_rate: 0\.001, now 0\.002"):
        train(other, folder)


def test_the_targets_of_another_recipe_are_refused_with_the_difference(finished, tiny) -> None:
    folder, _ = finished
    other = read_recipe(tiny.recipe, ["split.seed=9"])
    with pytest.raises(TargetsError, match=r"split\.seed: 0, now 9"):
        train(other, RunFolder(folder.path.with_name("other"), folder.targets))


def test_what_is_only_watched_may_change(finished, tiny) -> None:
    folder, _ = finished
    folder.claim(read_recipe(tiny.recipe, ["training.save_steps=6", "diagnostics.passkey_every=9"]))


def test_fewer_samples_than_a_batch_are_refused(finished, tiny) -> None:
    folder, _ = finished
    other = read_recipe(tiny.recipe, ["training.batch_samples=5000"])
    with pytest.raises(RunError, match=r"fewer than training\.batch_samples 5000"):
        train(other, RunFolder(folder.path.with_name("large"), folder.targets))


def test_a_run_ends_in_time_with_an_evaluated_model(finished, tiny) -> None:
    folder, _ = finished
    long = read_recipe(
        tiny.recipe,
        ["training.max_steps=100000", "training.epochs=100000", "diagnostics.passkey_tokens=[]"],
    )
    short = RunFolder(folder.path.with_name("short"), folder.targets)
    figures = train(long, short, max_minutes=0.03)
    assert figures["chunk_cosine"] > -1
    assert json.loads(short.result.read_text())["steps"] < 10_000


def test_targets_can_be_asked_for_on_the_fly(tiny, finished, tmp_path: Path) -> None:
    stored, expected = finished
    recipe = read_recipe(tiny.recipe, ["targets.on_the_fly=true"])
    folder = RunFolder(tmp_path)
    figures = train(recipe, folder)
    # Stored vectors were rounded to float16: nearly the same run.
    assert figures["chunk_cosine"] == pytest.approx(expected["chunk_cosine"], abs=0.01)
    sizes = [
        sum(file.stat().st_size for file in targets.glob("*.parquet"))
        for targets in (folder.targets, stored.targets)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("save_steps", "evaluate_steps", "said"),
    [(1, 12, r"^step 2: the loss was nan in 1 of the last 2 batches, first in step 2, "
      r"which read \S+-\d+, .*; the checkpoint of step 1 "),
     (12, 6, r"^step 6: the loss was nan in 5 of the last 6 batches, first .*; none is saved"),
     (12, 12, r"^step 10: the loss was nan in 9 of the last 10 batches, .*; none is saved")],
    ids=["before it saves", "before it measures", "before it logs"],
)  # fmt: skip
def test_a_run_whose_loss_breaks_stops_and_keeps_what_was_whole(
    tiny, finished, tmp_path: Path, save_steps, evaluate_steps, said
) -> None:
    changes = ["training.learning_rate=1e30", "training.optimizer=adamw_torch",
               f"training.save_steps={save_steps}",
               f"training.evaluate_steps={evaluate_steps}"]  # fmt: skip
    folder = RunFolder(tmp_path, finished[0].targets)
    with pytest.raises(RunError, match=said):
        train(read_recipe(tiny.recipe, changes), folder)
    kept = last_complete_checkpoint(folder.checkpoints)
    assert (kept is None) == (save_steps == 12)
    if kept is not None:
        assert kept[0].name == "checkpoint-1"
    assert not folder.model.exists()


def test_held_out_samples_are_spread_over_all_there_are() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 5) == [0, 1, 2]


def test_parts_need_a_teacher_that_has_them(tiny, tmp_path: Path) -> None:
    recipe = read_recipe(tiny.recipe, ["targets.part_tokens=8", "loss.cosine_parts=1.0"])
    with pytest.raises(ConfigError, match="only gives whole vectors"):
        train(recipe, RunFolder(tmp_path))


def test_the_command_line_says_what_is_wrong_in_one_line(tiny, tmp_path: Path) -> None:
    done = dewey("train", tiny.recipe, "--set", "training.learning_rat=1", cwd=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "training.learning_rat: unknown key; accepted: learning_rate" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_train_what_one_does(tiny, finished, tmp_path: Path) -> None:
    _, expected = finished
    # Not by `accelerate launch --cpu`, which starts one process, whatever --num_processes says.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    run = ["-m", "dewey_embed.cli", "train", str(tiny.recipe), "-o", str(tmp_path / "run")]
    done = launched([*launch, *run], ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-3000:]
    last = tmp_path / "run" / "checkpoints" / "checkpoint-12"
    assert (last / "rng_state_1.pth").exists()  # there were two
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["command"] == shlex.join(["torchrun", "--nproc_per_node", "2", *run])
    figures = result["figures"]
    assert figures["chunk_cosine"] == pytest.approx(expected["chunk_cosine"], abs=0.002)


def test_sources_that_are_not_there_are_said_before_anything_is_made(tiny, tmp_path):
    setting = "corpus.sources.0.path=~/absent_*.parquet"
    said = dewey("train", tiny.recipe, "-o", tmp_path / "run", "--set", setting)
    assert said.returncode == 1
    [line] = said.stderr.splitlines()
    assert "~/absent_*.parquet: no file here" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [[], ["--data", "nowhere"]], ids=["data", "other folder"])
def test_a_missing_source_names_the_option_for_its_folder(tmp_path, options):
    recipe = Path(__file__).parents[2] / "recipes/mini.toml"
    said = dewey("train", recipe, "-o", "run", *options, cwd=tmp_path)
    assert said.returncode == 1
    [line] = said.stderr.splitlines()
    assert f"{'nowhere' if options else 'data'}/train/wikipedia_*.parquet: no file here" in line
    assert ("--data FOLDER" in line) != bool(options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["model/config.json", "checkpoints/other/a.bin", "result.json"])
def test_a_folder_that_holds_something_else_is_left_as_it_is(tiny, tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / place).write_text("mine")
    with pytest.raises(RunError, match=rf"{place.split('/')[0]}: is there already.*--output"):
        RunFolder(tmp_path).claim(read_recipe(tiny.recipe))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / place]


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_damaged_recipe_of_a_run_is_named(tiny, tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(RunError, match=r"recipe\.json: .*; put it back, or give another --output"):
        RunFolder(tmp_path).claim(read_recipe(tiny.recipe))
