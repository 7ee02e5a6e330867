"""eval says of a finetuned model what scikit-learn and torch say, by task, half and example."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score, confusion_matrix
from tokenizers import Tokenizer

from sqzb import console
from sqzb.errors import UserError
from sqzb.evaluate import corpus_of, evaluate_task
from sqzb.finetuning.finetuned import data_for
from sqzb.glue.tasks import Task, task
from sqzb.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from sqzb.recipe import PretrainRecipe, dump_recipe
from sqzb.tokenizer import train_tokenizer

MNLI, STSB, AX = task("mnli"), task("stsb"), task("ax")
WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
BERT = ("contradiction", "entailment", "neutral")  # another order than GLUE's
N = 40


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([" ".join(WORDS)] * 3, 100, lowercase=True)


def save(
    folder: Path, tokenizer: Tokenizer, labels: tuple[str, ...]
) -> SqueezeBertForSequenceClassification:
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=16,
        max_position_embeddings=32,
        initializer_range=2.0,
        id2label=dict(enumerate(labels)),
    )
    model = SqueezeBertForSequenceClassification(config)
    model.save_pretrained(folder, tokenizer)
    return model.eval()


def sentences(n: int) -> tuple[str, str]:
    draw = np.random.default_rng(n)
    return " ".join(draw.choice(WORDS, 5)), " ".join(draw.choice(WORDS, 3))


def write(glue: Path, chosen: Task, split: str, labels: list[str] | None) -> None:
    folder = glue / chosen.folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    header = [chosen.file_index, *chosen.file_columns, *([chosen.file_label] if labels else [])]
    rows = [[str(2 * n), *sentences(n), *([labels[n]] if labels else [])] for n in range(N)]
    (folder / chosen.files[split]).write_text(
        "".join("\t".join(row) + "\n" for row in (header, *rows)), "utf-8"
    )


def evaluated(folder: Path, task_name: str, split: str) -> dict[str, Any]:
    """What eval finds of the model in `folder`, with GLUE's files beside it."""
    model = str(folder / "model")
    return evaluate_task(model, data_for(model, task_name, folder), split)


def logits_of(model: SqueezeBertForSequenceClassification, tokenizer: Tokenizer) -> torch.Tensor:
    found = []
    for n in range(N):
        ids = tokenizer.encode(*sentences(n))
        found.append(
            model(torch.tensor([ids.ids]), None, torch.tensor([ids.type_ids]))
            .logits[0]
            .detach()
            .double()
        )
    return torch.stack(found)


def test_mnli_by_half_label_and_mistake(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """With a model whose labels stand in BERT's order."""
    model = save(tmp_path / "model", tokenizer, BERT)
    draw = np.random.default_rng(0)
    due = {half: draw.choice(MNLI.labels, N).tolist() for half in ("matched", "mismatched")}
    for half, labels in due.items():
        write(tmp_path, MNLI, f"validation_{half}", labels)
    found = evaluated(tmp_path, "mnli", "validation")
    logits = logits_of(model, tokenizer)
    said = [BERT[number] for number in logits.argmax(1)]
    assert len(set(said)) == 3 and found["labels"] == list(MNLI.labels)
    assert found["score"] == (found["matched_accuracy"] + found["mismatched_accuracy"]) / 2
    for half, labels in due.items():
        assert found[f"{half}_accuracy"] == accuracy_score(labels, said)
        part = found["splits"][f"validation_{half}"]
        assert part["examples"] == N
        assert part["confusion"] == confusion_matrix(labels, said, labels=MNLI.labels).tolist()
        wrong = {
            n: loss for n, loss in enumerate(cross_entropy(logits, labels)) if labels[n] != said[n]
        }
        worst = sorted(wrong, key=lambda n: -wrong[n])[:10]
        assert [mistake["row"] for mistake in part["mistakes"]] == worst
        for n, mistake in zip(worst, part["mistakes"], strict=True):
            assert (mistake["text_a"], mistake["text_b"]) == sentences(n)
            assert (mistake["label"], mistake["prediction"]) == (labels[n], said[n])
            assert mistake["loss"] == pytest.approx(wrong[n], rel=1e-4)


def cross_entropy(logits: torch.Tensor, labels: list[str]) -> list[float]:
    numbers = torch.tensor([BERT.index(label) for label in labels])
    losses: list[float] = torch.nn.functional.cross_entropy(
        logits, numbers, reduction="none"
    ).tolist()
    return losses


def test_a_number_has_mistakes_and_no_confusion(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = save(tmp_path / "model", tokenizer, ("score",))
    labels = np.random.default_rng(0).uniform(0, 5, N).round(3)
    write(tmp_path, STSB, "validation", labels.astype(str).tolist())
    part = evaluated(tmp_path, "stsb", "validation")["splits"]["validation"]
    said = logits_of(model, tokenizer)[:, 0].numpy()
    assert "confusion" not in part
    assert [mistake["row"] for mistake in part["mistakes"]] == np.argsort(-np.abs(said - labels))[
        :10
    ].tolist()
    assert all(
        math.isclose(m["prediction"], said[m["row"]], rel_tol=1e-4, abs_tol=1e-5)
        for m in part["mistakes"]
    )


@pytest.mark.parametrize("chosen", [MNLI, AX], ids=lambda chosen: chosen.name)
def test_a_test_split_has_predictions_by_index(
    chosen: Task, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """Also of AX, by a model of MNLI."""
    model = save(tmp_path / "model", tokenizer, BERT)
    for split in chosen.test_splits:
        write(tmp_path, chosen, split, None)
    found = evaluated(tmp_path, chosen.name, "test")
    said = {
        str(2 * n): BERT[number] for n, number in enumerate(logits_of(model, tokenizer).argmax(1))
    }
    assert found["splits"] == {
        split: {"examples": N, "predictions": said} for split in chosen.test_splits
    }
    assert "score" not in found


def test_ax_has_no_validation_split(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save(tmp_path / "model", tokenizer, BERT)
    with pytest.raises(UserError, match=r"no validation split\. Give --split test"):
        evaluated(tmp_path, "ax", "validation")


def test_the_terminal_shows_texts_as_they_are_and_cut(
    tmp_path: Path,
    tokenizer: Tokenizer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "out", Console(width=200))
    save(tmp_path / "model", tokenizer, task("sst2").labels)
    rows = [f"[bold]{'x' * 90} end\t{n % 2}" for n in range(4)]
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "dev.tsv").write_text(
        "\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8"
    )
    found: dict[str, Any] = evaluate_task(
        str(tmp_path / "model"), data_for(str(tmp_path / "model"), "sst2", tmp_path), "validation"
    )
    mistakes = found["splits"]["validation"]["mistakes"]
    assert len(mistakes) == 2 and mistakes[0]["text_a"] == f"[bold]{'x' * 90} end"
    said = capsys.readouterr()
    assert f"[bold]{'x' * 54}..." in said.out and "x" * 55 not in said.out
    assert "sst2's validation split has 4 examples" in said.err


def test_a_model_that_is_not_there_is_named_before_its_task_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        data_for(str(tmp_path / "nowhere"), None, None)


def test_a_pretrained_run_without_a_task_is_answered_with_the_command_for_its_corpus(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    save(tmp_path / "run" / "final", tokenizer, ("a", "b"))
    recipe = PretrainRecipe(corpus="data/mine", start_from="model")
    (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    for model in (tmp_path / "run", tmp_path / "run" / "final"):
        with pytest.raises(UserError, match=f"sqzb eval {model} --corpus data/mine"):
            data_for(str(model), None, None)
    (tmp_path / "run" / "recipe.yaml").unlink()
    with pytest.raises(UserError, match="Give --task"):
        data_for(str(tmp_path / "run"), None, None)


def test_a_pretraining_run_knows_its_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it has moved together with the run, and from another working folder."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    run = project / "runs" / "one"
    (run / "final").mkdir(parents=True)
    recipe = PretrainRecipe(corpus="data/corpus", output="runs/one", start_from="x")
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    (project / "data" / "corpus").mkdir(parents=True)
    (project / "data" / "corpus" / "manifest.json").write_text("{}")
    monkeypatch.chdir(project)
    assert corpus_of("runs/one") == corpus_of("runs/one/final") == Path("data/corpus")
    project.rename(elsewhere)
    monkeypatch.chdir(tmp_path)
    found = corpus_of(str(elsewhere / "runs" / "one"))
    assert found is not None and found.samefile(elsewhere / "data" / "corpus")

    (elsewhere / "data").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"the corpus data/corpus, which is not there.*--corpus"):
        corpus_of("elsewhere/runs/one")
    assert corpus_of("squeezebert/squeezebert-uncased") is None
