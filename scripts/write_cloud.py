"""Write the table of docs/cloud.md: what each recipe takes on machines of three clouds.

    python scripts/write_cloud.py

The machines and their prices are those of sqzb/plan/hardware.yaml, and the hours those of `sqzb
plan`. A test fails while the page differs from them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sqzb.plan.hardware import Machine, Price, devices
from sqzb.plan.report import kind_of_speed, time_text
from sqzb.plan.workloads import Planned, of_finetuning, of_pretraining
from sqzb.recipe import PretrainRecipe, SweepRecipe, load_recipe

PAGE = Path(__file__).parents[1] / "docs" / "cloud.md"
BEGIN, END = "<!-- table: scripts/write_cloud.py -->\n", "<!-- end of table -->"
MRPC_EXAMPLES, OWN_EXAMPLES = 3668, 20_000


class Offer(NamedTuple):
    """An instance of a cloud, with the price of an hour of one device."""

    machine: Machine
    price: Price


def offers() -> Iterator[Offer]:
    """Yield every instance of the table of hardware that has a price."""
    for device in devices():
        for price in device.prices:
            number = re.search(r"\((\d+) devices\)", price.where)
            yield Offer(Machine(device, int(number[1]) if number else 1), price)


def plans() -> Iterator[tuple[str, Planned]]:
    """Yield the plan of each recipe, with the words of its row."""
    for name in ("phase1_128", "phase2_512"):
        yield name, of_pretraining(load_recipe(PretrainRecipe, Path(name)))
    glue = load_recipe(SweepRecipe, Path("glue")).recipes("mrpc")[0]
    yield (
        f"glue, MRPC with one seed ({MRPC_EXAMPLES:,} examples)",
        of_finetuning(glue, MRPC_EXAMPLES),
    )
    own = load_recipe(SweepRecipe, Path("own_data")).recipes("mrpc")[0]
    yield f"own_data with {OWN_EXAMPLES:,} examples", of_finetuning(own, OWN_EXAMPLES)


def table() -> str:
    """Return the table in Markdown: pretraining on every instance, finetuning on one device."""
    lines = [
        "| Recipe | Instance | GPUs | Time | US dollars | Speed | Price of |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, planned in plans():
        for machine, price in offers():
            is_pretraining = name.startswith("phase")
            if machine.number > 1 and not is_pretraining:  # one run of a finetuning is on one GPU
                continue
            work = planned.workload.on(machine)
            seconds, _ = work.seconds(machine)
            cost = seconds / 3600 * machine.number * price.hour
            cells = (
                name,
                price.where.partition(" (")[0],
                str(machine),
                time_text(seconds),
                f"{cost:,.0f}" if cost >= 1 else "under 1",
                kind_of_speed(work, machine),
                str(price.date),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the text of the page with the current table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
