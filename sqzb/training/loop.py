"""A run of whole steps in a folder, which nothing that happens to it can lose: what both trainers share.

A step follows from the recipe, its number and the data alone, so a run goes on from any checkpoint exactly as if it
had never been stopped, with as many processes as there are now.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from accelerate import Accelerator
from tokenizers import Tokenizer
from torch.distributed import DistError
from torch.optim import Optimizer

from sqzb import console
from sqzb.errors import Diverged, PeerLost, Stopped, UserError
from sqzb.files import locked, whole_folder
from sqzb.model.checkpoint import StoredModel
from sqzb.model.costs import TRAINING
from sqzb.model.layers import by_kernels
from sqzb.recipe import REMOVED, TrainingRecipe, flat, without_removed
from sqzb.training import checkpoints
from sqzb.training.engine import Engine, MicroBatch, StepResult, dropout_key
from sqzb.training.guards import SIGNALS, Signals, Watch, check_space
from sqzb.training.run_folder import RECIPE, RunLog, refuse_used, write_card
from sqzb.training.throughput import Pace, Throughput, peak_flops

NEVER, AUTO = "never", "auto"


def check_folder(folder: Path, resume: str) -> None:
    """UserError when the folder forbids what `--resume` says."""
    if resume == NEVER:
        refuse_used(folder, ", --resume auto to go on with it")
    elif resume == AUTO:
        if not (folder / RECIPE).exists():
            refuse_used(folder)
    elif not (Path(resume) / checkpoints.TRAINER).exists():
        raise UserError(
            f"{resume} is no checkpoint. Give --resume auto, or a folder such as RUN/checkpoints/step-0001000."
        )


class TrainingRun(ABC):
    """A run's parts, and what happens at each of its moments; `done` steps are behind it."""

    title: ClassVar[str]
    kinds: ClassVar[Sequence[str]]  # of loss: a figure that a step has no label for is null
    needs_older = False  # checkpoints, beside those that are kept
    steps: int
    model: StoredModel
    tokenizer: Tokenizer

    def __init__(self, recipe: TrainingRecipe, folder: Path, accelerator: Accelerator) -> None:
        self.recipe, self.folder, self.accelerator = recipe, folder, accelerator
        self.main = accelerator.is_main_process
        self.log = RunLog(folder, self.main)
        self.signals, self.watch = Signals(), Watch(recipe.spike_factor)
        self.done = self.tokens = 0

    # What a trainer brings

    @abstractmethod
    def make_optimizer(self) -> Optimizer: ...

    @abstractmethod
    def make_engine(self, optimizer: Optimizer) -> Engine: ...

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """By name, a hash of each thing beside the recipe on which the run depends."""

    @abstractmethod
    def micro_batches(self, step: int) -> list[MicroBatch]:
        """This process's part of a step."""

    @abstractmethod
    def forward_flops(self, batch: MicroBatch) -> int:
        """What the model computes for a micro-batch, over all its places."""

    @abstractmethod
    def micro_batch_numbers(self) -> Sequence[int]:
        """The numbers of this process's micro-batches in a step, over all processes."""

    @abstractmethod
    def made_of(self, step: int) -> list[Any]:
        """The examples of a step, as they can be looked up."""

    @abstractmethod
    def rate(self, step: int) -> float: ...

    @abstractmethod
    def checkpoint_due(self) -> bool: ...

    @abstractmethod
    def evaluation_due(self) -> bool: ...

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """The figures to log where an evaluation is due."""

    @abstractmethod
    def finish(self) -> None:
        """Write final/, then measure it."""

    # What a trainer may bring

    def over(self) -> bool:
        """Whether no step is left."""
        return self.done >= self.steps

    def needed(self, step: int) -> int | None:
        """The step of an older checkpoint that a run which goes on from that of `step` will want, if `needs_older`."""
        return None

    # From the beginning to the end

    def go(self, resume: str, extend: bool) -> None:
        """Train every step that is left: "never" from the first, "auto" behind the newest checkpoint, or a given one.

        extend: the recipe may have another length than the run that goes on.
        """
        with self._told():
            self.optimizer = self.make_optimizer()
            self.engine = self.make_engine(self.optimizer)  # here the processes meet
            with self._claimed(), self.signals.caught():
                # Not before the folder is ours: another run takes checkpoints away while they are looked at.
                if resume != NEVER:
                    self._go_on(resume, extend)
                self._check_space()
                self.accelerator.wait_for_everyone()
                peak = self.engine.totals({"peak": self._peak()})["peak"]
                device, processes = str(self.accelerator.device), self.accelerator.num_processes
                self.log.start(self.recipe, self.recipe.seed, device, by_kernels(self.model), processes, peak)
                self.log.forget_after(self.done)
                self.train(peak)
                self.accelerator.wait_for_everyone()
                self.finish()

    @property
    def form(self) -> str:
        """On what and how the model is computed."""
        compiled, kernels = self.recipe.compile, by_kernels(self.model)
        return (
            f"on {self.accelerator.device} in {self.recipe.precision}"
            + ", compiled" * compiled
            + ", by kernels" * kernels
        )

    def _peak(self) -> float:
        """FLOP/s of this process's device, with a word where it has no units for bf16."""
        device, precision = self.accelerator.device, self.recipe.precision
        peak = peak_flops(device, precision)
        if precision == "bf16" and peak < (in_fp32 := peak_flops(device, "fp32")):
            self._warn(
                f"bf16: this {device.type.upper()} multiplies {in_fp32 / peak:.1f} times as fast in fp32. Set "
                "precision=fp32."
            )
        return peak

    def _go_on(self, resume: str, extend: bool) -> None:
        if resume == AUTO:
            checkpoint = checkpoints.newest(self.folder, self._warn)
        else:
            checkpoint = Path(resume)
            checkpoints.check_whole(checkpoint)
        if checkpoint is not None:
            state = checkpoints.read_state(checkpoint)
            self._check_same(checkpoint, state, extend)
            if state["step"] > self.steps:
                raise UserError(
                    f"{checkpoint} is past the run's last step, {self.steps:,}. Give more {self.recipe.length}, or "
                    "go on from an earlier checkpoint (--resume PATH)."
                )
            self.restore(checkpoint, state)

    def restore(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        checkpoints.load(checkpoint, self.model, self.optimizer)
        self.done, self.tokens = state["step"], state["tokens"]
        self.watch.restore(state["watch"])

    def train(self, peak: float) -> None:
        """Every step that is left; peak: FLOP/s of the devices of all processes."""
        recipe, pace, speed = self.recipe, Pace(peak), ""
        with (
            ThreadPoolExecutor(1) as pool,
            console.bar(self.title, self.steps, self.done, self.main) as bar,
        ):
            ahead = _Ahead(self.micro_batches, pool)
            if self.done and self.evaluation_due() and not self.log.evaluated(self.done):
                with pace.paused():
                    self._evaluate()  # the run was stopped between saving and evaluating
            while not self.over():
                if self.done in self.watch.left_out:
                    self.done += 1
                    self.log.log(self.done, left_out=True)
                    if self.done == self.steps:
                        self.save()
                    continue
                with pace.waiting():
                    batches = ahead.take(self.done)
                lr, result, totals = self.step(batches)
                stop = next((int(number) for number in SIGNALS if totals[number.name]), 0)
                pace.count(totals["tokens"], totals["flops"])
                if self.done % recipe.log_every == 0 or self.done == self.steps or not result.finite:
                    throughput = pace.read()
                    self._log_step(lr, result, throughput)
                    speed = f"  {throughput}"
                bar.to(self.done, f"loss {result.loss:.3f}  {self.short(result)}{speed}")
                with pace.paused():
                    if self._rolled_back(result):
                        continue
                    # Saving comes first, so that neither an evaluation nor a signal can cost what was learnt.
                    if self.checkpoint_due() or stop or self.done == self.steps:
                        self.save()
                    if stop:
                        self.accelerator.wait_for_everyone()  # launchers end the others as soon as one has ended
                        raise self._stopped(stop)
                    if self.evaluation_due():
                        self._evaluate()

    def step(self, batches: list[MicroBatch]) -> tuple[float, StepResult, dict[str, float]]:
        """One optimizer step on this process's micro-batches: its rate, its figures, and by name what all processes
        together have trained on (tokens), computed (flops) and received (signals)."""
        lr = self.rate(self.done)
        keys = [dropout_key(self.recipe.seed, self.done, number) for number in self.micro_batch_numbers()]
        result = self.engine.step(batches, lr, keys)
        received = {number.name: float(self.signals.received == number) for number in SIGNALS}
        tokens = float(sum(int(batch["attention_mask"].sum()) for batch in batches))
        flops = float(TRAINING * sum(self.forward_flops(batch) for batch in batches))
        totals = self.engine.totals({"tokens": tokens, "flops": flops, **received})
        self.tokens += int(totals["tokens"])
        self.done += 1
        return lr, result, totals

    def save(self) -> None:
        if not self.main:
            return
        state = {
            "tokens": self.tokens,
            "seed": self.recipe.seed,
            "watch": self.watch.state(),
            "recipe": self.recipe.model_dump(mode="json"),
            "identity": self.identity(),
        }
        keep = (self.recipe.keep_checkpoints, self.recipe.keep_every, self.needed)
        checkpoints.save(self.folder, self.done, self.model, self.optimizer, self.tokenizer, state, *keep)

    def write_final(self) -> None:
        """The model as a Hugging Face folder, before it is measured."""
        if self.main:
            with whole_folder(self.folder / "final") as aside:
                self.model.save_pretrained(aside, self.tokenizer)
                write_card(aside, self.folder.name, self.recipe, {})

    def short(self, result: StepResult) -> str:
        """A step's figures on the bar."""
        return "  ".join(f"{name} {value:.1%}" for name, value in result.items() if name.endswith("_accuracy"))

    # Guards

    def _log_step(self, lr: float, result: StepResult, throughput: Throughput) -> None:
        # A figure that the step had no label for is null.
        nulls = dict.fromkeys(f"{kind}_{figure}" for kind in self.kinds for figure in ("loss", "accuracy"))
        figures: dict[str, Any] = {"tokens": self.tokens, "loss": result.loss, **nulls, **result, "lr": lr}
        figures |= throughput._asdict()
        if not result.finite:
            figures |= {"skipped": True, "made_of": self.made_of(self.done - 1)}
            self._warn(f"step {self.done}: loss or gradient is not finite; the weights were left as they were.")
        self.log.log(self.done, **figures)

    def _rolled_back(self, result: StepResult) -> bool:
        """Note the step's loss; True if it was rolled back. Diverged when too many have not been finite."""
        spike = self.watch.see(result.loss, result.finite)
        most = self.recipe.max_skipped_steps
        if self.watch.skipped_in_a_row >= most:
            good = checkpoints.newest(self.folder, self._warn)
            self.save()
            self.accelerator.wait_for_everyone()
            raise Diverged(
                f"{most} steps in a row, up to step {self.done:,}, had a loss or gradient that is not finite, and were "
                f"skipped. The last checkpoint from before is {good or 'not there'}; what made these steps is in "
                f"{self.folder / 'metrics.jsonl'}. Go on from it with a lower rate in another --output, or with a "
                "higher max_skipped_steps."
            )
        if not spike:
            return False
        step = self.done - 1
        self._warn(f"step {self.done}: the loss {result.loss:.3f} is over {self.recipe.spike_factor} x its median.")
        checkpoint = checkpoints.newest(self.folder, self._warn) if self.recipe.on_spike == "rollback" else None
        if checkpoint is None:
            return False
        self.accelerator.wait_for_everyone()
        self.watch.left_out.add(step)
        self.restore(checkpoint, checkpoints.read_state(checkpoint))
        self.log.forget_after(self.done)
        self.log.log(self.done, rolled_back_from=step + 1, loss=result.loss, made_of=self.made_of(step))
        self._warn(f"rolled back to step {self.done}; step {step + 1} will be left out.")
        return True

    def _stopped(self, signal: int) -> Stopped:
        name = next(number.name for number in SIGNALS if number == signal)
        return Stopped(f"{name}: stopped after step {self.done:,}, which is saved. --resume auto goes on.", signal)

    def _evaluate(self) -> None:
        figures = self.evaluate()
        if figures:
            self.log.log(self.done, **figures)

    def _warn(self, message: str) -> None:
        if self.main:
            console.warn(message)

    def _check_same(self, checkpoint: Path, state: Mapping[str, Any], extend: bool) -> None:
        """UserError when the run would go on as another one than that of the checkpoint."""
        may_change = self.recipe.may_change | ({self.recipe.length} if extend else set())
        # A key that the run's version did not have yet had the value of today's default.
        before = flat(type(self.recipe)().model_dump(mode="json")) | without_removed(flat(state["recipe"]))
        now = flat(self.recipe.model_dump(mode="json"))
        differing = {
            key: (before.get(key), now.get(key))
            for key in (before | now)
            if before.get(key) != now.get(key) and not {key, key.split(".")[0]} & may_change
        }
        hashes = self.identity()
        changed = [f"{name} is another" for name, value in state["identity"].items() if hashes.get(name) != value]
        for key, (was, is_now) in differing.items():
            changed.append(f"{key} was {was}, is {'no longer supported' if key in REMOVED else is_now}")
        if changed:
            hint = f" (--extend allows another {self.recipe.length})" if self.recipe.length in differing else ""
            raise UserError(
                f"The run cannot go on from {checkpoint}, since it would become another one: {'; '.join(changed)}"
                f"{hint}. Put these back, or give another --output."
            )

    def _check_space(self) -> None:
        """UserError in all processes when the first finds that the disk is too small."""
        kept = self.recipe.keep_checkpoints
        if self.recipe.keep_every is not None:
            kept += self.steps // self.recipe.keep_every
        kept = kept * (2 if self.needs_older else 1) + 1  # and the one that is being written
        refusal = None
        if self.main:
            there = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
            need = max(0, checkpoints.size(self.model) * (kept + 1) - there)
            try:
                check_space(self.folder, need, f"{kept} checkpoints and the model")
            except UserError as error:
                refusal = error
        if self.engine.totals({"refused": float(refusal is not None)})["refused"]:
            raise refusal or UserError(f"The disk of {self.folder} is too small.")

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Hold the folder. UserError in all processes when another run holds it."""
        if not self.main:
            if self.engine.totals({"refused": 0.0})["refused"]:
                raise UserError(f"Another run is at work in {self.folder}.")
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder) as ours:
            if self.engine.totals({"refused": float(not ours)})["refused"]:
                raise UserError(f"Another run is at work in {self.folder}. Wait for it, or give another --output.")
            yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what a full disk and a lost process mean."""
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            last = checkpoints.newest(self.folder, self._warn)
            raise UserError(
                f"The disk of {self.folder} is full: a checkpoint takes {console.size(checkpoints.size(self.model))}. "
                f"The last whole one: {last or 'none'}. Make room, then --resume auto."
            ) from error
        except RuntimeError as error:
            if self.accelerator.num_processes == 1 or not _of_peers(error):
                raise
            raise PeerLost(
                f"Process {self.accelerator.process_index} cannot go on: another process of the run has ended or does "
                f"not answer ({str(error).splitlines()[0]}). Start all of them again with --resume auto."
            ) from error


def _of_peers(error: RuntimeError) -> bool:
    """Whether the error is about the other processes: of gloo and NCCL some are of no class of their own."""
    return isinstance(error, DistError) or any(name in str(error).lower() for name in ("gloo", "nccl"))


class _Ahead:
    """Makes the next step's micro-batches while this one is computed."""

    def __init__(self, make: Callable[[int], list[MicroBatch]], pool: ThreadPoolExecutor) -> None:
        self._make, self._pool = make, pool
        self._next: tuple[int, Future[list[MicroBatch]]] | None = None

    def take(self, step: int) -> list[MicroBatch]:
        if self._next is None or self._next[0] != step:
            self._submit(step)
        assert self._next is not None
        batches = self._next[1].result()
        self._submit(step + 1)
        return batches

    def _submit(self, step: int) -> None:
        self._next = step, self._pool.submit(self._make, step)
