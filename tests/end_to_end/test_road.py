"""The commands, as a user runs them, on a text that every Python carries."""

import json
import math
import os
import random
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import fork_server
from sqzb.cli import main

ROOT = Path(__file__).parents[2]
CORPUS = {
    "sources": {"docs": {"path": "python-docs"}},
    "vocabulary": {"size": 800},
    "sequence_lengths": [32, 64],
    "heldout": 0.2,
}
PHASE_1 = {
    "sequence_length": 32,
    "max_predictions": 10,
    "masking_rate": 0.3,
    "model": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 64,
    },
    "steps": 160,
    "global_batch": 32,
    "micro_batch": 32,
    "optimizer": {"lr": 2e-2},
    "evaluate_every": 80,
    "checkpoint_every": 40,
    "log_every": 20,
}
PHASE_2 = {
    "sequence_length": 64,
    "max_predictions": 10,
    "steps": 5,
    "global_batch": 8,
    "micro_batch": 8,
}
METRICS = {
    *("step", "tokens", "loss", "mlm_loss", "mlm_accuracy", "sop_loss", "sop_accuracy"),
    *("lr", "grad_norm", "tokens_per_second", "mfu", "data_wait", "time"),
}


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    """What the command printed; it must end with `code`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ended = fork_server.run(
        [sys.executable, "-m", "sqzb", *arguments], cwd=folder, env=environment, timeout=240
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert code == 0 or "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


def write(path: Path, values: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path.name


def write_mrpc(folder: Path) -> None:
    """Pairs that a tiny model can tell apart in seconds: the label is whether the pair speaks of
    functions.
    """
    folder.mkdir(parents=True)
    draw = random.Random(0)
    words = {
        0: ["class", "object", "import", "module"],
        1: ["function", "argument", "call", "return"],
    }
    for name, n in (("train.tsv", 200), ("dev.tsv", 60)):
        rows = [
            (label, *(" ".join(draw.choices(words[label], k=6)) for _ in "ab"))
            for label in draw.choices([0, 1], k=n)
        ]
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [
            f"{label}\t{2 * i}\t{2 * i + 1}\t{a}\t{b}" for i, (label, a, b) in enumerate(rows)
        ]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which corpus, both phases and a finetuned model have been made by the
    commands.
    """
    folder = tmp_path_factory.mktemp("road")
    (folder / "torn.jsonl").write_text('{"text": "whole"}\n{"text": "to')
    run(
        folder,
        "prepare-corpus",
        write(folder / "corpus.yaml", CORPUS),
        "--output",
        "corpus",
        "--workers",
        "2",
    )
    phase1 = write(folder / "phase1.yaml", PHASE_1 | {"corpus": "corpus"})
    run(folder, "pretrain", phase1, "--output", "phase1")
    phase2 = write(folder / "phase2.yaml", PHASE_2 | {"corpus": "corpus", "start_from": "phase1"})
    run(folder, "pretrain", phase2, "--output", "phase2")
    write_mrpc(folder / "glue" / "MRPC")
    settings = ("epochs=10", "lr=5e-3", "max_length=32")
    run(
        folder,
        "finetune",
        "--task",
        "mrpc",
        "--model",
        "phase2",
        "--glue-dir",
        "glue",
        "--output",
        "mrpc",
        *settings,
    )
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_loss_falls_below_what_frequencies_alone_give(road: Path) -> None:
    manifest = json.loads((road / "corpus/manifest.json").read_text(encoding="utf-8"))
    heldout = [
        line["heldout_mlm_loss"]
        for line in lines(road / "phase1/metrics.jsonl")
        if "heldout_mlm_loss" in line
    ]
    assert len(heldout) == 2
    assert heldout[-1] < heldout[0] < math.log(manifest["vocab_size"])
    assert heldout[-1] < manifest["heldout_unigram_nats"]


@pytest.mark.parametrize("run_folder", ["phase1", "phase2", "mrpc"])
def test_a_run_folder_has_all_its_parts(road: Path, run_folder: str) -> None:
    folder = road / run_folder
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert about["versions"]["torch"] == torch.__version__
    assert {"command", "seed", "versions", "hardware"} <= about.keys()
    assert (
        yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["seed"]
        == about["seed"]
    )
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        assert (folder / "final" / name).stat().st_size > 0


def test_metrics_have_every_figure_and_rise_by_steps(road: Path) -> None:
    logged = [line for line in lines(road / "phase1/metrics.jsonl") if "loss" in line]
    assert all(line.keys() >= METRICS for line in logged)
    assert [line["step"] for line in logged] == list(range(20, 161, 20))
    assert all(earlier["tokens"] < later["tokens"] for earlier, later in pairwise(logged))


def test_checkpoints_are_kept(road: Path) -> None:
    assert [path.name for path in sorted((road / "phase1/checkpoints").iterdir())] == [
        "step-0000120",
        "step-0000160",
    ]


def test_transformers_opens_the_final_folders(road: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for kind, folder in (
        ("AutoModelForMaskedLM", "phase2"),
        ("AutoModelForSequenceClassification", "mrpc"),
    ):
        opened, info = getattr(transformers, kind).from_pretrained(
            road / folder / "final", output_loading_info=True
        )
        assert not any(info.values()), info
        tokenizer = transformers.AutoTokenizer.from_pretrained(road / folder / "final")
        opened(**tokenizer("a class", "an object", return_tensors="pt"))


def test_eval_repeats_what_the_run_found(road: Path) -> None:
    run(road, "eval", "mrpc", "--glue-dir", "glue", "--json", "mrpc.json")
    figures = json.loads((road / "mrpc.json").read_text(encoding="utf-8"))
    last = lines(road / "mrpc/metrics.jsonl")[-1]
    assert figures["accuracy"] == last["validation_accuracy"] > 0.9
    assert figures["f1"] == last["validation_f1"]

    run(road, "eval", "phase1", "--json", "phase1.json")  # with the run's own corpus
    run(road, "eval", "phase1/final", "--corpus", "corpus", "--json", "given.json")
    found, given = (json.loads((road / name).read_text()) for name in ("phase1.json", "given.json"))
    assert found["corpus"] == given["corpus"] and found["length_32"] == given["length_32"]
    figures = found["length_32"]
    last = lines(road / "phase1/metrics.jsonl")[-1]
    assert figures["heldout_mlm_loss"] == pytest.approx(last["heldout_mlm_loss"], abs=1e-6)


def test_predictions_are_those_that_eval_counts(road: Path) -> None:
    """A line for each example of MRPC's validation file, and one more between them that is
    empty.
    """
    rows = [
        line.split("\t")
        for line in (road / "glue/MRPC/dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    pairs = [f"{a}\t{b}" for *_, a, b in rows]
    (road / "pairs.txt").write_text("\n".join([pairs[0], "", *pairs[1:]]) + "\n", encoding="utf-8")
    printed = run(road, "predict", "mrpc", "--file", "pairs.txt").splitlines()
    first, empty, *others = [line for line in printed if not line.startswith("warning:")]
    found = [line.split("\t")[0] for line in (first, *others)]
    right = sum(
        (label == "equivalent") == (row[0] == "1") for label, row in zip(found, rows, strict=True)
    )
    assert empty == ""
    assert right / len(rows) == lines(road / "mrpc/metrics.jsonl")[-1]["validation_accuracy"]
    assert run(road, "predict", "mrpc", *pairs[0].split("\t")).splitlines()[0] == first


def test_masks_are_filled(road: Path) -> None:
    said = run(road, "fill-mask", "phase2", "return the [MASK] of the [MASK].", "--top", "3")
    for of_one in said.split("\n\n"):
        assert len(re.findall(r"^\S+\t\d+\.\d%$", of_one, re.MULTILINE)) == 3
    assert len(said.split("\n\n")) == 2


def test_a_dry_run_shows_the_plan_and_writes_nothing(road: Path) -> None:
    shown = run(
        road,
        "pretrain",
        "phase1.yaml",
        "--output",
        "dry",
        "--dry-run",
        "global_batch=8192",
        "steps=56000",
    )
    assert "8,192 = 32 x 256 accumulation x 1 process" in shown
    assert "56,000 of 8,192 sequences" in shown
    assert not (road / "dry").exists()


def test_a_finished_corpus_is_left_as_it_is(road: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (road / "corpus").rglob("*")}
    said = run(road, "prepare-corpus", "corpus.yaml", "--output", "corpus", "--workers", "2")
    assert "nothing to do" in said and "tokens for training" in said
    assert before == {path: path.stat().st_mtime_ns for path in (road / "corpus").rglob("*")}


def test_a_damaged_corpus_is_named_and_mended(road: Path) -> None:
    assert "files of corpus are intact" in run(road, "prepare-corpus", "--verify", "corpus")
    (shard,) = (road / "corpus/shards").glob("*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = run(road, "prepare-corpus", "--verify", "corpus", code=1)
    assert f"shards/{shard.name}: its content has changed" in said
    command = re.search("`sqzb (.*)` rebuilds only these", said)
    assert command and "is rebuilt" in run(road, *command[1].split())
    assert shard.read_bytes() == whole
    run(road, "prepare-corpus", "--verify", "corpus")


def test_other_lengths_are_cut_without_reading_again(road: Path) -> None:
    shutil.copytree(road / "corpus", road / "recut")
    (shard,) = (road / "recut/shards").glob("*.safetensors")
    before = shard.stat().st_mtime_ns
    run(
        road,
        "prepare-corpus",
        "corpus.yaml",
        "--output",
        "recut",
        "--workers",
        "1",
        "sequence_lengths=[16]",
    )
    assert shard.stat().st_mtime_ns == before
    assert "of 16 positions" in run(road, "inspect-corpus", "recut", "--n", "9")


def test_examples_are_shown(road: Path) -> None:
    said = run(road, "inspect-corpus", "corpus", "--n", "7", "--length", "64", "--seed", "3")
    assert (
        len(re.findall(r"^Chunk .* of 64 positions\n  A  \[CLS\] .*\[SEP\]\n", said, re.MULTILINE))
        == 7
    )
    assert said == run(
        road, "inspect-corpus", "corpus", "--n", "7", "--length", "64", "--seed", "3"
    )
    assert said != run(
        road, "inspect-corpus", "corpus", "--n", "7", "--length", "64", "--seed", "4"
    )


@pytest.mark.parametrize(
    "arguments", [[], ["corpus.yaml", "--verify", "corpus"]], ids=["neither", "both"]
)
def test_a_corpus_is_prepared_or_verified(road: Path, arguments: list[str]) -> None:
    assert "either a recipe or --verify DIR" in run(road, "prepare-corpus", *arguments, code=2)


def test_a_stopped_run_goes_on(road: Path) -> None:
    """Cut back to its first 120 steps, the run ends again in the same weights and the same
    metrics.
    """
    shutil.copytree(road / "phase1", road / "cut")
    for part in ("final", "checkpoints/step-0000160"):
        shutil.rmtree(road / "cut" / part)
    run(road, "pretrain", "phase1.yaml", "--output", "cut", "--resume", "auto")
    same = [(road / name / "final/model.safetensors").read_bytes() for name in ("phase1", "cut")]
    assert same[0] == same[1]
    steps = [line["step"] for line in lines(road / "cut/metrics.jsonl")]
    assert steps == [line["step"] for line in lines(road / "phase1/metrics.jsonl")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pretrain", "phase1.yaml", "--output", "phase1"], "phase1 is not empty"),
        (["pretrain", "phase1.yaml", "--output", "new", "corpus=nowhere"], "sqzb prepare-corpus"),
        (["pretrain", "phase1.yaml", "--output", "new", "sequence_length=48"], "only to 32, 64"),
        (["pretrain", "phase2.yaml", "--output", "new", "start_from=nowhere"], "no folder nowhere"),
        (["pretrain", "phase2.yaml", "--output", "new", "start_from=mrpc"], "missing"),
        (["pretrain", "phase1.yaml", "--output", "new", "model.vocab_size=900"], "does not fit"),
        (["finetune", "--task", "mrpc", "--output", "new"], "--model"),
        (
            ["finetune", "--task", "mrpc", "--model", "phase2", "--output", "mrpc"],
            "mrpc is not empty",
        ),
        (
            [
                "finetune",
                "--task",
                "rte",
                "--model",
                "phase2",
                "--glue-dir",
                "glue",
                "--output",
                "new",
                "max_length=32",
            ],
            "RTE",
        ),
        (["eval", "phase2", "--corpus", "glue"], "has no manifest.json"),
        (["predict", "phase2", "a", "b"], "has no classifier"),
        (["predict", "mrpc", "a"], "mrpc needs two texts per example"),
        (["predict", "mrpc", "--file", "nowhere"], "nowhere has none of the endings"),
        (["fill-mask", "mrpc", "a [MASK]"], "no head for masked tokens"),
        (["fill-mask", "phase2", "a"], "There is no [MASK]"),
        (["eval", "phase2", "--task", "mrpc", "--glue-dir", "glue"], "classifier"),
        (["eval", "mrpc", "--task", "rte", "--glue-dir", "glue"], "not_equivalent"),
        (
            ["prepare-corpus", "corpus.yaml", "--output", "corpus", "seed=1"],
            "another recipe: seed differs",
        ),
        (["prepare-corpus", "corpus.yaml", "--output", "glue"], "holds other files"),
        (["prepare-corpus", "--verify", "glue"], "has no manifest.json"),
        (
            ["prepare-corpus", "corpus.yaml", "--output", "new", "sources.docs.path=torn.jsonl"],
            "torn.jsonl:2 is no JSON",
        ),
        (
            ["prepare-corpus", "corpus.yaml", "--output", "new", "sources.docs.path=corpus.yaml"],
            "has an unknown format",
        ),
        (["inspect-corpus", "glue"], "has no manifest.json"),
        (["inspect-corpus", "corpus", "--length", "48"], "only to 32, 64"),
        (
            ["prepare-corpus", "corpus.yaml", "--output", "new", "sources.docs.path=nowhere"],
            "nowhere",
        ),
        (
            ["prepare-corpus", "corpus.yaml", "--output", "new", "min_characters=10000000"],
            "No document",
        ),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else value,
)
def test_bad_input_is_one_clear_paragraph(
    road: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, for a process of its own would spend its time on imports."""
    monkeypatch.chdir(road)
    monkeypatch.setattr(sys, "argv", ["sqzb", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert said in capsys.readouterr().err
    assert (
        not (road / "new").exists()
        or [path.name for path in (road / "new").rglob("*.safetensors")] == []
    )
    shutil.rmtree(road / "new", ignore_errors=True)
