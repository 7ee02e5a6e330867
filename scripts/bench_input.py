"""Speed of making examples, beside that of training on them.

    make demo   # or any corpus
    python scripts/bench_input.py recipes/demo_phase1.yaml [KEY=VALUE ...]
        [--seconds 2] [--rounds 5] [--json FILE]

The contestants take turns, on the same chunks:
    training      whole steps of the recipe, on the device that accelerate finds, with examples that
                  are already made
    sqzb          a process's part of a step as `sqzb pretrain` makes it: one thread reads, splits,
                  swaps and masks
    transformers  DataCollatorForLanguageModeling on chunks in memory as lists: masks only, no
                  sentence order
A thread makes examples while the step before is computed. As long as that is faster than training,
it costs training no time.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from sqzb import console
from sqzb.bench.race import Spread, race
from sqzb.bench.report import parser, write_report
from sqzb.corpus.store import TRAIN, Corpus
from sqzb.pretraining.job import Pretraining
from sqzb.recipe import Masking, PretrainRecipe, load_recipe
from sqzb.training.engine import dropout_key

Step = Callable[[int], int]  # runs step n, and returns its number of tokens without padding
TRAINING = "training"


def main() -> None:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("recipe", type=Path)
    arguments.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments.add_argument(
        "--seconds", type=float, default=2.0, help="that each contestant works in a round"
    )
    given = arguments.parse_args()
    recipe = load_recipe(PretrainRecipe, given.recipe, given.overrides)
    contestants = {TRAINING: training(recipe)}
    contestants |= {
        f"sqzb, {masking} masking": sqzb(recipe, masking) for masking in get_args(Masking)
    }
    contestants["transformers, token masking"] = collator(recipe)
    for step in contestants.values():
        step(0)  # compiles, reads and allocates
    rates = race(
        {name: working(step, given.seconds) for name, step in contestants.items()}, given.rounds
    )
    show(recipe, rates)
    write_report(given.json, tokens_per_second=rates)


def working(step: Step, seconds: float) -> Callable[[int], float]:
    """Return a contestant of the race: tokens a second over the steps that fit into `seconds`."""

    def measure(round_number: int) -> float:
        number = first = 1 + round_number * 1000
        started, tokens = time.perf_counter(), 0
        while (now := time.perf_counter() - started) < seconds or number == first:
            tokens += step(number)
            number += 1
        return tokens / now

    return measure


def made(recipe: PretrainRecipe) -> Pretraining:
    job = Pretraining(recipe, Path(tempfile.gettempdir()) / "nothing-is-written-here")
    job.prepare()
    return job


def count(batches: list[Any]) -> int:
    return int(sum(batch["attention_mask"].sum() for batch in batches))


def training(recipe: PretrainRecipe) -> Step:
    job = made(recipe)
    engine, batches, rate = job.make_engine(), job.micro_batches(0), job.learning_rate(0)

    def step(number: int) -> int:
        keys = [
            dropout_key(recipe.seed, number, micro_batch)
            for micro_batch in job.micro_batch_numbers()
        ]
        engine.step(batches, rate, keys)
        return count(batches)

    return step


def sqzb(recipe: PretrainRecipe, masking: Masking) -> Step:
    job = made(recipe.model_copy(update={"masking": masking}))
    return lambda number: count(job.micro_batches(number))


def collator(recipe: PretrainRecipe) -> Step:
    corpus = Corpus(recipe.corpus)
    chunks = corpus.split(TRAIN, recipe.sequence_length)
    numbers = np.random.default_rng(0).choice(len(chunks), min(len(chunks), 4096), replace=False)
    tokenizer = AutoTokenizer.from_pretrained(corpus.folder)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    rows = [{"input_ids": [first, *chunks[number].tokens.tolist(), last]} for number in numbers]
    n_rows = made(recipe).layout.micro_batch
    collate = DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=recipe.masking_rate, pad_to_multiple_of=recipe.sequence_length
    )

    def step(number: int) -> int:
        starts = range(0, recipe.global_batch, n_rows)
        batches = []
        for start in starts:
            batches.append(collate([rows[(number + start + i) % len(rows)] for i in range(n_rows)]))
        return count(batches)

    return step


def show(recipe: PretrainRecipe, rates: dict[str, list[float]]) -> None:
    spreads = {name: Spread.of(of_one) for name, of_one in rates.items()}
    trained = spreads[TRAINING].middle
    rows = [
        (name, f"{spread.middle:,.0f}", spread.ends(",.0f"), f"{spread.middle / trained:.1f}")
        for name, spread in spreads.items()
    ]
    title = f"Steps of {recipe.global_batch:,} x {recipe.sequence_length}"
    console.table(title, ("contestant", "tokens/s", "spread", "times training"), rows)


if __name__ == "__main__":
    main()
