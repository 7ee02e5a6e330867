"""Each switch of training off and on against each other, for scripts/bench_gpu.py.

The two contestants of a race are in one process and take turns, so that a change of the machine's
clock affects both. A race needs a corpus alone, which `write_text` makes up.
"""

import csv
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sqzb.bench.commands import run_sqzb
from sqzb.bench.race import Spread, race

CUDA = torch.cuda.is_available()
# Two contestants with graphs fit the memory of an H100 at micro-batches of this size.
STEP_OF_512 = ("phase1_128", ["global_batch=512", "micro_batch=256"])
PHASE_1 = ("phase1_128", ["micro_batch=256"])
PHASE_2 = ("phase2_512", ["global_batch=512", "micro_batch=64"])
EAGER = ["compile=false", "kernels=true"]
GRAPHS = [*EAGER, "graphs=true"]
ALL_ON = [*GRAPHS, "copy_ahead=true", "unpad=true", "fused_loss=true"]
# No key of a recipe: whether the optimizer's update is a CUDA graph, where `graphs` is true.
NO_UPDATE_GRAPH = "update_graph=false"


class Switch(NamedTuple):
    """A race of two recipes.

    base: a recipe's name, and overrides of both contestants.
    steps: steps of a turn.
    """

    base: tuple[str, list[str]]
    off: list[str]
    on: list[str]
    steps: int = 8


SWITCHES = {
    "switch kernels": Switch(STEP_OF_512, ["compile=false", "kernels=false"], EAGER),
    "switch graphs": Switch(STEP_OF_512, EAGER, GRAPHS),
    "switch graph of the update": Switch(STEP_OF_512, [*GRAPHS, NO_UPDATE_GRAPH], GRAPHS),
    "switch copy_ahead": Switch(STEP_OF_512, GRAPHS, [*GRAPHS, "copy_ahead=true"]),
    "switch fused_loss": Switch(STEP_OF_512, GRAPHS, [*GRAPHS, "fused_loss=true"]),
    "switch unpad": Switch(STEP_OF_512, GRAPHS, [*GRAPHS, "unpad=true"]),
    "switch unpad, phase 2": Switch(PHASE_2, GRAPHS, [*GRAPHS, "unpad=true"], 5),
    "switch unpad, phase 1": Switch(PHASE_1, GRAPHS, [*GRAPHS, "unpad=true"], 4),
    "switch all, phase 1": Switch(PHASE_1, EAGER, ALL_ON, 4),
}
# Finetuning. A precision holds for a whole process, so these are no race.
TUNINGS = {
    "finetune fp32": (["precision=fp32"], ["precision=fp32", "graphs=true"]),
    "finetune bf16": (["precision=bf16"], ["precision=bf16", "graphs=true"]),
}
WARM = 10  # steps before the first turn: most shapes have been compiled and recorded by then
ROUNDS = 3
TINY = ["precision=fp32", "compile=false", "global_batch=8", "micro_batch=4"]
SIZES = "hidden_size: 64, num_attention_heads: 4, num_hidden_layers: 1, intermediate_size: 64"
Result = dict[str, Any]


class Driven:
    """Steps as in a training loop: a thread makes examples, figures are read one step later."""

    def __init__(self, job: Any, engine: Any) -> None:
        self.job, self.engine, self.pool, self.step = job, engine, ThreadPoolExecutor(1), 0
        self.walls: list[float] = []
        self.waits: list[float] = []
        self.hosts: list[float] = []
        self.losses: list[float] = []
        self.made: list[float] = []

    def _make(self, step: int) -> Any:
        began = time.perf_counter()
        prepared = self.engine.prepare(self.job.micro_batches(step))
        self.made.append(time.perf_counter() - began)
        return prepared

    def go(self, count: int) -> None:
        from sqzb.training.engine import dropout_key

        job, pending = self.job, None
        future = self.pool.submit(self._make, self.step)
        last = time.perf_counter()
        for _ in range(count):
            began = time.perf_counter()
            batches = future.result()
            made = time.perf_counter()
            future = self.pool.submit(self._make, self.step + 1)
            keys = [dropout_key(0, self.step, number) for number in job.micro_batch_numbers()]
            result = self.engine.step(batches, job.learning_rate(self.step), keys)
            self.hosts.append(time.perf_counter() - made)
            self.waits.append(made - began)
            if pending is not None:
                self.losses.append(pending.loss)
                now = time.perf_counter()
                self.walls.append(now - last)
                last = now
            pending, self.step = result, self.step + 1
        if pending is not None:
            self.losses.append(pending.loss)
            self.walls.append(time.perf_counter() - last)
        future.result()


class Contestant:
    """A job whose steps are timed.

    gigabytes: memory of the device that its first steps took.
    """

    def __init__(self, job: Any, warm: int, update_graph: bool = True) -> None:
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if CUDA else 0
        job.prepare()
        engine = job.make_engine()
        if not update_graph and engine.deferred:
            engine._update_once = engine._update_deferred
        self.driven = Driven(job, engine)
        self.driven.go(warm)
        self.gigabytes = (torch.cuda.max_memory_allocated() - before) / 1e9 if CUDA else None

    def turn(self, steps: int) -> float:
        """Return the median time of a step, in ms, without the first and the last step."""
        done = len(self.driven.walls)
        self.driven.go(steps)
        walls = self.driven.walls[done:]
        return 1e3 * statistics.median(walls[1:-1] or walls)


def switch(name: str, corpus: Path, layers: int, tiny: bool) -> Result:
    """Return the race of a switch."""
    from sqzb.pretraining.job import Pretraining
    from sqzb.recipe import PretrainRecipe, load_recipe
    from sqzb.recipe.shipped import named

    (recipe_name, both), off, on, steps = SWITCHES[name]
    sizes = SIZES if tiny else f"num_hidden_layers: {layers}"
    wanted = ["start_from=null", f"model={{{sizes}}}", f"corpus={corpus}", *both]
    wanted += TINY if tiny else []

    def contestant(overrides: list[str], folder: str) -> Contestant:
        keys = [key for key in overrides if key != NO_UPDATE_GRAPH]
        keys = [key for key in keys if CUDA or not key.startswith("kernels=")]
        recipe = load_recipe(PretrainRecipe, named(recipe_name), [*wanted, *keys], output=folder)
        job = Pretraining(recipe, Path(folder))
        return Contestant(job, 2 if tiny else WARM, NO_UPDATE_GRAPH not in overrides)

    with tempfile.TemporaryDirectory() as folder:
        result = raced(contestant(off, folder), contestant(on, folder), 3 if tiny else steps)
        overrides = [*wanted, *(["kernels=null"] if not CUDA else [])]
        recipe = load_recipe(PretrainRecipe, named(recipe_name), overrides, output=folder)
    positions = recipe.global_batch * recipe.sequence_length
    return result | {"positions": round(1e3 * positions / result["on"])}


def tuning(name: str, corpus: Path, layers: int, tiny: bool) -> Result:
    """Return the race of two finetunings of a random model on made-up sentences."""
    from sqzb.finetuning.data import open_data
    from sqzb.finetuning.job import Finetuning
    from sqzb.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
    from sqzb.recipe import FinetuneRecipe, SweepRecipe, load_recipe
    from sqzb.tokenizer import load_tokenizer

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_labelled(folder / "sentences.csv", 400 if tiny else 4000)
        tokenizer = load_tokenizer(corpus / "vocab.txt")
        sizes: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size()}
        sizes |= {"num_hidden_layers": layers}
        if tiny:
            sizes |= {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
            sizes |= {"intermediate_size": 64}
        model = SqueezeBertForSequenceClassification(SqueezeBertConfig(**sizes))
        model.save_pretrained(folder / "model", tokenizer)

        def contestant(overrides: list[str]) -> Contestant:
            keys = [f"data.train={folder / 'sentences.csv'}", f"model={folder / 'model'}"]
            path = folder / "recipe.yaml"
            path.write_text("epochs: 3\n", encoding="utf-8")
            sweep = load_recipe(SweepRecipe, path, [*keys, *overrides], output=str(folder / "run"))
            recipe: FinetuneRecipe = sweep.recipes(sweep.names()[0])[0]
            job = Finetuning(recipe, open_data(recipe), folder / "run")
            return Contestant(job, 2 if tiny else 4 * WARM)

        # On a CPU, bf16 is slow and says nothing.
        off, on = (
            [key for key in keys if CUDA or not key.startswith("precision=")]
            for keys in TUNINGS[name]
        )
        return raced(contestant(off), contestant(on), 3 if tiny else 30)


def raced(off: Contestant, on: Contestant, steps: int) -> Result:
    """Return ms of a step of both, the ratio of each round, and what the memory was."""
    contestants = {"off": off, "on": on}
    turns = {
        name: lambda number, contestant=contestant: contestant.turn(steps)
        for name, contestant in contestants.items()
    }
    times: Mapping[str, list[float]] = race(turns, ROUNDS)
    ratios = [before / after for before, after in zip(times["off"], times["on"], strict=True)]
    for contestant in contestants.values():
        contestant.driven.pool.shutdown()
    return {
        **{name: round(statistics.median(of_turns), 2) for name, of_turns in times.items()},
        "ratio": [round(value, 3) for value in Spread.of(ratios)],
        "gigabytes": [off.gigabytes, on.gigabytes],
        "losses": [contestant.driven.losses[:4] for contestant in contestants.values()],
    }


def line(name: str, result: Result) -> str:
    """Return the line of a race in the table."""
    middle, lowest, highest = result["ratio"]
    gigabytes = " / ".join("-" if one is None else f"{one:.1f}" for one in result["gigabytes"])
    places = f"{result['positions'] / 1e6:10.3f}" if "positions" in result else " " * 10
    return (
        f"{name:30} {result['off']:9.2f} {result['on']:9.2f} "
        f"{middle:6.2f} ({lowest:.2f} to {highest:.2f}) {places} {gigabytes:>13}"
    )


HEADER = f"{'race':30} {'off, ms':>9} {'on, ms':>9} {'off/on':>21} {'M places/s':>10} {'GB':>13}"


# Text


def make_corpus(folder: Path, tiny: bool) -> None:
    """Prepare a corpus of made-up text: over 8,192 sequences of 128 tokens, and BERT's vocabulary.

    tiny: a text and a vocabulary for a CPU.
    """
    text = folder.with_name(folder.name + ".jsonl")
    write_text(text, 1 if tiny else 8)
    sources = ["sources.bookcorpus=null", f"sources.wikipedia={{path: {text}}}"]
    # Fewer characters than all, so that the corpus is ready in half a minute.
    vocabulary = ["vocabulary.sample_characters=4000000"]
    vocabulary += ["vocabulary.size=1000"] if tiny else []
    run_sqzb("prepare-corpus", "corpus", "--output", str(folder), *vocabulary, *sources)


def made_up_words(draw: np.random.Generator, number: int) -> list[str]:
    """Return words of 2 to 12 letters."""
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgk", "S1").astype(str)
    spelled = letters[draw.integers(0, len(letters), (number, 12))]
    sizes = draw.integers(2, 13, number)
    return ["".join(row[:size]) for row, size in zip(spelled, sizes, strict=True)]


def sentences(draw: np.random.Generator, words: list[str], number: int) -> list[str]:
    """Return sentences of 5 to 26 words, of which few are frequent, as in text."""
    lengths = draw.integers(5, 27, number)
    ranks = draw.zipf(1.1, int(lengths.sum())) % len(words)
    ends = np.cumsum(lengths)
    return [
        " ".join(words[rank] for rank in ranks[end - length : end]).capitalize() + "."
        for end, length in zip(ends, lengths, strict=True)
    ]


def write_text(path: Path, megabytes: float) -> None:
    """Write documents of made-up sentences: most are short and some are long, as in Wikipedia."""
    draw = np.random.default_rng(0)
    words = made_up_words(draw, 60_000)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < 1e6 * megabytes:
            sizes = draw.lognormal(3.6, 0.9, 200).astype(int).clip(2, 600)
            pool = iter(sentences(draw, words, int(sizes.sum())))
            for size in sizes:
                document = " ".join(next(pool) for _ in range(size))
                written += file.write(json.dumps({"text": document}) + "\n")


def write_labelled(path: Path, rows: int) -> None:
    """Write made-up pairs of sentences with two classes, about as long as MRPC's."""
    draw = np.random.default_rng(1)
    pool = sentences(draw, made_up_words(draw, 60_000), 2 * rows)
    labels = draw.integers(0, 2, rows).tolist()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "label"])
        for number, label in enumerate(labels):
            writer.writerow([pool[2 * number], pool[2 * number + 1], ("no", "yes")[label]])
