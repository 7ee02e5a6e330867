"""The end of a training command: where the model is, what it took, and what to type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from sqzb import console
from sqzb.files import parse_json_object
from sqzb.plan.hardware import by_cuda_name
from sqzb.training.run_folder import RUN, last_logged


def print_ending(model: Path, runs: Sequence[Path], *commands: Sequence[str | Path]) -> None:
    """Print where the model or the models are, time and price of the runs, and commands to type.

    commands: each as its words.
    """
    where = "The model is in" if model.name == "final" else "The models are in"
    console.out.print(" ".join([f"{where} {model}.", *cost_sentences(runs)]))
    console.next_commands(shlex.join(map(str, command)) for command in commands)


def cost_sentences(runs: Sequence[Path]) -> list[str]:
    """Return sentences about the hours of finished runs, and their price where it is known.

    The price is an estimate: the lowest list price of the devices, for the time of the runs alone.
    """
    seconds, dollars, source = 0.0, 0.0, ""
    is_priced = True
    for run in runs:
        logged = (last_logged(run) or {}).get("time", 0.0)
        seconds += logged
        try:
            hardware = parse_json_object((run / RUN).read_bytes())["hardware"]
            device = by_cuda_name(hardware["device_name"] or "")
        except (OSError, ValueError, KeyError, TypeError):
            device = None
        if device is None or not device.prices:
            is_priced = False
            continue
        price = min(device.prices, key=lambda offer: offer.hour)
        dollars += logged / 3600 * hardware["processes"] * price.hour
        source = f"{price.hour:g} an hour of one {device.name}, {price.where}, {price.date}"
    if not seconds:
        return []
    took = f"Training took {console.duration(seconds)}"
    if is_priced:
        took += f", about {dollars:,.2f} US dollars at list price ({source})"
    return [f"{took}."]
