"""sqzb bench: the latency of a model in runtimes and precisions, beside that of another model.

Every cell is a process of its own, and the cells take turns.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import numpy as np

from sqzb import console
from sqzb.bench.accuracy import classifiers, measure
from sqzb.bench.cells import SQZB, Call, Cell, CellFailed, CellProcess, Inputs
from sqzb.bench.contestants import Contestant, open_other, open_own
from sqzb.bench.general import EXPORTERS
from sqzb.bench.prepare import prepare
from sqzb.bench.race import race
from sqzb.bench.results import LENGTH, Entry, Results, Wanted
from sqzb.bench.runtimes import ALL_PRECISIONS, OFFERED, check_cpu, check_runtime, format_of
from sqzb.bench.texts import Texts, random_batches, read_texts, sample, text_batches
from sqzb.errors import UserError
from sqzb.export.folder import Precision, is_export
from sqzb.finetuning.finetuned import Finetuned
from sqzb.training.guards import Signals

Cells = list[tuple[str, Precision]]
Answer = TypeVar("Answer")
UNFINISHED = "the race was not finished, and nothing was written."


class Setting(NamedTuple):
    """The opened models of a race, with their inputs.

    measurable: the models whose accuracy can be measured, by title.
    batches: the calls of a turn, by title.
    """

    own: list[Contestant]
    others: list[Contestant]
    texts: Texts | None
    measurable: dict[str, Finetuned]
    batches: dict[str, list[Inputs]]

    @property
    def contestants(self) -> list[Contestant]:
        """All contestants, the model itself first."""
        return self.own + self.others


def bench(wanted: Wanted) -> Results:
    """Check everything, run the race, and return its figures.

    Raises:
        UserError: an argument cannot be used, a model cannot be opened, or every cell failed.
        Stopped: a signal came; temporary files are removed.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cores = _cores(wanted.threads)
    available, left_out = _available(wanted)
    signals = Signals()
    with signals.caught(), signals.ending_at_once(UNFINISHED), ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory(prefix="sqzb-bench-")))
        setting = _set_up(wanted, work)
        flops = {one.title: _turn_flops(one, setting) for one in setting.contestants}
        entries = _entries(setting, available)
        processes: dict[int, CellProcess] = {}
        with console.bar("Models", len(entries)) as bar:
            for number, entry in enumerate(entries):
                process = _opened(entry, setting, cores, work)
                if process is not None:
                    processes[number] = process
                    stack.callback(process.close)
                bar.advance(1, entry.name)
        _race(entries, processes, wanted.rounds)
        if setting.texts is not None:
            cells = [(entries[number], process) for number, process in processes.items()]
            measure(setting.texts, setting.measurable, cells)
    if not any(entry.turns for entry in entries):
        reasons = "; ".join(f"{entry.name}: {entry.error}" for entry in entries)
        raise UserError(f"No cell could be measured. {reasons}")
    lengths = _lengths(setting.batches[setting.own[0].title])
    return Results(
        wanted, setting.texts, setting.own, setting.others, flops, entries, lengths, load, left_out
    )


def _set_up(wanted: Wanted, work: Path) -> Setting:
    """Open all models and texts, which checks them.

    Raises:
        UserError: a model or the texts cannot be used.
    """
    own = open_own(wanted.path, work)
    others: list[Contestant] = []
    if wanted.against is not None:
        others = [_apart(one, own) for one in open_other(wanted.against, own[0], work)]
    texts, measurable = None, dict[str, Finetuned]()
    if wanted.texts is not None:
        texts = read_texts(wanted.path, own[0], wanted.texts)
        measurable = classifiers(texts, own, others)
    if wanted.needs_accuracy and own[0].title not in measurable:
        raise UserError(
            f"The accuracy of {wanted.path} cannot be measured on these texts, so there is no "
            "picture. Give a finetuned run, with --data FILE that has labels, or with --task."
        )
    return Setting(own, others, texts, measurable, _batches(wanted, texts, own + others))


def _entries(setting: Setting, available: Cells) -> list[Entry]:
    """Return the cells of all contestants.

    Raises:
        UserError: the model itself has none.
    """
    entries = []
    for contestant in setting.contestants:
        texts = sum(len(inputs["input_ids"]) for inputs in setting.batches[contestant.title])
        for runtime, precision in _cells_of(contestant, available):
            entries.append(Entry(contestant, runtime, precision, texts))
    own = [contestant.title for contestant in setting.own]
    if not any(entry.contestant.title in own for entry in entries):
        raise _nothing_to_measure(setting.own[0], available)
    return entries


# Checks


def _cores(threads: int) -> tuple[int, ...]:
    """Return the numbers of the cores to use."""
    allowed = range(os.cpu_count() or 1)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(allowed)
    if threads > len(cores):
        raise UserError(
            f"--threads is {threads}, and {console.counted(len(cores), 'core')} may be used here. "
            "Give fewer threads."
        )
    # The first core serves most interrupts of the system.
    return tuple(cores[-threads:])


def _available(wanted: Wanted) -> tuple[Cells, list[str]]:
    """Return the runtimes with their precisions, and sentences about what this machine lacks.

    Raises:
        UserError: a runtime or a precision that was named cannot be used here.
    """
    _check_names("--runtimes", wanted.runtimes, tuple(OFFERED))
    _check_names("--precisions", wanted.precisions, ALL_PRECISIONS)
    writing = wanted.against is not None or not is_export(wanted.path)
    cells: Cells = []
    left_out: dict[str, None] = {}
    for runtime in wanted.runtimes or OFFERED:
        try:
            check_runtime(runtime, writing)
        except UserError as error:
            if wanted.runtimes:
                raise
            left_out[f"Not measured: {runtime}. {error}"] = None
            continue
        for precision in OFFERED[runtime]:
            if wanted.precisions and precision not in wanted.precisions:
                continue
            try:
                check_cpu(runtime, precision)
            except UserError as error:
                if wanted.precisions:
                    raise
                left_out[f"Not measured: {precision}. {error}"] = None
                continue
            cells.append((runtime, precision))
    for name in wanted.precisions:
        if name not in [precision for _, precision in cells]:
            runtimes = [runtime for runtime, offered in OFFERED.items() if name in offered]
            raise UserError(
                f"--precisions {name}: none of the runtimes "
                f"{', '.join(wanted.runtimes or OFFERED)} has it here. It is offered by "
                f"{', '.join(runtimes)}."
            )
    return cells, list(left_out)


def _check_names(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"{option} {name}: there is no such name. Give {', '.join(known)}.")


def _cells_of(contestant: Contestant, available: Cells) -> Cells:
    """Return the cells that a contestant has: an export has one, and a form may lack exporters."""
    if contestant.record is not None:
        own = contestant.record.format, contestant.record.precision
        return [cell for cell in available if cell == own]
    if contestant.form == SQZB:
        return available
    return [(name, kind) for name, kind in available if format_of(name) in (None, *EXPORTERS)]


def _nothing_to_measure(own: Contestant, available: Cells) -> UserError:
    named = ", ".join(f"{runtime} {precision}" for runtime, precision in available)
    if own.record is None:
        return UserError(f"{own.folder} cannot be measured in {named}. Give other --runtimes.")
    return UserError(
        f"{own.folder} is an export for {own.record.format} in {own.record.precision}, which is "
        f"not among the cells to measure: {named}. Leave out --runtimes and --precisions, or "
        f"install what {own.record.format} needs: pip install 'sqzb[{own.record.format}]'"
    )


def _batches(
    wanted: Wanted, texts: Texts | None, contestants: Sequence[Contestant]
) -> dict[str, list[Inputs]]:
    """Return the calls of a turn by the title of the contestant.

    Raises:
        UserError: a model cannot read the length, or there are too few texts.
    """
    if texts is not None:
        examples = sample(texts, wanted.batch)
        return {
            one.title: text_batches(one, examples, texts.kind, wanted.batch) for one in contestants
        }
    length = wanted.length or LENGTH
    for contestant in contestants:
        if length > contestant.positions:
            raise UserError(
                f"The length {length} is longer than the {contestant.positions} positions of "
                f"{contestant.title}. Give a smaller --length."
            )
    inputs = random_batches(contestants, wanted.batch, length)
    return {contestant.title: inputs for contestant in contestants}


def _apart(contestant: Contestant, own: Sequence[Contestant]) -> Contestant:
    """Return a contestant whose title is none of the model's own, which may have its name."""
    if contestant.title not in [one.title for one in own]:
        return contestant
    return contestant._replace(title=f"{contestant.title} (against)")


def _turn_flops(contestant: Contestant, setting: Setting) -> int | None:
    """Return the operations of a turn; None if they cannot be counted without weights."""
    total = 0
    for inputs in setting.batches[contestant.title]:
        batch, length = inputs["input_ids"].shape
        try:
            total += contestant.flops(batch, length)
        except Exception:  # of a model of transformers that computes with the values of its inputs
            return None
    return total


def _lengths(batches: Sequence[Inputs]) -> tuple[int, int]:
    """Return the tokens of the shortest and of the longest text, without padding."""
    lengths = np.concatenate([inputs["attention_mask"].sum(1) for inputs in batches])
    return int(lengths.min()), int(lengths.max())


# The race


def _race(entries: Sequence[Entry], processes: Mapping[int, CellProcess], rounds: int) -> None:
    """Let the cells take turns, and write their figures into the entries.

    processes: by the number of the entry.
    """
    with console.bar("Rounds", rounds * len(processes)) as bar:

        def contestant(number: int) -> Callable[[int], list[Call] | None]:
            def turn(_: int) -> list[Call] | None:
                bar.advance(1, entries[number].name)
                return _answer(entries[number], processes[number].turn)

            return turn

        turns = race({number: contestant(number) for number in processes}, rounds)
    for number, process in processes.items():
        entry = entries[number]
        entry.peak_bytes = _answer(entry, process.peak_bytes)
        if entry.error is None:
            entry.turns = [calls for calls in turns[number] if calls is not None]


def _answer(entry: Entry, ask: Callable[[], Answer]) -> Answer | None:
    """Return the answer of a cell's process; None if the cell fails, now or before."""
    if entry.error is not None:
        return None
    try:
        return ask()
    except CellFailed as error:
        entry.error = str(error)
        return None


def _opened(
    entry: Entry, setting: Setting, cores: tuple[int, ...], work: Path
) -> CellProcess | None:
    """Return the process of a cell with its model opened; None if that fails."""
    folder = work / "cell"
    folder.mkdir()
    contestant = entry.contestant
    try:
        source = prepare(contestant, entry.runtime, entry.precision, folder)
        entry.disk_bytes = _model_bytes(source)
        cell = Cell(
            model=contestant.title,
            form=contestant.form,
            runtime=entry.runtime,
            precision=entry.precision,
            folder=source,
            head=contestant.head,
            inputs=contestant.inputs,
            cores=cores,
            is_dynamic=setting.texts is not None,
        )
        process = CellProcess(cell)
        try:
            process.open(setting.batches[contestant.title])
            return process
        except BaseException:
            process.close()
            raise
    except Exception as error:  # exporters raise all kinds
        entry.error = f"{' '.join(str(error).split()) or type(error).__name__:.300}"
        return None
    finally:
        # The process has read the files, which would fill the disk.
        shutil.rmtree(folder)


def _model_bytes(folder: Path) -> int:
    """Return the size of the weights and the graph, without tokenizer and settings."""
    names = ("model", "pytorch_model")
    return sum(path.stat().st_size for path in folder.iterdir() if path.name.startswith(names))
