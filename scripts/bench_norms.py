"""Time of clipping and LAMB's step with sqzb's norms, right in fp32, beside torch's own norms.

    python scripts/bench_norms.py [--threads 1 --threads 2] [--rounds 25] [--json FILE]

The gradients are those of the full model, on a CPU. Both forms take turns on the same tensors. The
last column is the time of sqzb's form as a share of the other's, in the same round.
"""

import os
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sqzb import console
from sqzb.bench.race import Spread, race
from sqzb.bench.report import hardware, parser, write_report
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.training import lamb, norms
from sqzb.training.lamb import Lamb
from sqzb.training.optimizers import parameter_groups

OURS, TORCHS = "sqzb's norms", "torch's norms"


def main() -> None:
    arguments = parser(__doc__, rounds=25)
    arguments.add_argument("--threads", type=int, action="append", help="threads; may be repeated")
    given = arguments.parse_args()

    model = SqueezeBertForPreTraining(SqueezeBertConfig())
    parameters = list(model.parameters())
    torch.manual_seed(0)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 1e-3
    optimizer = Lamb(
        parameter_groups(model, weight_decay=0.01), lr=1e-6, betas=(0.9, 0.999), eps=1e-6
    )
    forms: dict[str, Callable[[list[Tensor]], Tensor]] = {OURS: norms.norms, TORCHS: _torchs}
    contestants = {
        name: partial(_step, form, optimizer, parameters) for name, form in forms.items()
    }

    rows = []
    seconds = {}
    for threads in given.threads or (1, os.cpu_count() or 1):
        torch.set_num_threads(threads)
        race(contestants, 2)
        taken = seconds[threads] = race(contestants, given.rounds)
        share = [ours / other for ours, other in zip(taken[OURS], taken[TORCHS], strict=True)]
        times = [Spread.of(taken[name]).text(".0f", 1e3) for name in forms]
        rows.append((str(threads), *times, Spread.of(share).text(".3f")))
    title = f"ms of clip and LAMB's step, {hardware()}"
    console.table(title, ("threads", *forms, "ours to torch's"), rows)
    write_report(given.json, seconds=seconds)


def _step(
    form: Callable[[list[Tensor]], Tensor],
    optimizer: Lamb,
    parameters: list[torch.nn.Parameter],
    number: int,
) -> float:
    """Return the seconds of a step whose norms are computed by `form`."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    vars(norms)["norms"] = vars(lamb)["norms"] = form
    started = time.perf_counter()
    norms.clip(gradients, 1.0)
    optimizer.step()
    return time.perf_counter() - started


def _torchs(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))


if __name__ == "__main__":
    main()
