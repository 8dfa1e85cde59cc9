"""A grid: variants of one recipe that together answer a question, as a TOML file says them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from dewey_embed.config import Settings
from dewey_embed.errors import ConfigError
from dewey_embed.train.recipe import Recipe
from dewey_embed.train.recipe_file import read_recipe, read_toml


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
    figures: dict[str, float]


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
