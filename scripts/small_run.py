"""A small SqueezeBERT on real text, for 2 CPU cores, and the table of its results.

    python scripts/small_run.py --text FOLDER [--text FOLDER ...] --glue-dir FOLDER

Prepares a corpus from the text, pretrains through both phases, then finetunes MRPC and RTE, with 3 seeds each, from the
pretrained model and from random weights. Goes on where it was stopped; everything lies in data/small and runs/.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqzb import console

CORPUS, FINETUNED = Path("data/small"), Path("runs/small_finetuned")
PHASES = {"small_phase1": 128, "small_phase2": 512}  # sequence lengths
TASKS, SEEDS, STARTS = ("mrpc", "rte"), (1, 2, 3), ("pretrained", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", action="append", required=True, help="a file, folder or glob of text; repeat it for more"
    )
    parser.add_argument("--glue-dir", required=True, help="GLUE's own files: MRPC/ and RTE/")
    given = parser.parse_args()
    prepare(given.text)
    for phase in PHASES:
        if not Path("runs", phase, "final").exists():
            sqzb("pretrain", f"recipes/{phase}.yaml", "--resume", "auto")
        sqzb("eval", f"runs/{phase}", "--corpus", str(CORPUS), "--json", f"runs/{phase}/heldout.json")
    runs = [(task, start, seed) for task in TASKS for start in STARTS for seed in SEEDS]
    # Models this small use a core each better than all cores together.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda run: finetune(run[0], run[1], run[2], given.glue_dir), runs))
    show()


def sqzb(*arguments: str, threads: int | None = None) -> None:
    environment = os.environ if threads is None else os.environ | {"OMP_NUM_THREADS": str(threads)}
    console.out.print(f"\n[bold]$ sqzb {' '.join(arguments)}[/]")
    ended = subprocess.run([sys.executable, "-m", "sqzb", *arguments], env=environment)
    if ended.returncode:
        sys.exit(ended.returncode)


def prepare(texts: list[str]) -> None:
    if (CORPUS / "manifest.json").exists():
        return
    sources = [f"sources.text{number}.path={text}" for number, text in enumerate(texts)]
    given = ["sources.wikipedia=null", "sources.bookcorpus=null", *sources]
    vocabulary = ["vocabulary.size=8000", "vocabulary.sample_characters=10_000_000"]
    sqzb("prepare-corpus", "recipes/corpus.yaml", "--output", str(CORPUS), *given, *vocabulary)


def finetune(task: str, start: str, seed: int, glue_dir: str) -> None:
    output = folder(task, start, seed)
    if (output / "final").exists():
        return
    shutil.rmtree(output, ignore_errors=True)
    settings = ["--recipe", "recipes/small_finetune.yaml", "--task", task, "--glue-dir", glue_dir]
    settings += ["--output", str(output), f"seed={seed}", f"from_scratch={str(start == 'random').lower()}"]
    sqzb("finetune", *settings, threads=1)


def folder(task: str, start: str, seed: int) -> Path:
    return FINETUNED / f"{task}-{start}-{seed}"


def show() -> None:
    rows = []
    for phase, length in PHASES.items():
        heldout = json.loads(Path("runs", phase, "heldout.json").read_text(encoding="utf-8"))
        figures, unigram = heldout[f"length_{length}"], f"{heldout['heldout_unigram_nats']:.3f} (unigram)"
        rows += [
            (f"MLM loss at length {length}", f"{figures['heldout_mlm_loss']:.3f} nats", unigram),
            (f"MLM accuracy at length {length}", f"{figures['heldout_mlm_accuracy']:.1%}", ""),
            (f"SOP accuracy at length {length}", f"{figures['heldout_sop_accuracy']:.1%}", "50 %"),
        ]
    console.table("Pretrained", ("held out", "measured", "baseline"), rows)
    scores: list[tuple[str, ...]] = []
    for task in TASKS:
        for metric in ("accuracy", "f1") if task == "mrpc" else ("accuracy",):
            cells = [spread([last(task, start, seed)[f"validation_{metric}"] for seed in SEEDS]) for start in STARTS]
            scores.append((f"{task} {metric}", *cells))
    console.table(f"Finetuned, {len(SEEDS)} seeds: mean (lowest to highest)", ("validation", *STARTS), scores)


def last(task: str, start: str, seed: int) -> dict[str, float]:
    lines = (folder(task, start, seed) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


if __name__ == "__main__":
    main()
