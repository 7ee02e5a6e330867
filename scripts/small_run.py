"""A small SqueezeBERT on real text, for 2 CPU cores, and the table of its results.

    python scripts/small_run.py --text FOLDER [--text FOLDER ...] --glue-dir FOLDER

The script prepares a corpus from the text, pretrains in both phases, then finetunes MRPC and RTE
with 3 seeds each, from the pretrained model and from random weights. A second call continues where
the first one stopped. Its files are in data/small and runs/.
"""

import json
import os
import shutil
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqzb import console
from sqzb.bench.commands import run_sqzb
from sqzb.bench.race import Spread
from sqzb.bench.report import parser

CORPUS, FINETUNED = Path("data/small"), Path("runs/small_finetuned")
PHASES = {"small_phase1": 128, "small_phase2": 512}  # sequence lengths
TASKS, SEEDS, STARTS = ("mrpc", "rte"), (1, 2, 3), ("pretrained", "random")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--text",
        action="append",
        required=True,
        help="a file, folder or glob of text; repeat it for more",
    )
    arguments.add_argument("--glue-dir", required=True, help="GLUE's own files: MRPC/ and RTE/")
    given = arguments.parse_args()
    prepare(given.text)
    for phase in PHASES:
        if not Path("runs", phase, "final").exists():
            run_sqzb("pretrain", f"recipes/{phase}.yaml", "--resume", "auto")
        figures = ["--json", f"runs/{phase}/heldout.json", "--overwrite"]
        run_sqzb("eval", f"runs/{phase}", "--corpus", str(CORPUS), *figures)
    runs = [(task, start, seed) for task in TASKS for start in STARTS for seed in SEEDS]
    # Models of this size train faster one on each core than one after the other on all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda run: finetune(run[0], run[1], run[2], given.glue_dir), runs))
    show()


def prepare(texts: list[str]) -> None:
    if (CORPUS / "manifest.json").exists():
        return
    sources = [f"sources.text{number}.path={text}" for number, text in enumerate(texts)]
    given = ["sources.wikipedia=null", "sources.bookcorpus=null", *sources]
    vocabulary = ["vocabulary.size=8000", "vocabulary.sample_characters=10_000_000"]
    run_sqzb("prepare-corpus", "recipes/corpus.yaml", "--output", str(CORPUS), *given, *vocabulary)


def finetune(task: str, start: str, seed: int, glue_dir: str) -> None:
    output = folder(task, start, seed)
    if (output / "final").exists():
        return
    shutil.rmtree(output, ignore_errors=True)
    settings = ["--recipe", "recipes/small_finetune.yaml", "--task", task, "--glue-dir", glue_dir]
    settings += [
        "--output",
        str(output),
        f"seed={seed}",
        f"from_scratch={str(start == 'random').lower()}",
    ]
    run_sqzb("finetune", *settings, threads=1)


def folder(task: str, start: str, seed: int) -> Path:
    return FINETUNED / f"{task}-{start}-{seed}"


def show() -> None:
    rows = []
    for phase, length in PHASES.items():
        heldout = json.loads(Path("runs", phase, "heldout.json").read_text(encoding="utf-8"))
        figures = heldout[f"length_{length}"]
        unigram = f"{heldout['heldout_unigram_nats']:.3f} (unigram)"
        rows += [
            (f"MLM loss at length {length}", f"{figures['heldout_mlm_loss']:.3f} nats", unigram),
            (f"MLM accuracy at length {length}", f"{figures['heldout_mlm_accuracy']:.1%}", ""),
            (f"SOP accuracy at length {length}", f"{figures['heldout_sop_accuracy']:.1%}", "50 %"),
        ]
    console.table("Pretrained", ("held out", "measured", "baseline"), rows)
    scores: list[tuple[str, ...]] = []
    for task in TASKS:
        for metric in ("accuracy", "f1") if task == "mrpc" else ("accuracy",):
            cells = []
            for start in STARTS:
                values = [last(task, start, seed)[f"validation_{metric}"] for seed in SEEDS]
                cells.append(Spread.of(values, statistics.fmean).text(".1%"))
            scores.append((f"{task} {metric}", *cells))
    console.table(
        f"Finetuned, {len(SEEDS)} seeds: mean (lowest to highest)", ("validation", *STARTS), scores
    )


def last(task: str, start: str, seed: int) -> dict[str, float]:
    lines = (folder(task, start, seed) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


if __name__ == "__main__":
    main()
