"""A recipe, its targets and a folder → a finished, evaluated model; a killed run resumes.

::

    runs/mini/
      start/         the model before training
      targets/       samples with their teacher's vectors (targets.py)
      checkpoints/   the Trainer's, complete ones only
      model/         the best checkpoint as a model folder, with its card and history
      recipe.json    what the run was started with
      log.jsonl      every logged step and evaluation
      result.json    the last figures, the time and the machine
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from dewey_embed.errors import RunError
from dewey_embed.files import append_line, atomic_file, locked, sealed, sweep_drafts, write_json
from dewey_embed.model.checkpoint import build_model, read_checkpoint
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.export import write_model, write_tokenizer_files
from dewey_embed.model.folder import HISTORY_FILE, atomic_model_folder
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.batches import Collator, SampleSet
from dewey_embed.train.card import CARD, card, with_axes
from dewey_embed.train.command import this_command
from dewey_embed.train.corpus import check_sources
from dewey_embed.train.diagnostics import HeldOutMeasure, warnings
from dewey_embed.train.memory import kept_memory
from dewey_embed.train.recipe import Recipe, renamed
from dewey_embed.train.recipe_file import read_object, recipe_diff
from dewey_embed.train.reduce import Reduction
from dewey_embed.train.schedule import Progress
from dewey_embed.train.sharding import named_loss_of_others, processes
from dewey_embed.train.start import runs_of, start_folder, start_tokenizer, with_run
from dewey_embed.train.student import build_student
from dewey_embed.train.targets import Targets, TargetsFolder, targets_complete
from dewey_embed.train.teach import REDUCTION, OnlineTeacher, teach
from dewey_embed.train.trainer import (
    COMPLETE_FILE,
    AlignmentTrainer,
    intact,
    last_complete_checkpoint,
    step_of,
)

WATCHED = {"save_steps", "evaluate_steps", "keep_checkpoints"}


class RunFolder:
    """The places of a run."""

    def __init__(self, path: Path, targets: Path | None = None) -> None:
        self.path = path
        self.start, self.model = path / "start", path / "model"
        self.targets = targets or path / "targets"
        self.checkpoints = path / "checkpoints"
        self.log, self.result = path / "log.jsonl", path / "result.json"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only run in the folder; of several processes of one run the first holds the lock.

        Raises:
            RunError: another run is going on there, or the folder cannot be written.

        """
        with ExitStack() as stack:
            if os.environ.get("RANK", "0") == "0":
                try:
                    self.path.mkdir(parents=True, exist_ok=True)
                    stack.callback(remove_if_empty, self.path)  # of a run that could not begin
                    stack.enter_context(locked(self.path / ".lock", remove=True))
                except BlockingIOError:
                    raise RunError(
                        f"{self.path}: another process is at work on this run; wait until it is "
                        "done, or stop it"
                    ) from None
                except OSError as error:
                    raise RunError(
                        f"{self.path}: cannot be written ({error.strerror}); give yourself the "
                        "right to write there, or give another --output"
                    ) from None
                for folder in (self.path, self.targets):
                    sweep_drafts(folder)
            yield

    def claim(self, recipe: Recipe) -> None:
        """Make the folder this recipe's run.

        What is only watched or how often it is saved may change from one start to the next.

        Raises:
            RunError: it is another recipe's run, naming what differs, or holds what no run of ours
                left there.

        """
        now = recipe.model_dump(mode="json", exclude={"diagnostics": True, "training": WATCHED})
        kept = self.path / "recipe.json"
        if kept.exists():
            before = read_object(kept, remedy="put it back, or give another --output")
            if differ := recipe_diff(before, now):
                raise RunError(
                    f"{self.path}: is a run of another recipe ({differ}); "
                    "give another --output, or put the recipe back as it was"
                )
            return
        if self.path.exists():
            self._refuse_foreign()
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(kept, sealed(now), indent=2, sync=True)

    def _refuse_foreign(self) -> None:
        """Refuse a folder without a recipe in which a run would replace something."""
        for place in (self.model, self.checkpoints, self.log, self.result):
            if (place.is_dir() and any(place.iterdir())) or place.is_file():
                raise RunError(
                    f"{place}: is there already, from no run that is known here; "
                    "give another --output, or move it away"
                )


def remove_if_empty(folder: Path) -> None:
    """Remove a folder in which there is nothing."""
    with suppress(OSError):
        folder.rmdir()


def train(
    recipe: Recipe,
    folder: RunFolder,
    *,
    max_minutes: float | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """The held-out figures of the best checkpoint, which then lies in `folder.model`.

    Writes what is still missing of the start and the targets first; resumes from the last complete
    checkpoint, if there is one. With `max_minutes` the learning rate reaches zero at that time
    (evaluation comes on top), else at the recipe's last step.

    Raises:
        RunError: the folder is another recipe's run, or there are fewer samples than a batch.
        TargetsError: as in `teach`.
        TeacherError: as in `teach`.
        ReadError: as in `teach`.

    """
    with named_loss_of_others(partial(_what_next, folder)):
        return _train_and_finish(recipe, folder, max_minutes=max_minutes, progress=progress)


def _what_next(folder: RunFolder) -> str:
    """Where a run that is started again goes on."""
    complete = folder.checkpoints.glob(f"checkpoint-*/{COMPLETE_FILE}")
    step = max((step_of(file.parent) for file in complete), default=None)
    where = "where it was" if step is None else f"from the checkpoint of step {step}"
    return f"and it goes on {where}"


def _train_and_finish(
    recipe: Recipe, folder: RunFolder, *, max_minutes: float | None, progress: bool
) -> dict[str, float]:
    """Everything that `train` does."""
    if not targets_complete(folder.targets):
        check_sources(recipe.corpus)  # now, and not after a warm start
    folder.claim(recipe)
    state = processes()
    with state.main_process_first():
        start_folder(recipe, folder.start, progress=progress and state.is_main_process)
    targets = teach(
        recipe, folder.start, folder.targets, rank=state.process_index,
        num_ranks=state.num_processes, progress=progress and state.is_main_process,
    )  # fmt: skip
    state.wait_for_everyone()
    tokenizer = start_tokenizer(folder.start)
    samples = SampleSet(targets, "train")
    steps = max_steps(recipe, len(samples))
    last = last_complete_checkpoint(folder.checkpoints) if folder.checkpoints.exists() else None
    state.wait_for_everyone()
    run = Progress(steps, max_minutes=max_minutes, elapsed_s=last[1] if last else 0.0)
    online_teacher = (
        OnlineTeacher(recipe, folder.start, targets.path) if recipe.targets.on_the_fly else None
    )
    collator = Collator(tokenizer, online_teacher.request if online_teacher else None)
    show = progress and state.is_main_process
    trainer = AlignmentTrainer(
        build_student(recipe, folder.start),
        samples,
        collator,
        recipe,
        folder.checkpoints,
        add_targets=online_teacher.with_targets if online_teacher else None,
        measure=_measure(recipe, targets, collator, online_teacher, tokenizer, show=show),
        progress=run,
        callbacks=[_Log(folder.log, recipe)],
        show=show,
    )
    if last is not None and run.share(step_of(last[0])) >= 1.0:  # Trainer would take one more step
        trainer.state = TrainerState.load_from_json(str(last[0] / TRAINER_STATE_NAME))
    else:
        _train(trainer, last[0] if last else None)
    figures: dict[str, float] = {}
    if state.is_main_process:
        figures = finish(recipe, folder, trainer, run, tokenizer)
    state.wait_for_everyone()
    return figures


def _train(trainer: AlignmentTrainer, checkpoint: Path | None) -> None:
    """Train to the end, from a checkpoint if there is one."""
    torch.set_flush_denormal(True)  # the smallest numbers are a hundred times slower on a CPU
    try:
        with kept_memory():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        torch.set_flush_denormal(False)


def max_steps(recipe: Recipe, num_samples: int) -> int:
    """Steps of the run.

    Raises:
        RunError: there are fewer samples than one batch takes.

    """
    per_epoch = num_samples // recipe.training.batch_samples
    if not per_epoch:
        raise RunError(
            f"{num_samples} samples are fewer than training.batch_samples "
            f"{recipe.training.batch_samples}; lower it, or give the corpus more texts"
        )
    steps = math.ceil(per_epoch * recipe.training.epochs)
    return min(steps, recipe.training.max_steps or steps)


def finish(
    recipe: Recipe,
    folder: RunFolder,
    trainer: AlignmentTrainer,
    run: Progress,
    tokenizer: Tokenizer,
) -> dict[str, float]:
    """Write the best checkpoint to `folder.model` in bfloat16; its held-out figures.

    Raises:
        RunError: no checkpoint was evaluated, or the best one cannot be read.
        TargetsError: how the targets were made cannot be read.

    """
    best = trainer.state.best_model_checkpoint
    if best is None:
        raise RunError(f"{folder.checkpoints}: no checkpoint was evaluated; lower evaluate_steps")
    model = build_model(read_checkpoint(folder.start))
    prefix = "model."
    weights = _weights(folder.checkpoints, best)
    model.load_state_dict(
        {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    )
    if (components := Reduction.load(folder.targets / REDUCTION).components) is not None:
        model.teacher_axes = components.T
    step = step_of(Path(best))
    figures = next(
        renamed({k.removeprefix("eval_"): v for k, v in entry.items() if k.startswith("eval_")})
        for entry in reversed(trainer.state.log_history)
        if entry["step"] == step and "eval_alignment" in entry
    )
    result = {
        "command": this_command(),
        "figures": figures,
        "best_step": step,
        "steps": trainer.state.global_step,
        "tokens": trainer.state.num_input_tokens_seen,
        "train_hours": run.elapsed_s / 3600,
        "machine": machine(),
        "before": runs_of(folder.start),
        "recipe": recipe.model_dump(mode="json"),
    }
    write_json(folder.result, result, indent=2)
    export(model.to(torch.bfloat16), tokenizer, folder.start, folder.model, result)
    return figures


def _weights(checkpoints: Path, best: str) -> dict[str, torch.Tensor]:
    """The weights of the best checkpoint, by its name: the run may have been moved since."""
    path = checkpoints / Path(best).name / "model.safetensors"
    try:
        intact(path.parent)
        return load_file(path)
    except (OSError, SafetensorError, RunError) as error:
        raise RunError(
            f"{path}: the best checkpoint's weights cannot be read ({error}); remove the folder "
            f"{path.parent.name} and train again"
        ) from None


def export(
    model: DeweyModel, tokenizer: Tokenizer, start: Path, output: Path, result: Mapping[str, Any]
) -> None:
    """Write a model folder like the start's, with these weights and a card."""
    with atomic_model_folder(output) as draft:
        write_model(model, draft)
        tokenizer.save(draft / "tokenizer.json")
        write_tokenizer_files(start, draft, model.config)
        write_json(draft / HISTORY_FILE, with_run(result["before"], result), indent=2)
        text = card(result)
        text = text if model.teacher_axes is None else with_axes(text)
        (draft / CARD).write_text(text, encoding="utf-8")


def machine() -> dict[str, Any]:
    """What a figure of speed needs beside it: processor, cores, devices, versions."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "devices": devices,
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _measure(
    recipe: Recipe,
    targets: TargetsFolder,
    collator: Collator,
    online_teacher: OnlineTeacher | None,
    tokenizer: Tokenizer,
    *,
    show: bool,
) -> HeldOutMeasure:
    """The held-out figures of this run; some training texts where nothing was held out."""
    most = recipe.diagnostics.held_out_samples
    parts = {shard.part for shard in targets.shards if shard.num_samples}
    held = SampleSet(targets, "held_out" if "held_out" in parts else "train")
    short = SampleSet(targets, "short") if "short" in parts else None
    return HeldOutMeasure(
        spread(held, most),
        spread(short, most) if short is not None else [],
        collator,
        tokenizer,
        recipe.diagnostics,
        add_targets=online_teacher.with_targets if online_teacher else None,
        show=show,
    )


def spread(samples: SampleSet, most: int) -> list[Targets]:
    """At most so many samples, evenly spread, so that they come from as many texts as they can."""
    count = min(most, len(samples))
    return [samples[number * len(samples) // count] for number in range(count)]


class _Log(TrainerCallback):
    """Every logged step and evaluation as a line of JSON, and warnings where figures go wrong."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop what was logged after the checkpoint from which the run goes on: it comes again."""
        if state.is_world_process_zero and self.path.exists():
            lines = self.path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if not _is_after(line, state.global_step)]
            if len(kept) < len(lines):
                with atomic_file(self.path) as draft:
                    draft.write_bytes(b"".join(kept))

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        append_line(self.path, json.dumps({"step": state.global_step, **_finite(logs)}))
        figures = {k.removeprefix("eval_"): v for k, v in logs.items() if k.startswith("eval_")}
        for warning in warnings(figures, self.recipe.diagnostics):
            append_line(self.path, json.dumps({"step": state.global_step, "warning": warning}))
            _warn(warning)


def _is_after(line: bytes, step: int) -> bool:
    """Whether a line of the log is of a later step; a damaged one tells nothing of steps."""
    try:
        return bool(json.loads(line)["step"] > step)
    except (ValueError, KeyError, TypeError):
        return False


def _finite(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The logs with null for NaN and infinity, which are no JSON."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in logs.items()
    }


def _warn(message: str) -> None:
    """Tell the user, once for each message."""
    import warnings as python_warnings

    python_warnings.warn(message, UserWarning, stacklevel=2)
