"""A grid of two tiny runs: what it leaves, what a second start redoes; and the shipped grids."""

import json
from pathlib import Path

import pytest

from dewey_embed.errors import ConfigError, RunError
from dewey_embed.train.ablate import Result, ablate, read_grid

# A tiny student after four steps is far from its teacher, and is warned about.
pytestmark = pytest.mark.filterwarnings("ignore:.*the limit:UserWarning")

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

GRID = """
title = "Tiny lengths"
question = "Does the length matter?"
recipe = "tiny.toml"
axis = "training length"
set = [
    "corpus.max_texts=24", "corpus.held_out=0.3", "training.max_steps=4", "training.save_steps=2",
    "training.evaluate_steps=4", "diagnostics.passkey_tokens=[]",
]
evaluate = ["split.crop_tokens={ 64 = 1, 400 = 1 }", "context.texts=0.0"]

[[runs]]
name = "64"
set = ["split.crop_tokens={ 64 = 1 }", "training.batch_samples=4"]

[[runs]]
name = "128"
set = ["split.crop_tokens={ 128 = 1 }", "training.batch_samples=2"]
"""
SHIPPED = ("length", "splitters")


@pytest.fixture(scope="module")
def grid_path(tiny) -> Path:
    path = tiny.recipe.with_name("grid.toml")
    path.write_text(GRID)
    return path


@pytest.fixture(scope="module")
def finished(grid_path, tmp_path_factory):
    """The folder of a finished grid, and its results."""
    output = tmp_path_factory.mktemp("ablate")
    return output, ablate(read_grid(grid_path), output)


def written(output: Path) -> dict[str, int]:
    """When each model and start of the runs was written."""
    files = [*output.glob("runs/*/model/*"), *output.glob("runs/*/start/*"), output / "start"]
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_every_run_is_measured_on_the_same_texts(finished) -> None:
    output, results = finished
    assert [result.name for result in results] == ["64", "128"]
    kept = json.loads((output / "results.json").read_text())
    assert kept["grid"]["question"] == "Does the length matter?"
    assert kept["machine"]["torch"]
    assert kept["command"].startswith("dewey")
    assert [entry["figures"] for entry in kept["runs"]] == [result.figures for result in results]
    first, second = results
    assert first.steps == second.steps == 4
    assert first.tokens > 0
    assert first.seconds > 0
    # The teacher's own figures are those of the texts alone.
    assert first.figures["teacher_tightness"] == second.figures["teacher_tightness"]
    assert first.figures["chunk_cosine"] != second.figures["chunk_cosine"]
    assert {"chunk_cosine_in/0-256", "chunk_cosine_in/256-1024"} <= first.figures.keys()


def test_results_are_a_table_and_a_drawing(finished) -> None:
    output, results = finished
    table = (output / "results.md").read_text()
    for result in results:
        assert f"| {result.name} | 4 | {result.tokens:,} |" in table
        assert f"{result.figures['chunk_cosine']:.3f}" in table
    assert (output / "results.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (output / "results.svg").read_text()


def test_the_start_is_made_once_and_copied(finished) -> None:
    output, _ = finished
    starts = [output / "start", *(output / "runs" / name / "start" for name in ("64", "128"))]
    assert len({(start / "model.safetensors").read_bytes() for start in starts}) == 1
    stamps = {(start / "start.json").stat().st_mtime_ns for start in starts}
    assert len(stamps) == 1  # copied with its time


def test_a_second_start_trains_nothing_and_says_the_same(finished, grid_path) -> None:
    output, results = finished
    before = written(output)
    assert ablate(read_grid(grid_path), output) == results
    assert written(output) == before


def test_a_run_without_a_result_is_measured_and_not_trained(finished, grid_path) -> None:
    output, results = finished
    path = output / "results.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "runs": kept["runs"][1:]}))
    before = written(output)
    assert ablate(read_grid(grid_path), output) == results
    assert written(output) == before


def test_runs_of_another_grid_are_refused_with_the_difference(finished, grid_path) -> None:
    output, _ = finished
    with pytest.raises(RunError, match=r"training\.learning_rate: 0\.001, now 0\.002"):
        ablate(read_grid(grid_path, ["training.learning_rate=2e-3"]), output)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("axis =", "axes =", r"unknown key 'axes'; accepted: title, question"),
        ("\nset = [\"split", "\nsets = [\"split", r"runs\.0.*unknown key 'sets'; accepted: name"),
        ("[[runs]]", "[[others]]", r"runs: missing"),
        ('name = "128"', 'name = "64"', r"two runs have one name: 64, 64"),
        ('name = "64"', 'name = "../64"', r"runs\.0.*name"),
        ("title =", "title", r"cannot be read as TOML"),
    ],
)  # fmt: skip
def test_a_wrong_grid_is_refused_by_name(tmp_path, old, new, message) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(GRID.replace(old, new))
    with pytest.raises(ConfigError, match=rf"wrong\.toml.*{message}"):
        read_grid(path)


def test_a_grid_without_runs_or_without_a_file_is_refused(tmp_path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text(GRID.partition("[[runs]]")[0].replace("set =", "runs = []\nset =", 1))
    with pytest.raises(ConfigError, match=r"empty\.toml: runs: .*at least 1 item"):
        read_grid(path)
    with pytest.raises(ConfigError, match=r"none\.toml: no such grid"):
        read_grid(tmp_path / "none.toml")


def test_a_wrong_override_names_its_run(grid_path, tmp_path) -> None:
    wrong = grid_path.with_name("override.toml")
    wrong.write_text(GRID.replace("split.crop_tokens={ 128", "split.crop={ 128"))
    with pytest.raises(ConfigError, match=r"run '128': .*split\.crop.*unknown key"):
        ablate(read_grid(wrong), tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_texts_that_a_run_trains_on_are_not_measured_on(grid_path) -> None:
    wrong = grid_path.with_name("leak.toml")
    wrong.write_text(GRID.replace("evaluate = [", 'evaluate = ["corpus.held_out=0.5", '))
    with pytest.raises(ConfigError, match=r"corpus\.held_out is 0\.5, that of run '64' 0\.3"):
        read_grid(wrong).evaluation()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_grids_make_valid_recipes(repository, name) -> None:
    grid = read_grid(repository / "recipes/ablations" / f"{name}.toml")
    recipes = [grid.recipe_of(run) for run in grid.runs]
    assert len({recipe.targets_fingerprint() for recipe in recipes}) == len(recipes) > 2
    assert len({recipe.corpus.held_out for recipe in (*recipes, grid.evaluation())}) == 1
    assert set(grid.evaluation().split.crop_tokens) == {512, 2048, 8192}


def test_lengths_are_compared_at_equal_tokens(repository) -> None:
    grid = read_grid(repository / "recipes/ablations/length.toml")
    recipes = [grid.recipe_of(run) for run in grid.runs]
    lengths = [length for recipe in recipes for length in recipe.split.crop_tokens]
    assert lengths == [512, 2048, 8192]
    for length, recipe in zip(lengths, recipes, strict=True):
        assert length * recipe.training.batch_samples == 8192
        assert length * recipe.split.crops_per_text == 8192
    assert len({recipe.training.max_steps for recipe in recipes}) == 1


def test_results_with_an_older_name_of_a_figure_still_open() -> None:
    values = json.loads((RESULTS / "ablation_length.json").read_text())["runs"][0]
    assert "own_target_first" in values["figures"]
    figures = Result.model_validate(values).figures
    assert figures["target_recall_at_1"] == values["figures"]["own_target_first"]
    assert "own_target_first" not in figures
