"""A step of each optimizer, in turns: processor time on one thread of a CPU.

    python scripts/bench_optimizers.py [--rounds 5] [--layers 4] [--width 256] [--json FILE]

The model has random gradients; forward and backward are not run. torch_muon is torch.optim.Muon on
the matrices of the encoder alone, each group as a matrix of its own; muon is sqzb's optimizer, with
AdamW for the rest. Processor time hardly depends on the machine's other work.
"""

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer as TorchOptimizer

from sqzb import console
from sqzb.bench.race import Spread, race
from sqzb.bench.report import parser, write_report
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.layers import GroupedLinear
from sqzb.recipe import Optimizer
from sqzb.training.optimizers import make_optimizer

NAMES = ("lamb", "adamw", "muon")


def main() -> None:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("--layers", type=int, default=4)
    arguments.add_argument("--width", type=int, default=256)
    arguments.add_argument("--vocabulary", type=int, default=8000)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    config = SqueezeBertConfig(
        vocab_size=given.vocabulary,
        hidden_size=given.width,
        num_hidden_layers=given.layers,
        num_attention_heads=given.width // 64,
        intermediate_size=4 * given.width,
    )
    model = SqueezeBertForPreTraining(config)
    for parameter in model.parameters():
        parameter.grad = 0.01 * torch.randn_like(parameter)
    contestants = {name: step_of(optimizer) for name, optimizer in optimizers(model).items()}
    race(contestants, rounds=1)  # the first step makes the moments
    seconds = race(contestants, given.rounds)
    rows = []
    for name, of_one in seconds.items():
        ratios = [own / lamb for own, lamb in zip(of_one, seconds["lamb"], strict=True)]
        rows.append((name, Spread.of(of_one).text(",.1f", 1e3), Spread.of(ratios).text(".2f")))
    title = f"{given.layers} layers x {given.width}: processor time of a step, median (ends)"
    console.table(title, ("optimizer", "ms", "to LAMB in the same round"), rows)
    write_report(given.json, config=config.model_dump(mode="json"), seconds=seconds)


def optimizers(model: nn.Module) -> dict[str, TorchOptimizer]:
    by_name = {
        name: make_optimizer(Optimizer.model_validate({"name": name}), model) for name in NAMES
    }
    matrices = []
    for layer in model.modules():
        if isinstance(layer, GroupedLinear):
            matrices += [part[..., 0].clone() for part in layer.weight.detach().chunk(layer.groups)]
    copies = [nn.Parameter(matrix) for matrix in matrices]
    for copy in copies:
        copy.grad = 0.01 * torch.randn_like(copy)
    return by_name | {"torch_muon": torch.optim.Muon(copies)}


def step_of(optimizer: TorchOptimizer) -> Callable[[int], float]:
    def measure(_: int) -> float:
        started = time.process_time()
        optimizer.step()
        return time.process_time() - started

    return measure


if __name__ == "__main__":
    main()
