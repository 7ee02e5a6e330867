"""Training speed on a CPU by the way in which idle OpenMP threads wait, quiet and busy.

    python scripts/bench_waiting.py [--busy N] [--rounds 5] [--json FILE]

Each turn is a process of its own that trains a small SqueezeBERT on artificial sequences and counts
tokens a second after a warm-up. The contestants differ in one variable of their environment:
OMP_WAIT_POLICY, GOMP_SPINCOUNT (a thread tests so many times for new work before it sleeps) or
OMP_NUM_THREADS. --busy N lets N processes occupy the cores during each turn.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial

from sqzb import console
from sqzb.bench.race import Spread, race
from sqzb.bench.report import hardware, parser, write_report

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
DEFAULT = "torch's default"
CONTESTANTS: dict[str, dict[str, str]] = {
    DEFAULT: {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
TRAIN = """
import sys, time, torch
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.training.cpu import tune_cpu
seconds = float(sys.argv[1])
tune_cpu()
torch.manual_seed(0)
config = SqueezeBertConfig(vocab_size=8000, hidden_size=256, num_hidden_layers=4,
                           num_attention_heads=4, intermediate_size=1024)
model = SqueezeBertForPreTraining(config).train()
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
ids = torch.randint(5, 8000, (16, 128))
masked = torch.arange(1, 20).expand(16, 19).contiguous()
batch = dict(input_ids=ids, attention_mask=torch.ones_like(ids),
             token_type_ids=torch.zeros_like(ids), mlm_positions=masked,
             mlm_labels=ids[:, 1:20].contiguous(), sop_labels=ids[:, 0] % 2)
def step():
    sums = model(**batch).loss_sums
    torch.stack([each.loss for each in sums.values()]).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
for _ in range(2):
    step()
steps, began = 0, time.perf_counter()
while time.perf_counter() - began < seconds:
    step()
    steps += 1
print(steps * ids.numel() / (time.perf_counter() - began))
"""
SPIN = "while True: pass"


def main() -> None:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("--busy", type=int, default=0, help="processes that occupy the cores")
    arguments.add_argument("--seconds", type=float, default=4, help="seconds of each turn")
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    given = arguments.parse_args()
    timed = {
        name: partial(rate, {"OMP_NUM_THREADS": str(given.threads)} | changes, given.seconds)
        for name, changes in CONTESTANTS.items()
    }

    hogs = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(given.busy)]
    try:
        rates = race(timed, given.rounds)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    rows = []
    for name, values in rates.items():
        of_default = [value / other for value, other in zip(values, rates[DEFAULT], strict=True)]
        rows.append((name, Spread.of(values).text(",.0f"), Spread.of(of_default).text(".2f")))
    title = f"{hardware()}, {given.threads} threads, {given.busy} busy processes beside them"
    console.table(title, ("idle threads wait by", "tokens/s", "to the default"), rows)
    write_report(given.json, threads=given.threads, busy=given.busy, rates=rates)


def rate(environment: Mapping[str, str], seconds: float, number: int) -> float:
    """Return tokens a second of a turn."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", TRAIN, str(seconds)]
    ended = subprocess.run(
        command, env=inherited | dict(environment), capture_output=True, text=True, check=True
    )
    return float(ended.stdout)


if __name__ == "__main__":
    main()
