"""A submission is made from the best run of each task, and is what these models predict."""

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from sqzb.errors import UserError
from sqzb.finetuning.submit import submit
from sqzb.glue.data import open_task
from sqzb.glue.tasks import TASKS, Task
from sqzb.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from sqzb.recipe import FinetuneRecipe, dump_recipe
from sqzb.tokenizer import train_tokenizer

N = 6  # examples in a test split
WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
Finish = Callable[[Path, Task, float], Path]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([" ".join(WORDS)] * 3, 100, lowercase=True)


@pytest.fixture(autouse=True)
def small_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in TASKS.values():
        for split in task.test_splits:
            monkeypatch.setitem(task.counts, split, N)


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """GLUE's test files, each with N examples."""
    for task in TASKS.values():
        folder = tmp_path / "glue" / task.folders[0]
        folder.mkdir(parents=True)
        for split in task.test_splits:
            rows = ["\t".join([task.file_index, *task.file_columns])]
            rows += ["\t".join([str(n), *texts(task, n)]) for n in range(N)]
            (folder / task.files[split]).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "glue"


def texts(task: Task, n: int) -> list[str]:
    return [" ".join(WORDS[n + place : n + place + 2]) for place in range(len(task.file_columns))]


@pytest.fixture
def finish(tokenizer: Tokenizer) -> Finish:
    """A run's folder as it is when all is done, with random weights; its labels stand in the
    reverse order.
    """

    def make(folder: Path, task: Task, score: float) -> Path:
        config = SqueezeBertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=16,
            max_position_embeddings=32,
            initializer_range=2.0,
            id2label=dict(enumerate(reversed(task.labels))) or {0: "score"},
        )
        SqueezeBertForSequenceClassification(config).save_pretrained(folder / "final", tokenizer)
        (folder / "recipe.yaml").write_text(
            dump_recipe(FinetuneRecipe(task=task.name, max_length=16))
        )
        lines = [
            {"step": 1, "validation_score": 0.99},
            {"step": 2, "loss": 1},
            {"step": 2, "validation_score": score},
        ]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return folder

    return make


@pytest.fixture
def sweep(tmp_path: Path, finish: Finish) -> Path:
    """Two runs of each task, of which the second is the better one, runs that are not
    finished, and other folders.
    """
    torch.manual_seed(0)
    for task in TASKS.values():
        if not task.model_of:
            for name, score in (("1", 0.5), ("2", 0.75), ("3", 0.25)):
                finish(tmp_path / "sweep" / task.name / name, task, score)
    shutil.rmtree(tmp_path / "sweep" / "rte" / "1" / "final")
    extended = finish(tmp_path / "sweep" / "cola" / "4", TASKS["cola"], 0.99)
    with (extended / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "loss": 1}\n')
    (tmp_path / "sweep" / "mnli" / "checkpoints").mkdir()
    return tmp_path / "sweep"


def test_the_zip_has_what_the_best_model_of_each_task_says(
    sweep: Path, glue: Path, tokenizer: Tokenizer
) -> None:
    target = sweep / "glue.zip"
    taken = submit([str(sweep)], target, partial(open_task, folder=glue))["runs"]
    best = {name: sweep / name / "2" for name, task in TASKS.items() if not task.model_of}
    assert taken == {
        name: {"path": str(run), "validation_score": 0.75} for name, run in best.items()
    }
    given = set()
    with zipfile.ZipFile(target) as archive:
        for task in TASKS.values():
            model = SqueezeBertForSequenceClassification.from_pretrained(
                best[task.model_of or task.name]
            ).eval()
            for file in task.submission.values():
                rows = list(
                    csv.DictReader(io.StringIO(archive.read(file).decode()), delimiter="\t")
                )
                assert [row["index"] for row in rows] == [str(n) for n in range(N)]
                for n, row in enumerate(rows):
                    first, *second = texts(task, n)
                    ids = tokenizer.encode(first, second[0] if second else None)
                    logits = model(
                        torch.tensor([ids.ids]), None, torch.tensor([ids.type_ids])
                    ).logits[0]
                    if task.regression:
                        assert float(row["prediction"]) == pytest.approx(
                            min(5, max(0, logits.item())), abs=1e-4
                        )
                    else:
                        label = model.config.id2label[int(logits.argmax())]
                        assert row["prediction"] == task.file_labels[task.labels.index(label)]
                        given.add((file, label))
    assert len(given) > 15  # not one label for all


def test_runs_are_given_one_by_one_too(sweep: Path, glue: Path) -> None:
    runs = [str(path) for path in sweep.glob("*/2")]
    submit([str(sweep)], sweep / "a.zip", partial(open_task, folder=glue))
    submit(runs, sweep / "b.zip", partial(open_task, folder=glue))
    assert (sweep / "a.zip").read_bytes() == (sweep / "b.zip").read_bytes()


def test_tasks_without_a_run_are_listed(sweep: Path, glue: Path) -> None:
    shutil.rmtree(sweep / "cola")
    shutil.rmtree(sweep / "mnli")
    with pytest.raises(UserError, match="Missing: cola, mnli, in "):
        submit([str(sweep)], sweep / "glue.zip", partial(open_task, folder=glue))
    assert not (sweep / "glue.zip").exists()


def test_a_cut_test_split_is_refused_before_anything_is_predicted(sweep: Path, glue: Path) -> None:
    (glue / "WNLI" / "test.tsv").write_text(
        "index\tsentence1\tsentence2\n0\ta\tb\n", encoding="utf-8"
    )
    for model in sweep.rglob("model.safetensors"):
        model.unlink()
    with pytest.raises(UserError, match="wnli's test split has 1 example, and GLUE's has 6"):
        submit([str(sweep)], sweep / "glue.zip", partial(open_task, folder=glue))


@pytest.mark.parametrize("name", ["nowhere", "glue"])
def test_a_path_without_runs_is_refused(sweep: Path, glue: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"No finished run found in .*{name}"):
        submit(
            [str(sweep), str(sweep.parent / name)],
            sweep / "glue.zip",
            partial(open_task, folder=glue),
        )
