"""A grid of small variants of a recipe → their figures on the same held-out texts, drawn.

::

    runs/ablate-length/
      start/         the model before training, shared by the runs that start from it
      evaluate/      targets of the held-out texts on which every run is measured
      runs/NAME/     each run, as in run.py
      results.json   the figures of the runs so far
      results.md     the same as tables, and results.png and .svg drawn, at the end
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import BeforeValidator, Field, model_validator

from dewey_embed.config import Settings
from dewey_embed.errors import ConfigError, RunError
from dewey_embed.extras import require
from dewey_embed.files import atomic_file, write_json, write_text
from dewey_embed.model.checkpoint import build_model, read_checkpoint
from dewey_embed.train.batches import Collator, SampleSet
from dewey_embed.train.command import this_command
from dewey_embed.train.corpus import check_sources
from dewey_embed.train.diagnostics import (
    HeldOutMeasure,
    alignment_figures,
    rank_figures,
    tightness_figures,
)
from dewey_embed.train.recipe import Recipe, fingerprint, renamed
from dewey_embed.train.recipe_file import read_object, read_recipe, read_toml
from dewey_embed.train.run import RunFolder, machine, train
from dewey_embed.train.start import start_folder, start_tokenizer
from dewey_embed.train.student import Student
from dewey_embed.train.targets import Targets, targets_complete
from dewey_embed.train.teach import REDUCTION, teach


class Run(Settings):
    """One variant: its name, which is its folder's, too, and how it differs from the others."""

    name: str = Field(pattern=r"^\w[\w.\-]*$")
    set: tuple[str, ...] = ()


class Grid(Settings):
    """Variants of one recipe that together answer a question.

    `set` holds for all of them, before their own; `evaluate` makes, from recipe and `set`, the
    held-out samples on which all are measured. Both are written `section.key=value`.
    """

    title: str
    question: str
    recipe: Path
    axis: str
    set: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    runs: tuple[Run, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [run.name for run in self.runs]
        if len(set(names)) < len(names):
            raise ValueError(f"two runs have one name: {', '.join(names)}")
        return self

    def recipe_of(self, run: Run) -> Recipe:
        """The recipe of one run.

        Raises:
            ConfigError: the recipe or one of the overrides is wrong, naming the run.

        """
        try:
            return read_recipe(self.recipe, (*self.set, *run.set))
        except ConfigError as error:
            raise ConfigError(f"run {run.name!r}: {error}") from None

    def evaluation(self) -> Recipe:
        """The recipe of the common held-out samples, with targets for chunks and whole texts only.

        Raises:
            ConfigError: one of the overrides is wrong, or a run trains on texts that it holds out.

        """
        try:
            recipe = read_recipe(self.recipe, (*self.set, *self.evaluate))
        except ConfigError as error:
            raise ConfigError(f"evaluate: {error}") from None
        share = recipe.corpus.held_out
        for run in self.runs:
            # Whether a text is held out depends on its content and this share alone.
            if (own := self.recipe_of(run).corpus.held_out) < share:
                raise ConfigError(
                    f"evaluate: corpus.held_out is {share:g}, that of run {run.name!r} {own:g}: it "
                    "would be measured on texts that it was trained on; give both the same"
                )
        targets = recipe.targets.model_copy(update={"part_tokens": None, "on_the_fly": False})
        return recipe.model_copy(update={"targets": targets})


class Result(Settings):
    """What a run took, and its figures on the common held-out texts.

    `recipe` and `evaluation` are fingerprints: a result of others is no longer one of this grid.
    """

    name: str
    recipe: str
    evaluation: str
    steps: int
    tokens: int
    seconds: float
    figures: Annotated[dict[str, float], BeforeValidator(renamed)]


def read_grid(path: Path, overrides: Sequence[str] = ()) -> Grid:
    """The grid in a TOML file; `overrides` come after its own `set`.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or a wrong value; all are named.

    """
    try:
        _, values = read_toml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such grid; grids lie in recipes/ablations/") from None
    runs = values.get("runs")
    if isinstance(runs, list) and all(isinstance(run, dict) for run in runs):
        # One by one: an unknown key is then answered with a run's keys and not the grid's.
        values["runs"] = [
            Run.parse(run, source=f"{path}: runs.{number}") for number, run in enumerate(runs)
        ]
    grid = Grid.parse(values, source=str(path))
    return grid.model_copy(
        update={"recipe": path.parent / grid.recipe, "set": (*grid.set, *overrides)}
    )


COLUMNS = {
    "chunk_cosine": "chunks",
    "cls_cosine": "CLS",
    "similarity_correlation": "similarities",
    "target_recall_at_1": "target recall at 1",
    "extra_tightness": "extra tightness",
    "rank_ratio": "rank ratio",
}
BY_LENGTH = {"chunk_cosine_in/": "Chunks", "cls_cosine/": "CLS"}


def ablate(grid: Grid, output: Path, *, progress: bool = False) -> list[Result]:
    """The results of all runs, in the grid's order; `output` then holds them as text and drawn.

    A finished run is passed over, an unfinished one goes on from its last checkpoint.

    Raises:
        ConfigError: a recipe or an override is wrong.
        RunError: `output` holds other runs under the same names.
        TargetsError: `output` holds targets of another recipe.
        MissingDependencyError: matplotlib is missing, said before hours of training.

    """
    require("train", "drawing results", "matplotlib")
    recipes = {run.name: grid.recipe_of(run) for run in grid.runs}
    evaluation = grid.evaluation()
    folders = {name: RunFolder(output / "runs" / name) for name in recipes}
    evaluated = output / "evaluate" / "targets"
    places = [
        (evaluation, evaluated),
        *((recipes[name], folders[name].targets) for name in recipes),
    ]
    for recipe, targets in places:
        if not targets_complete(targets):
            check_sources(recipe.corpus)  # now, and not after a warm start
    for name, recipe in recipes.items():
        folders[name].claim(recipe)
    start = start_folder(evaluation, output / "start", progress=progress)
    written = teach(evaluation, start, evaluated, progress=progress)
    held = SampleSet(written, "held_out")
    samples = [held[number] for number in range(len(held))]
    held_in = fingerprint([evaluation.targets_fingerprint(), evaluation.corpus.max_texts])
    path = output / "results.json"
    results = {
        name: result
        for name, result in _read_results(path).items()
        if name in recipes
        and (result.recipe, result.evaluation) == (_fingerprint(recipes[name]), held_in)
    }
    for name, recipe in recipes.items():
        folder = folders[name]
        finished = folder.result.exists() and (folder.model / "model.safetensors").exists()
        if finished and name in results:
            continue
        if not finished:
            _prepare(recipe, evaluation, folder, output)
            train(recipe, folder, progress=progress)
            torch.compiler.reset()  # programs of one run's layers are none of the next one's
        figures = _measure(recipe, folder, samples, progress=progress)
        took = read_object(
            folder.result,
            keys=["steps", "tokens", "train_hours"],
            remedy="remove it, and the run is finished again",
        )
        results[name] = Result(
            name=name, recipe=_fingerprint(recipe), evaluation=held_in, steps=took["steps"],
            tokens=took["tokens"], seconds=took["train_hours"] * 3600, figures=figures,
        )  # fmt: skip
        _write_results(path, grid, [results[run] for run in recipes if run in results])
    ordered = [results[name] for name in recipes]
    _write_table(output / "results.md", grid, ordered, len(samples))
    _draw(output, grid, ordered)
    return ordered


def _fingerprint(recipe: Recipe) -> str:
    """16 hexadecimal digits of what makes the trained model; figures on the way do not."""
    return fingerprint(recipe.model_dump(mode="json", exclude={"diagnostics"}))


def _prepare(recipe: Recipe, evaluation: Recipe, folder: RunFolder, output: Path) -> None:
    """Give a run the common start, and the common reduction to the student's size."""

    def start(of: Recipe) -> tuple[Any, ...]:
        return of.model, of.warm_start, of.base

    if start(recipe) != start(evaluation):
        return  # a grid over shapes: each run makes its own
    if not folder.start.exists():
        draft = folder.path / ".start.draft"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(output / "start", draft)
        os.replace(draft, folder.start)
    # A PCA fitted on each run's own chunks would give each another space to be aligned to.
    reduction = folder.targets / REDUCTION
    if recipe.teacher == evaluation.teacher and not reduction.exists():
        folder.targets.mkdir(exist_ok=True)
        with atomic_file(reduction) as draft:
            shutil.copy(output / "evaluate" / "targets" / REDUCTION, draft)


def _measure(
    recipe: Recipe, folder: RunFolder, samples: Sequence[Targets], *, progress: bool
) -> dict[str, float]:
    """The figures of a finished run's model on these samples."""
    tokenizer = start_tokenizer(folder.model)
    model = build_model(read_checkpoint(folder.model)).float()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    student = Student(model, recipe.loss).to(device).eval()
    measure = HeldOutMeasure(
        samples, [], Collator(tokenizer), tokenizer, recipe.diagnostics, show=progress
    )
    held = measure.compare(student, samples)
    return alignment_figures(held) | tightness_figures(held) | rank_figures(held)


def _read_results(path: Path) -> dict[str, Result]:
    """The results written so far, by the runs' names."""
    if not path.exists():
        drawn = [path.with_suffix(ending) for ending in (".md", ".png", ".svg")]
        if foreign := [each for each in drawn if each.exists()]:
            raise RunError(
                f"{foreign[0]}: is there already, from no grid that is known here; "
                "give another --output, or move it away"
            )
        return {}
    remedy = "remove it, and finished runs are measured again"
    entries = read_object(path, keys=["runs"], remedy=remedy)["runs"]
    results = [Result.parse(entry, source=str(path)) for entry in entries]
    return {result.name: result for result in results}


def _write_results(path: Path, grid: Grid, results: Sequence[Result]) -> None:
    """Write the results, complete or not at all."""
    values = {
        "grid": grid.model_dump(mode="json"),
        "command": this_command(),
        "machine": machine(),
        "runs": [result.model_dump(mode="json") for result in results],
    }
    write_json(path, values, indent=2)


def _lengths(results: Sequence[Result], prefix: str) -> list[str]:
    """The ranges of lengths under which a figure is told, shortest first."""
    found = {
        key.removeprefix(prefix) for r in results for key in r.figures if key.startswith(prefix)
    }
    return sorted(found, key=lambda span: int(span.partition("-")[0]))


def _write_table(path: Path, grid: Grid, results: Sequence[Result], num_texts: int) -> None:
    """Write the results as Markdown."""
    spans = [(prefix, span) for prefix in BY_LENGTH for span in _lengths(results, prefix)]
    overall = [grid.axis, "steps", "tokens", "minutes", *COLUMNS.values()]
    by_length = [grid.axis, *(f"{BY_LENGTH[prefix]} {_span(span)}" for prefix, span in spans)]
    rows = [
        [r.name, f"{r.steps:,}", f"{r.tokens:,}", f"{r.seconds / 60:.1f}", *_cells(r, COLUMNS)]
        for r in results
    ]
    lengths = [[r.name, *_cells(r, [prefix + span for prefix, span in spans])] for r in results]
    setup, command = machine(), this_command()
    text = [
        f"# {grid.title}", "", grid.question, "",
        f"`{command}` on {setup['cores']} cores "
        f"({setup['processor']}, {setup['capability']}), torch {setup['torch']}. Cosines to the "
        f"teacher on the same {num_texts} held-out samples, trained on by none of the runs.", "",
        *_markdown(overall, rows), "", "By tokens of the text:", "", *_markdown(by_length, lengths),
    ]  # fmt: skip
    write_text(path, "\n".join(text) + "\n")


def _cells(result: Result, names: Mapping[str, str] | Sequence[str]) -> list[str]:
    """Figures to three digits; a dash for one that the texts do not have."""
    return [f"{result.figures[name]:.3f}" if name in result.figures else "–" for name in names]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, numbers to the right."""
    ruler = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(row)} |" for row in (header, ruler, *rows)]


def _span(span: str) -> str:
    """A range of lengths for people: `1,024–4,096`, or `from 4,096`."""
    low, _, high = span.partition("-")
    return f"{int(low):,}–{int(high):,}" if high else f"from {int(low):,}"


def _draw(output: Path, grid: Grid, results: Sequence[Result]) -> None:
    """Draw results.png and results.svg: overall, and by length of the text."""
    from matplotlib.figure import Figure  # a Figure of its own draws with Agg, without a display

    figure = Figure(figsize=(10, 4.5), dpi=150, layout="constrained")
    figure.suptitle(grid.title)
    overall, by_length = figure.subplots(1, 2, sharey=True)
    names = [result.name for result in results]
    for key, label, style in (("chunk_cosine", "chunks", "o-"), ("cls_cosine", "CLS", "s--")):
        overall.plot(names, [result.figures[key] for result in results], style, label=label)
    overall.set(xlabel=grid.axis, ylabel="cosine to the teacher", title="All held-out texts")
    prefix = "chunk_cosine_in/"
    spans = _lengths(results, prefix)
    for result in results:
        values = [result.figures.get(prefix + span, float("nan")) for span in spans]
        by_length.plot([_span(span) for span in spans], values, "o-", label=result.name)
    by_length.set(xlabel="tokens of the text", title="Chunks, by length of their text")
    by_length.legend(title=grid.axis, frameon=False)
    overall.legend(frameon=False)
    for panel in (overall, by_length):
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for kind in ("png", "svg"):
        with atomic_file(output / f"results.{kind}") as draft:
            figure.savefig(draft, format=kind)
