"""Hugging Face's Trainer with our batches, our loss and our measure of what is best.

Theirs: the loop, mixed precision, DDP and FSDP, checkpoints, resuming, TensorBoard. Ours: the order
of samples, the learning rate's schedule, complete checkpoints only, and evaluation by alignment.

The Trainer writes a checkpoint file by file. `whole.json` comes last, with the size and checksum of
each; a mark beside the folder says until then that it is being written. So what a killed run left
is told from what somebody else put there, and only the former is removed.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from dewey_embed.errors import RunError, first_line
from dewey_embed.files import crc32, flush, sealed, write_json
from dewey_embed.model.device import usable_cores
from dewey_embed.printable import first_few
from dewey_embed.train.batches import AddTargets, Collator, SampleSet, ShardShuffle
from dewey_embed.train.recipe import Recipe, TrainingRecipe
from dewey_embed.train.recipe_file import read_object
from dewey_embed.train.schedule import Progress, build_optimizer, deepening
from dewey_embed.train.sharding import (
    SharedBatches,
    complete,
    complete_state,
    load_state,
    load_weights,
)
from dewey_embed.train.student import Student
from dewey_embed.train.targets import Targets

COMPLETE_FILE = "whole.json"
"""Written last into a checkpoint: without it, a kill came in between."""


def mark_of(checkpoint: Path) -> Path:
    """The file that is there while a checkpoint is being written."""
    return checkpoint.with_name(f".{checkpoint.name}.unfinished")


def mark_complete(checkpoint: Path, *, elapsed_s: float) -> None:
    """Let a checkpoint count as complete, all of it on the disk."""
    files = {}
    for file in checkpoint.iterdir():
        if file.name == COMPLETE_FILE or not file.is_file():
            continue
        flush(file)
        files[file.name] = _checksum(file)
    complete = sealed({"elapsed_s": elapsed_s, "files": files})
    write_json(checkpoint / COMPLETE_FILE, complete, sync=True)
    mark_of(checkpoint).unlink(missing_ok=True)


UNWRITTEN = ("PytorchStreamWriter", "inline_container", "basic_ios")
"""What PyTorch's errors say that are about a file that could not be written."""


@contextmanager
def saving(checkpoint: Path) -> Iterator[None]:
    """Name a checkpoint that cannot be written, and remove what there is of it.

    Raises:
        RunError: the disk is full, or does not take it for another reason.

    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not any(each in str(error) for each in UNWRITTEN):
            raise  # of the device, or of another process
        if mark_of(checkpoint).exists():
            shutil.rmtree(checkpoint, ignore_errors=True)
            with suppress(OSError):
                mark_of(checkpoint).unlink()
        reason = first_line(error)
        raise RunError(
            f"{checkpoint}: cannot be written ({reason}); the checkpoint before is kept, and the "
            "same command goes on from there once the disk takes files again"
        ) from error


def last_complete_checkpoint(folder: Path) -> tuple[Path, float] | None:
    """The newest complete checkpoint and the seconds it took.

    What a killed run of ours left half written is removed. What is damaged, or was not finished by
    a run of ours, is renamed to `unused-…`, with a warning.

    Raises:
        RunError: the folder cannot be looked into.

    """
    complete = []
    try:
        found = [each for each in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", each.name)]
        for checkpoint in found:
            if mark_of(checkpoint).exists() and not (checkpoint / COMPLETE_FILE).exists():
                shutil.rmtree(checkpoint, ignore_errors=True)  # several processes do so at once
                mark_of(checkpoint).unlink(missing_ok=True)
            elif (checkpoint / COMPLETE_FILE).exists():
                complete.append(checkpoint)
            else:
                _set_aside(checkpoint, f"no run finished it: it has no {COMPLETE_FILE}")
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be looked into ({error.strerror})") from None
    for checkpoint in sorted(complete, key=step_of, reverse=True):
        try:
            return checkpoint, _elapsed(checkpoint)
        except RunError as error:
            _set_aside(checkpoint, str(error))
    return None


def remove_older(folder: Path, keep: int, best: str | None) -> None:
    """Keep only the newest complete checkpoints, by their steps, and the best one among them."""
    complete = sorted((path.parent for path in folder.glob(f"*/{COMPLETE_FILE}")), key=step_of)
    last = complete[-1]
    others = [each for each in complete[:-1] if best is None or each.name != Path(best).name]
    in_order = others + [each for each in complete[:-1] if each not in others] + [last]
    for checkpoint in in_order[: -max(keep, len(in_order) - len(others))]:
        mark_of(checkpoint).touch()
        (checkpoint / COMPLETE_FILE).unlink()
        shutil.rmtree(checkpoint)
        mark_of(checkpoint).unlink()


def step_of(checkpoint: Path) -> int:
    """The steps after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _elapsed(checkpoint: Path) -> float:
    """The seconds that a run took to an intact checkpoint; raises as `intact`."""
    elapsed = intact(checkpoint)["elapsed_s"]
    if isinstance(elapsed, bool) or not isinstance(elapsed, int | float):
        raise RunError(
            f"{checkpoint / COMPLETE_FILE}: elapsed_s is {elapsed!r}, not a number of seconds"
        )
    return float(elapsed)


def intact(checkpoint: Path) -> dict[str, Any]:
    """What stands in a checkpoint's `whole.json`, if its files are as they were written.

    Raises:
        RunError: one of them is missing or damaged.

    """
    kept = read_object(checkpoint / COMPLETE_FILE, keys=["elapsed_s"], remedy="damaged")
    for name, written in kept.get("files", {}).items():  # older checkpoints list none
        try:
            now = _checksum(checkpoint / name)
        except FileNotFoundError:
            raise RunError(f"{checkpoint / name}: is not there") from None
        if now != written:
            raise RunError(f"{checkpoint / name}: is damaged: it is not as it was written")
    return kept


def _checksum(file: Path) -> list[int]:
    """A file's size and CRC-32."""
    return [file.stat().st_size, crc32(file)]


def _set_aside(checkpoint: Path, why: str) -> None:
    """Rename a checkpoint so that no run takes it up or removes it, and say so."""
    other = checkpoint.with_name(f"unused-{checkpoint.name}")
    number = 1
    while other.exists():
        number += 1
        other = checkpoint.with_name(f"unused-{checkpoint.name}-{number}")
    try:
        os.replace(checkpoint, other)
    except FileNotFoundError:  # another process was quicker
        return
    warnings.warn(f"{other}: set aside, {why}", UserWarning, stacklevel=3)


BEST_METRIC = "alignment"
"""Mean of the held-out chunk and CLS cosines: what decides which checkpoint is the best."""

LOG_STEPS = 10
SUMS_FILE = "log_sums.json"
"""The sums in a checkpoint of what its next line of the log is a mean of."""

MOST_NAMED = 5


def _with_names(collate: Collator, samples: Sequence[Targets]) -> dict[str, Any]:
    """A batch, and the `names` of its samples."""
    return {**collate(samples), "names": [one.sample.id for one in samples]}


class Measure(Protocol):
    """What measures a student on held-out texts, during a run and at its end."""

    def __call__(self, student: nn.Module, *, number: int, last: bool) -> dict[str, float]:
        """The figures, `alignment` among them, after `number` evaluations of the run."""
        ...


class AlignmentTrainer(Trainer):
    """Trains a `Student` on the samples of a targets folder, under `folder`."""

    def __init__(
        self,
        student: Student,
        samples: SampleSet,
        collator: Collator,
        recipe: Recipe,
        folder: Path,
        *,
        add_targets: AddTargets | None,
        measure: Measure,
        progress: Progress,
        callbacks: list[TrainerCallback],
        show: bool,
    ) -> None:
        self.recipe, self.measure, self.progress = recipe.training, measure, progress
        self.add_targets = add_targets
        self._student, self._folder = student, folder
        self._terms: dict[str, list[Tensor]] = defaultdict(list)
        self._read: list[tuple[int, list[str]]] = []
        self._resumed_from: Path | None = None
        self._summed_from = 0
        super().__init__(
            model=student,
            args=arguments(recipe.training, folder, progress.max_steps, show=show),
            data_collator=collator,
            train_dataset=samples,
            eval_dataset=samples,  # never read: `evaluate` is ours
            callbacks=[
                *callbacks,
                *deepening(student.model.backbone, recipe.training, progress),
                ScheduleCallback(progress),
                BeginCallback(self._take_up_sums),
            ],
        )
        self.model_accepts_loss_kwargs = False
        if self.is_fsdp_enabled:
            self._set_up_fsdp()

    def _set_up_fsdp(self) -> None:
        """Have FSDP train in the precision that DDP does.

        By itself it would round what layers pass on, gradients and the loss to bfloat16, too.

        Raises:
            RunError: it is not FSDP 2.

        """
        plugin = self.accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise RunError(
                f"FSDP {plugin.fsdp_version} cannot train here; set fsdp_version: 2 in "
                "accelerate's settings, as recipes/accelerate/fsdp8.yaml has it"
            )
        plugin.mixed_precision_policy = None

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A loader of the share that the process has in each batch.

        Not the Trainer's own: it shares no batch of a size that is not a multiple of the number of
        processes, and several that resume in a later epoch read the first one's order.
        """
        samples, collate, args = self.train_dataset, self.data_collator, self.args
        assert isinstance(samples, SampleSet)
        assert isinstance(collate, Collator)
        batches = SharedBatches(
            ShardShuffle(samples, self.recipe.seed),
            self.recipe.batch_samples,
            rank=args.process_index,
            num_ranks=args.world_size,
        )
        loader = DataLoader(
            samples,
            batch_sampler=batches,
            collate_fn=partial(_with_names, collate),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,  # shared already
            process_index=0,
            put_on_device=True,
            non_blocking=self.accelerator.non_blocking,
        )
        return prepared

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The recipe's optimiser."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(model or self._student, self.recipe, self.args)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up and linear decay over the steps or the minutes of the run."""
        if self.lr_scheduler is None:
            chosen = optimizer or self.optimizer
            assert chosen is not None
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                chosen,
                lambda step: self.progress.rate(step, self.recipe.warmup_steps),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch; its terms are kept for the log."""
        self._read.append((self.state.global_step + 1, inputs.pop("names")))
        terms = model(**(self.add_targets(inputs) if self.add_targets is not None else inputs))
        for name, value in terms.items():
            self._terms[name].append(value.detach())
        return (terms["loss"], terms) if return_outputs else terms["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of the loss's terms since the last time.

        Means are those of an unbroken run, whatever checkpoint the run has gone on from.

        Raises:
            RunError: a loss since then was no finite number.

        """
        if "train_loss" in logs:  # theirs is of the steps of this process alone
            steps = self.state.global_step - self._summed_from
            logs["train_loss"] = self._total_loss_scalar / max(steps, 1)
        if "loss" in logs:
            self._refuse_broken_loss()
            for name, values in self._terms.items():
                if name != "loss":
                    logs[f"loss/{name}"] = torch.stack(values).mean().item()
            self._terms.clear()
            self._read.clear()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Held-out figures, under `eval_…`; every process measures the same samples.

        Raises:
            RunError: as in `log`.

        """
        self._refuse_broken_loss()
        model: nn.Module = self.model_wrapped if self.is_fsdp_enabled else self._student
        model.eval()
        last = self.progress.share(self.state.global_step) >= 1.0
        number = sum(f"eval_{BEST_METRIC}" in entry for entry in self.state.log_history)
        figures = self.measure(model, number=number, last=last)
        model.train()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _refuse_broken_loss(self) -> None:
        """Stop at NaN or infinity: whatever was trained by it must not become a checkpoint."""
        own = torch.stack(self._terms["loss"]) if self._terms["loss"] else torch.zeros(1)
        losses = self.accelerator.gather(own.to(self.accelerator.device)[None])
        broken = ~losses.isfinite()  # by process and step: all of them stop, and say the same
        if broken.any():
            raise RunError(self._broken_loss(losses, broken))

    def _broken_loss(self, losses: Tensor, broken: Tensor) -> str:
        """What to say of losses that are not finite; every process calls it."""
        first = int(broken.any(0).int().argmax())
        read: list[list[tuple[int, list[str]]]] = gather_object([self._read])
        names = [name for process in broken[:, first].nonzero() for name in read[process][first][1]]
        last = last_complete_checkpoint(self._folder)
        kept = f"the checkpoint of step {step_of(last[0])} is kept" if last else "none is saved"
        return (
            f"step {self.state.global_step}: the loss was {losses[broken][0].item()} in "
            f"{int(broken.any(0).sum())} of the last {losses.shape[1]} batches, first in step "
            f"{self._read[first][0]}, which read {first_few(names, MOST_NAMED)}; {kept}. Lower "
            "training.learning_rate or raise training.warmup_steps, and where the teacher "
            "answers in half precision run it in bfloat16 or float32"
        )

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count the tokens trained on; theirs asks the device, which has then nothing to do."""
        if self.accelerator.num_processes > 1:
            super()._track_num_input_tokens(inputs)  # type: ignore[no-untyped-call]
        else:
            self.state.num_input_tokens_seen += inputs["ids"].numel()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights, which processes may share among them, into one file."""
        weights = self._student.state_dict().items()
        self._save(output_dir, {name: complete(weight).cpu() for name, weight in weights})

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = complete_state(self._optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir, OPTIMIZER_NAME))
            torch.save(self._scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        self._resumed_from = Path(checkpoint)
        for name, load in (
            (OPTIMIZER_NAME, partial(load_state, self._optimizer)),
            (SCHEDULER_NAME, self._scheduler.load_state_dict),
        ):
            try:
                load(torch.load(Path(checkpoint, name), map_location="cpu", weights_only=True))
            except FileNotFoundError:
                raise RunError(
                    f"{checkpoint}: has no {name}, so that training cannot go on from it; remove "
                    "the folder, and the run goes on from the checkpoint before"
                ) from None

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        load_weights(
            model or self._student, load_file(Path(resume_from_checkpoint, SAFE_WEIGHTS_NAME))
        )

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        """The optimiser, which is there once training has begun."""
        assert self.optimizer is not None
        return self.optimizer

    @property
    def _scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the learning rate, which is there once training has begun."""
        assert self.lr_scheduler is not None
        return self.lr_scheduler

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._refuse_broken_loss()
        folder = self._folder / f"checkpoint-{self.state.global_step}"
        with saving(folder):
            if self.args.should_save:
                self._folder.mkdir(parents=True, exist_ok=True)
                mark_of(folder).touch()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # others write a file of theirs into it
            sums = self._sums()
            if self.args.should_save:
                write_json(folder / SUMS_FILE, sums)
                mark_complete(folder, elapsed_s=self.progress.elapsed_s)
                best = self.state.best_model_checkpoint
                remove_older(self._folder, self.recipe.keep_checkpoints, best)

    def _sums(self) -> dict[str, Any]:
        """The sums of losses and terms that the log has not told yet; all processes call it."""
        loss = self.accelerator.gather(self._tr_loss.detach()[None]).mean().item()
        terms = {name: torch.stack(own).tolist() for name, own in self._terms.items() if own}
        return {
            "logged_step": self._globalstep_last_logged,
            "loss": loss,
            "terms": {name: values for name, values in terms.items() if name != "loss"},
            "summed_from": self._summed_from,
            "total_loss": self._total_loss_scalar,
        }

    def _take_up_sums(self) -> None:
        """Go on with the sums that the checkpoint has; older ones have none."""
        self._summed_from = self.state.global_step
        if self._resumed_from is None or not (self._resumed_from / SUMS_FILE).exists():
            return
        sums = read_object(self._resumed_from / SUMS_FILE, remedy="remove the checkpoint's folder")
        self._globalstep_last_logged = sums["logged_step"]
        self._tr_loss += sums["loss"]
        for name, values in sums["terms"].items():
            self._terms[name] = list(torch.tensor(values, device=self.args.device))
        self._summed_from, self._total_loss_scalar = sums["summed_from"], sums["total_loss"]


class BeginCallback(TrainerCallback):
    """Calls what is to be done once a run has begun or its checkpoint is loaded."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Do it."""
        self._call()


class ScheduleCallback(TrainerCallback):
    """Notes the time of every step; ends the run, evaluated and saved, when steps or minutes do."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.progress.note()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the run when its steps or minutes are over."""
        if self.progress.share(state.global_step) >= 1.0:
            control.should_evaluate = control.should_save = control.should_training_stop = True


def arguments(
    recipe: TrainingRecipe, folder: Path, max_steps: int, *, show: bool
) -> TrainingArguments:
    """The Trainer's own settings for a recipe; processes share the batch among them."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=max(1, recipe.batch_samples // world),
        max_steps=max_steps,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        max_grad_norm=recipe.max_grad_norm,
        # theirs to build, but for Muon, of which they know nothing (optimizer.py)
        optim="stable_adamw" if recipe.optimizer == "muon" else recipe.optimizer,
        bf16=recipe.precision != "float32",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=LOG_STEPS,
        eval_strategy="steps",
        eval_steps=recipe.evaluate_steps,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        save_total_limit=None,  # theirs goes by times of files, before the new one is complete
        metric_for_best_model=BEST_METRIC,
        greater_is_better=True,
        seed=recipe.seed,
        dataloader_drop_last=True,
        **_dataloader_arguments(),
        remove_unused_columns=False,
        include_num_input_tokens_seen="all",
        logging_nan_inf_filter=False,  # which hides NaN, and makes a GPU wait at every step
        ddp_find_unused_parameters=bool(recipe.depth),  # layers that do not run yet
        average_tokens_across_devices=False,
        report_to=["tensorboard"],
        disable_tqdm=not show,
        log_level="error",
    )


def _dataloader_arguments() -> dict[str, Any]:
    """How batches are made and reach a GPU: by other processes, and without its waiting for them.

    They end with their epoch: of three runs whose workers were to outlive it, two never ended. A
    CPU has no time to spare for such processes.
    """
    if not torch.cuda.is_available():
        return {"dataloader_pin_memory": False}
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return {
        "dataloader_pin_memory": True,
        "accelerator_config": {"non_blocking": True},
        "dataloader_num_workers": max(1, usable_cores() // devices - 1),
        "dataloader_prefetch_factor": 4,
    }
