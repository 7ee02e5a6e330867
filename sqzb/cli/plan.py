"""The command `sqzb plan`."""

from pathlib import Path
from typing import Annotated

import typer

from sqzb.cli.options import Overrides, Overwrite, Recipe


def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MACHINE",
            help='Such as "8x H100"; repeat it to compare (default: all known devices).',
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0, metavar="AMOUNT", help="US dollars for an hour of a device."),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Training examples, for the recipe of a finetuning."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures to this file too.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Show what a training run takes: steps, memory, disk, hours and money.

    Neither corpus nor GPU is needed.
    """
    from sqzb import console
    from sqzb.files import check_output, write_json
    from sqzb.plan.hardware import Machine, devices, machine
    from sqzb.plan.report import as_json, print_plan, rows_on
    from sqzb.plan.workloads import of_finetuning, of_pretraining
    from sqzb.recipe import PretrainRecipe, SweepRecipe, load_recipe
    from sqzb.recipe.reading import command_for

    if json is not None:
        check_output(json, overwrite)
    machines = [machine(text) for text in hardware or ()]
    machines = machines or [Machine(device, 1) for device in devices()]
    command = command_for(recipe)
    if command == "finetune":
        if examples is None:
            raise typer.BadParameter("the recipe of a finetuning needs --examples N")
        (single, *others) = load_recipe(SweepRecipe, recipe, overrides or ()).recipes("mrpc")
        planned = of_finetuning(single, examples)
        if others:
            planned.notes.append(f"One run of a sweep of {len(others) + 1}.")
    else:
        planned = of_pretraining(load_recipe(PretrainRecipe, recipe, overrides or ()))
    if json is not None:
        write_json(json, as_json(planned, machines, price))
    print_plan(planned, machines, price)
    if hardware and len(machines) == 1:
        console.facts(rows_on(planned.workload, machines[0]))
