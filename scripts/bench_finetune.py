"""How long finetuning on MRPC takes, beside transformers' Trainer with the published architecture, the same settings.

    python scripts/bench_finetune.py --vocab VOCAB.TXT --glue-dir FOLDER [--epochs 1] [--examples N] [--rounds 2]
        [--json FILE]
    python scripts/bench_finetune.py --model FOLDER_OR_HUB_ID --glue-dir FOLDER

Contestants, whole processes that take turns, from their start to their end, in fp32 on whatever accelerate finds:
`sqzb finetune`, and Trainer as in transformers' run_glue.py (scripts/trainer_peer.py). With --vocab the model has the
published sizes and random weights, and the accuracies say little.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from sqzb import console
from sqzb.glue.tasks import task
from sqzb.recipe import FinetuneRecipe
from trainer_peer import CONTESTANTS, Figures, copy_data, timed

MRPC = task("mrpc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--model", help="a saved model or a Hub id, with a tokenizer")
    start.add_argument("--vocab", type=Path, help="vocab.txt or tokenizer.json, for a model with random weights")
    parser.add_argument("--glue-dir", type=Path, required=True, help="GLUE's own files, in MRPC/")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--examples", type=int, help="train on the first so many only")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, list[Figures]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, data = start_model(given.model, given.vocab, folder / "start"), folder / "glue"
        copy_data(MRPC, given.glue_dir, data, given.examples)
        recipe = FinetuneRecipe(task=MRPC.name, model=str(model), epochs=given.epochs)
        for number in range(given.rounds):
            for name in CONTESTANTS:
                output = folder / f"{name}-{number}"
                found[name].append(timed(name, recipe.model_copy(update={"output": str(output)}), data))
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


def start_model(model: str | None, vocab: Path | None, folder: Path) -> Path:
    """The folder both start from: a Hub id is downloaded before anything is timed."""
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


def show(found: dict[str, list[Figures]]) -> None:
    reference = statistics.median(run["seconds"] for run in found["sqzb"])
    rows = []
    for name, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        median = statistics.median(seconds)
        spread = f"{median:.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        peak = console.size(int(max(run["peak_bytes"] for run in runs)))
        accuracy = statistics.median(run["accuracy"] for run in runs)
        rows.append((name, f"{runs[0]['steps']:,}", spread, f"{median / reference:.2f}", peak, f"{accuracy:.1%}"))
    header = ("contestant", "steps", "seconds (spread)", "ratio", "memory", "accuracy")
    console.table(f"Finetuning on MRPC, batches of {FinetuneRecipe().batch}", header, rows)


if __name__ == "__main__":
    main()
