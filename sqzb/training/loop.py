"""The training loop: train, log, save and evaluate, up to the last step.

A step is a function of the recipe, its number and the data alone. So a run that resumes from any
checkpoint gives exactly the results of an uninterrupted run, with any number of processes.
"""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from sqzb import console
from sqzb.errors import Diverged, Stopped
from sqzb.model.costs import TRAINING
from sqzb.model.layers import by_kernels
from sqzb.training import checkpoints
from sqzb.training.engine import Engine, PreparedStep, StepResult, dropout_key
from sqzb.training.guards import SIGNALS, LossMonitor, Signals
from sqzb.training.job import Job
from sqzb.training.prefetch import prefetching
from sqzb.training.processes import warn
from sqzb.training.resume import NEVER, check_same_run, find_checkpoint
from sqzb.training.run_folder import METRICS, RunLog
from sqzb.training.safety import check_disk, claimed_folder, explained_errors
from sqzb.training.state import TrainingState, restore, save
from sqzb.training.throughput import Throughput, ThroughputMeter, own_peak_flops
from sqzb.training.trackers import check_trackers

STOPPED_EARLY = "stopped during preparation. Finished parts are kept; the same command continues."


class LaunchedStep(NamedTuple):
    """An optimizer step whose figures a GPU may still be computing.

    step: its number, from 1.
    tokens: tokens of the step in all processes, without padding.
    run_tokens: tokens of the run up to this step.
    flops: floating-point operations of the step in all processes.
    signal: the signal that a process has received; 0 if none.
    look_first: whether this step's figures must be read before another step is launched.
    """

    step: int
    learning_rate: float
    result: StepResult
    tokens: float
    run_tokens: int
    flops: float
    signal: int
    look_first: bool


def run(job: Job, resume: str = NEVER, extend: bool = False) -> None:
    """Train every step of the job that is left, and finish the job.

    resume: "never" starts at the first step, "auto" at the newest checkpoint; a path starts at that
    checkpoint.
    extend: allow another length than that of the resumed run.
    """
    accelerator, recipe = job.accelerator, job.recipe
    state, signals = TrainingState(LossMonitor(recipe.spike_factor)), Signals()
    log = RunLog(job.folder, accelerator.is_main_process, job.steps, recipe.trackers)

    check_trackers(recipe.trackers)
    with (
        explained_errors(job),
        claimed_folder(job.folder, accelerator, resume),
        signals.caught(),
        closing(log),
    ):
        # Check as much as possible before the preparation, which may take hours. Checkpoints are
        # read only in a locked folder, because another run might remove them meanwhile.
        checkpoint = check(job, resume, extend)

        with signals.ending_at_once(STOPPED_EARLY):
            job.prepare()
        if checkpoint is not None:
            check_same_run(job, checkpoint, extend, prepared=True)

        engine = job.make_engine()
        if checkpoint is not None:
            restore(checkpoint, job, engine, state)
        accelerator.wait_for_everyone()

        peak_flops = engine.totals({"peak": own_peak_flops(accelerator, recipe.precision)})["peak"]
        device, processes = str(accelerator.device), accelerator.num_processes
        kernels = by_kernels(job.model)
        log.start(job.recipe, recipe.seed, device, kernels, processes, peak_flops, state.step)
        if state.step >= recipe.log_every and not log.exists():
            warn(
                accelerator, f"{job.folder} has lost {METRICS}: figures of earlier steps are gone."
            )
        log.forget_after(state.step)

        train(job, engine, state, log, signals, ThroughputMeter(peak_flops))
        accelerator.wait_for_everyone()
        job.finish(engine, log, state.step)


def check(job: Job, resume: str = NEVER, extend: bool = False) -> Path | None:
    """Check the run, print its plan, write nothing, and return the checkpoint to resume from."""
    checkpoint = find_checkpoint(job, resume)
    if checkpoint is not None:
        check_same_run(job, checkpoint, extend, prepared=False)
    check_disk(job)
    job.print_plan()
    return checkpoint


def train(
    job: Job,
    engine: Engine,
    state: TrainingState,
    log: RunLog,
    signals: Signals,
    meter: ThroughputMeter,
) -> None:
    """Train every step that is left.

    Raises:
        Stopped: a signal came; the last step is saved.
        Diverged: too many consecutive steps were not finite.
    """
    recipe = job.recipe
    speed, shares = "", ""
    with console.bar(job.title, job.steps, state.step, job.accelerator.is_main_process) as bar:
        if state.step and job.evaluation_due(state.step) and not log.evaluated(state.step):
            with meter.paused():
                # The run was stopped between saving and evaluating.
                evaluate(job, engine, state, log)

        for launched in launched_steps(job, engine, state, log, signals, meter):
            result = launched.result
            meter.count(launched.tokens, launched.flops)
            is_logged = launched.step % recipe.log_every == 0 or launched.step == job.steps
            if is_logged or not result.finite:
                throughput = meter.read()
                log_step(job, log, launched, throughput)
                speed, shares = throughput.texts()
            figures = job.progress_text(result)
            bar.to(launched.step, f"loss {result.loss:.3f}", speed, figures, shares)

            with meter.paused():
                is_spike = state.monitor.note(result.loss, result.finite)
                stop_if_diverged(job, engine, state)
                if is_spike and rolled_back(job, engine, state, log, launched):
                    continue
                if launched.look_first:
                    save_and_evaluate(job, engine, state, log, launched.signal)


def launched_steps(
    job: Job,
    engine: Engine,
    state: TrainingState,
    log: RunLog,
    signals: Signals,
    meter: ThroughputMeter,
) -> Iterator[LaunchedStep]:
    """Launch every step that is left, and yield each when its figures are to be read.

    A step is yielded once the next step is launched, so that a GPU never waits for the reader. A
    step with `look_first` is yielded at once, before the next launch. The reader may roll the run
    back; a step that was launched meanwhile is then dropped.
    """
    with prefetching(lambda step: engine.prepare(job.micro_batches(step))) as prefetcher:
        pending: LaunchedStep | None = None
        while pending is not None or not job.is_finished(state.step):
            launched: LaunchedStep | None = None
            if state.step in state.monitor.left_out:
                if pending is None:
                    leave_out_step(job, engine, state, log)
                    continue
            elif not job.is_finished(state.step):
                with meter.waiting():
                    prepared = prefetcher.take(state.step)
                launched = launch_step(job, engine, state, signals, prepared)

            if pending is not None:
                reached = state.step
                yield pending
                if state.step < reached:
                    launched = None
            if launched is not None and launched.look_first:
                yield launched
                launched = None
            pending = launched


def save_and_evaluate(
    job: Job, engine: Engine, state: TrainingState, log: RunLog, received: int
) -> None:
    """Save and evaluate if either is due.

    received: the signal that came, or 0.

    Raises:
        Stopped: a signal came.
    """
    # Saving comes first, so that neither an evaluation nor a signal can lose trained steps.
    if job.checkpoint_due(state.step) or received or state.step == job.steps:
        save(job, engine, state)
    if received:
        # A launcher ends the other processes as soon as one process ends.
        job.accelerator.wait_for_everyone()
        name = signal.Signals(received).name
        raise Stopped(
            f"{name}: stopped after step {state.step:,}, which is saved. To resume, add "
            "`--resume auto` to the same command.",
            received,
        )
    if job.evaluation_due(state.step):
        evaluate(job, engine, state, log)


def launch_step(
    job: Job, engine: Engine, state: TrainingState, signals: Signals, prepared: PreparedStep
) -> LaunchedStep:
    """Launch one optimizer step on this process's micro-batches, and count it."""
    learning_rate = job.learning_rate(state.step)
    keys = [
        dropout_key(job.recipe.seed, state.step, number) for number in job.micro_batch_numbers()
    ]
    result = engine.step(prepared, learning_rate, keys)

    flops = float(TRAINING * sum(job.forward_flops(batch) for batch in prepared))
    received = {number.name: float(signals.received == number) for number in SIGNALS}
    totals = engine.totals({"tokens": prepared.tokens, "flops": flops, **received})

    state.step += 1
    state.tokens += int(totals["tokens"])
    if engine.average is not None:
        engine.average.after_step(state.step)
    stop = next((int(number) for number in SIGNALS if totals[number.name]), 0)
    step = state.step
    look_first = (
        not engine.deferred
        or bool(stop)
        or step == job.steps
        or job.checkpoint_due(step)
        or job.evaluation_due(step)
        # The step before, whose figures are not read yet, may have failed too, and then this step
        # may end the run.
        or state.monitor.skipped_in_a_row + 2 >= job.recipe.max_skipped_steps
    )
    return LaunchedStep(
        step,
        learning_rate,
        result,
        totals["tokens"],
        state.tokens,
        totals["flops"],
        stop,
        look_first,
    )


def leave_out_step(job: Job, engine: Engine, state: TrainingState, log: RunLog) -> None:
    """Skip a step that was rolled back."""
    state.step += 1
    log.log(state.step, left_out=True)
    if state.step == job.steps:
        save(job, engine, state)


def log_step(job: Job, log: RunLog, launched: LaunchedStep, throughput: Throughput) -> None:
    """Log the figures of a step; figures of a loss without labels in the step are null."""
    result = launched.result
    figures: dict[str, Any] = {"tokens": launched.run_tokens, "loss": result.loss}
    for loss in job.losses:
        figures |= {f"{loss}_loss": None, f"{loss}_accuracy": None}
    figures |= {**result, "lr": launched.learning_rate, **throughput._asdict()}

    if not result.finite:
        figures |= {"skipped": True, "made_of": job.example_ids(launched.step - 1)}
        warn(
            job.accelerator,
            f"step {launched.step}: the loss or gradient is not finite; the step is skipped.",
        )
    log.log(launched.step, **figures)


def evaluate(job: Job, engine: Engine, state: TrainingState, log: RunLog) -> None:
    """Evaluate the model and log the figures."""
    figures = job.evaluate(engine, state.step)
    if figures:
        log.log(state.step, **figures)


def stop_if_diverged(job: Job, engine: Engine, state: TrainingState) -> None:
    """Save and end the run if too many consecutive steps were not finite.

    Raises:
        Diverged: max_skipped_steps consecutive steps were not finite.
    """
    most = job.recipe.max_skipped_steps
    if state.monitor.skipped_in_a_row < most:
        return
    good = checkpoints.newest(job.folder, lambda message: warn(job.accelerator, message))
    save(job, engine, state)
    job.accelerator.wait_for_everyone()
    raise Diverged(
        f"{most} consecutive steps, up to step {state.step:,}, had a non-finite loss or gradient "
        f"and were skipped. Last checkpoint before them: {good or 'none'}. Their examples are in "
        f"{job.folder / 'metrics.jsonl'}. Start from that checkpoint in another --output with a "
        "lower learning rate, or resume with a higher max_skipped_steps."
    )


def rolled_back(
    job: Job, engine: Engine, state: TrainingState, log: RunLog, launched: LaunchedStep
) -> bool:
    """Warn of a spike of the loss, roll the run back if the recipe says so, and return whether.

    A run that is rolled back continues from its newest checkpoint, and leaves this step out.
    """
    step, result, accelerator = launched.step, launched.result, job.accelerator
    warn(
        accelerator,
        f"step {step}: the loss {result.loss:.3f} is more than {job.recipe.spike_factor} times "
        "its median.",
    )
    if job.recipe.on_spike != "rollback":
        return False
    checkpoint = checkpoints.newest(job.folder, lambda message: warn(accelerator, message))
    if checkpoint is None:
        return False

    accelerator.wait_for_everyone()
    state.monitor.left_out.add(step - 1)
    restore(checkpoint, job, engine, state)
    log.forget_after(state.step)
    log.log(state.step, rolled_back_from=step, loss=result.loss, made_of=job.example_ids(step - 1))
    warn(accelerator, f"rolled back to step {state.step}; step {step} will be left out.")
    return True
