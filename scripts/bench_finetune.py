"""Duration of finetuning on MRPC, by sqzb and by transformers' Trainer with the same settings.

    python scripts/bench_finetune.py --vocab VOCAB.TXT --glue-dir FOLDER
        [--epochs 1] [--examples N] [--rounds 2] [--json FILE]
    python scripts/bench_finetune.py --model FOLDER_OR_HUB_ID --glue-dir FOLDER

The contestants are whole processes that take turns, in fp32 on the device that accelerate finds:
`sqzb finetune`, and Trainer as in transformers' run_glue.py (scripts/trainer_peer.py), both with
the published architecture. With --vocab the model has random weights, and the accuracies say
little.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from sqzb import console
from sqzb.bench.race import Spread, race
from sqzb.bench.report import parser, write_report
from sqzb.glue.tasks import task
from sqzb.recipe import FinetuneRecipe
from trainer_peer import CONTESTANTS, Figures, copy_data, timed

MRPC = task("mrpc")


def main() -> None:
    arguments = parser(__doc__, rounds=2)
    start = arguments.add_mutually_exclusive_group(required=True)
    start.add_argument("--model", help="a saved model or a Hub id, with a tokenizer")
    start.add_argument(
        "--vocab", type=Path, help="vocab.txt or tokenizer.json, for a model with random weights"
    )
    arguments.add_argument(
        "--glue-dir", type=Path, required=True, help="GLUE's own files, in MRPC/"
    )
    arguments.add_argument("--epochs", type=int, default=1)
    arguments.add_argument("--examples", type=int, help="train on the first so many only")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, data = start_model(given.model, given.vocab, folder / "start"), folder / "glue"
        copy_data(MRPC, given.glue_dir, data, given.examples)
        recipe = FinetuneRecipe(task=MRPC.name, model=str(model), epochs=given.epochs)

        def contestant(name: str) -> Callable[[int], Figures]:
            def finetune(number: int) -> Figures:
                output = str(folder / f"{name}-{number}")
                return timed(name, recipe.model_copy(update={"output": output}), data)

            return finetune

        runs = race({name: contestant(name) for name in CONTESTANTS}, given.rounds)
    show(runs)
    write_report(given.json, runs=runs)


def start_model(model: str | None, vocab: Path | None, folder: Path) -> Path:
    """Return the folder that both start from; a Hub id is downloaded before anything is timed."""
    if vocab is None:
        from sqzb.hub import local_folder

        return local_folder(model or "")
    import torch
    from transformers import SqueezeBertConfig, SqueezeBertForSequenceClassification

    from sqzb.tokenizer import load_tokenizer, save_tokenizer

    torch.manual_seed(0)
    config = SqueezeBertConfig()  # the published sizes
    SqueezeBertForSequenceClassification(config).save_pretrained(folder)
    save_tokenizer(load_tokenizer(vocab), folder, config.max_position_embeddings)
    return folder


def show(runs: dict[str, list[Figures]]) -> None:
    seconds: dict[str, Spread] = {}
    for name, of_one in runs.items():
        seconds[name] = Spread.of([run["seconds"] for run in of_one])
    rows = []
    for name, of_one in runs.items():
        steps = f"{of_one[0]['steps']:,}"
        ratio = f"{seconds[name].middle / seconds['sqzb'].middle:.2f}"
        peak = console.size(int(max(run["peak_bytes"] for run in of_one)))
        accuracy = statistics.median(run["accuracy"] for run in of_one)
        rows.append((name, steps, seconds[name].text(".1f"), ratio, peak, f"{accuracy:.1%}"))
    header = ("contestant", "steps", "seconds (spread)", "ratio", "memory", "accuracy")
    console.table(f"Finetuning on MRPC, batches of {FinetuneRecipe().batch}", header, rows)


if __name__ == "__main__":
    main()
