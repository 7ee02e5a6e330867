"""The plan as text: what `sqzb plan`, `--dry-run` and the start of a run print."""

from collections.abc import Sequence
from typing import Any

from sqzb import console
from sqzb.plan.estimates import USUAL, Workload, is_fused
from sqzb.plan.hardware import LEAST_STEP, Machine
from sqzb.plan.workloads import Planned

YEAR = 365 * 24 * 3600
Rows = list[tuple[str, str]]


def print_plan(planned: Planned, machines: Sequence[Machine], price: float | None = None) -> None:
    """Print the plan of a recipe, with a row for each machine.

    price: US dollars for an hour of a device; None: the table's prices.
    """
    console.facts(rows_of(planned))
    print_machines(planned.workload, machines, price)
    for note in [*planned.notes, *_notes(planned.workload, machines)]:
        console.out.print(note)
    for warning in [*planned.warnings, *_warnings(planned.workload, machines)]:
        console.warn(warning)


def rows_of(planned: Planned) -> Rows:
    """Return what does not depend on the hardware."""
    work = planned.workload
    up_to, at_most = ("up to ", "at most ") if work.is_upper_bound else ("", "")
    precision = work.precision
    if precision == "auto":
        precision = "bf16 on a GPU that has it, else in fp32"
    return [
        (
            "Model",
            f"{work.model_name}, {work.parameters:,} parameters with heads, {planned.start}",
        ),
        ("Data", planned.data),
        (
            "Steps",
            f"{work.steps:,} of {console.counted(work.batch, 'sequence')} of {up_to}{work.length} "
            f"tokens: {work.steps * work.batch:,} sequences, {at_most}{work.positions:,} positions",
        ),
        ("Optimizer", planned.optimizer),
        ("Work", f"{at_most}{work.flops:.2e} FLOP in {precision}, padding included"),
        (
            "Disk",
            f"{console.size(work.disk_bytes())}: {work.checkpoints + 1} checkpoints of "
            f"{console.size(work.checkpoint_bytes())} and the model",
        ),
    ]


def print_machines(planned: Workload, machines: Sequence[Machine], price: float | None) -> None:
    """Print batch, memory, hours and money on each machine."""
    rows = []
    for machine in machines:
        work = planned.on(machine)
        micro_batch = work.fitting(machine)
        memory = sum(work.memory(micro_batch, is_fused(machine)).values())
        accumulation = -(-work.batch // (micro_batch * machine.number))
        seconds, _ = work.seconds(machine)
        rows.append(
            (
                str(machine),
                f"{micro_batch:,} x {accumulation}",
                console.size(memory),
                time_text(seconds),
                _money(machine, seconds, price),
                kind_of_speed(work, machine),
            )
        )
    header = ("hardware", "batch", "memory", "time", "US dollars", "speed")
    console.table(
        "Micro-batch x accumulation, per device; time and money of all steps", header, rows
    )


def kind_of_speed(work: Workload, machine: Machine) -> str:
    """Return how far the time on a machine is to be trusted: measured, estimate or rough."""
    if work.has_small_steps(machine):
        return "rough"
    return "measured" if work.seconds(machine)[1] else "estimate"


def as_json(planned: Planned, machines: Sequence[Machine], price: float | None) -> dict[str, Any]:
    """Return the figures of the plan: bytes, seconds, US dollars."""
    work = planned.workload
    on: dict[str, Any] = {}
    for machine in machines:
        work = planned.workload.on(machine)
        micro_batch = work.fitting(machine)
        seconds, measured = work.seconds(machine)
        prices = [offer.hour for offer in machine.device.prices] if price is None else [price]
        on[str(machine)] = {
            "micro_batch": micro_batch,
            "memory": work.memory(micro_batch, is_fused(machine)),
            "seconds": round(seconds),
            "measured": measured is not None,
            "dollars": [round(seconds / 3600 * machine.number * hour, 2) for hour in prices],
        }
    return {
        "steps": work.steps,
        "sequences": work.steps * work.batch,
        "positions": work.positions,
        "parameters": work.parameters,
        "flops": work.flops,
        "disk": work.disk_bytes(),
        "data": planned.data,
        "hardware": on,
    }


def time_text(seconds: float) -> str:
    """Return a time as 3 h 20 min, 12 days or 3.4 years."""
    if seconds > YEAR:
        return f"{seconds / YEAR:,.1f} years"
    if seconds > 3 * 24 * 3600:
        return f"{seconds / 86400:,.1f} days"
    return console.duration(seconds)


def _money(machine: Machine, seconds: float, price: float | None) -> str:
    hours = seconds / 3600 * machine.number
    if price is not None:
        return f"{hours * price:,.0f}"
    if not machine.device.prices:
        return "-"
    costs = sorted({round(hours * offer.hour) for offer in machine.device.prices})
    return " to ".join(f"{cost:,}" for cost in (costs[0], costs[-1])[: len(costs)])


def rows_on(work: Workload, machine: Machine) -> Rows:
    """Return the parts of a device's memory, and where speed and prices come from."""
    work = work.on(machine)
    memory = work.memory(work.fitting(machine), is_fused(machine))
    parts = ", ".join(f"{name} {console.size(size)}" for name, size in memory.items())
    total = sum(memory.values())
    rows = [("Memory", f"{console.size(total)} of {machine.device.memory} GB a device: {parts}")]
    _, measured = work.seconds(machine)
    if measured is not None:
        rows.append(
            (
                "Speed",
                f"{measured.positions:,} positions/s of one device, measured on {measured.date} "
                f"({measured.source})",
            )
        )
    for offer in machine.device.prices:
        rows.append(
            (
                "Price",
                f"{offer.hour:.2f} US dollars an hour and device, {offer.where}, {offer.date}",
            )
        )
    return rows


def _notes(planned: Workload, machines: Sequence[Machine]) -> list[str]:
    """Return a sentence about times that are rough."""
    if not any(planned.on(machine).has_small_steps(machine) for machine in machines):
        return []
    positions = planned.batch * planned.length
    return [
        f"Rough times: in a step of {positions:,} positions, a GPU waits between "
        "operations and reaches a small share of its peak, so the run may take several times as "
        f"long. A step counts as {1000 * LEAST_STEP:g} ms at least, as measured on an H200 "
        "(docs/laboratory.md). Start, evaluations and checkpoints come on top."
    ]


def _warnings(planned: Workload, machines: Sequence[Machine]) -> list[str]:
    """Return sentences about machines on which the plan makes no sense."""
    warnings = []
    for machine in machines:
        work = planned.on(machine)
        memory = sum(work.memory(work.fitting(machine), is_fused(machine)).values())
        room = machine.device.memory * 10**9
        if memory > room:
            warnings.append(
                f"{machine}: about {console.size(memory)} do not fit into {machine.device.memory} "
                "GB. Lower micro_batch, or set micro_batch=auto."
            )
        if work.precision == "bf16" and machine.device.peak.bf16 is None:
            warnings.append(f"{machine} has no bf16 units, so bf16 is slow. Set precision=fp32.")
        if work.batch % machine.number:
            warnings.append(
                f"{machine}: {machine.number} devices do not divide a step's {work.batch}."
            )
    if machines and min(planned.on(each).seconds(each)[0] for each in machines) > YEAR:
        warnings.append("The run takes years on all of this hardware. Lower steps or the model.")
    if not planned.is_usual and machines:
        warnings.append(
            f"Speeds were measured with {USUAL.num_hidden_layers} layers x {USUAL.hidden_size}: a "
            "smaller model reaches a smaller share of a GPU's peak."
        )
    return warnings
