"""Runs on every kind of label: what is learnt, saved, resumed and opened elsewhere."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

from own_runs import KINDS, own_data
from sqzb.data.metrics.calibration import nll, sigmoid
from sqzb.data.own import KindName, OwnData
from sqzb.errors import UserError
from sqzb.evaluate import evaluate_task
from sqzb.finetuning import calibration
from sqzb.finetuning.evaluation import decide
from sqzb.finetuning.finetuned import open_finetuned
from sqzb.finetuning.job import finetune
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.open import open_classifier
from sqzb.predict import write_predictions
from sqzb.recipe import FinetuneRecipe
from sqzb.report.runs import RESUMED, read_runs
from sqzb.tokenizer import train_tokenizer
from sqzb.training.run_folder import EVALUATION

SCORES = {"classes": 0.7, "number": 0.7, "labels": 0.7, "tokens": 0.9}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a b c d e f g h"] * 3, 100, lowercase=True)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    torch.manual_seed(1)
    config = SqueezeBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    folder = tmp_path_factory.mktemp("pretrained")
    SqueezeBertForPreTraining(config).save_pretrained(folder, tokenizer)
    return folder


def recipe(pretrained: Path, output: Path, **changes: object) -> FinetuneRecipe:
    settings: dict[str, object] = {
        "model": str(pretrained),
        "output": str(output),
        "epochs": 8,
        "batch": 8,
        "lr": 1e-2,
        "max_length": 16,
        "log_every": 1,
        "keep_checkpoints": 9,
    }
    return FinetuneRecipe.model_validate(settings | changes)


@pytest.fixture(scope="module", autouse=True)
def few_are_enough() -> Iterator[None]:
    """Let a temperature be fitted on the 48 validation examples of these tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibration, "LEAST_EXAMPLES", 40)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> dict[str, Path]:
    """By kind, a finished run with the best model. Its data lies beside it."""
    folders: dict[str, Path] = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        run = recipe(pretrained, folder / "run", keep_best=True)
        folders[kind] = finetune(run, own_data(folder, kind))
    return folders


def data_of(run: Path, kind: KindName) -> OwnData:
    return own_data(run.parent, kind)


def lines(run: Path) -> list[dict[str, Any]]:
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def config_of(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "final/config.json").read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_learnt(runs: dict[str, Path], kind: KindName) -> None:
    logged = lines(runs[kind])
    losses = [line["loss"] for line in logged if "loss" in line]
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])
    assert logged[-1]["validation_score"] > SCORES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_model_has_the_figures_that_were_logged(
    runs: dict[str, Path], kind: KindName
) -> None:
    """Numbers in their unit, several labels by their thresholds, with the ECE of classes."""
    figures = evaluate_task(str(runs[kind]), data_of(runs[kind], kind), "validation")
    logged = lines(runs[kind])[-1]
    measured = [name for name in logged if name.startswith("validation_")]
    assert ("validation_ece" in measured) == (kind == "classes")
    for name in measured:
        assert figures[name.removeprefix("validation_")] == pytest.approx(logged[name], rel=1e-4)
    [record] = read_runs([str(runs[kind])])
    assert record.state == "finished"
    assert record.final_figures == {
        name.removeprefix("validation_"): logged[name] for name in measured
    }
    written = json.loads((runs[kind] / EVALUATION).read_text(encoding="utf-8"))
    assert written["labels"] == figures["labels"]
    for split, details in written["splits"].items():
        assert details == {key: figures["splits"][split][key] for key in details}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_same_run(
    runs: dict[str, Path], pretrained: Path, kind: KindName, tmp_path: Path
) -> None:
    """From its sixth epoch on, with the same best model, figures and calibration."""
    copy = tmp_path / "run"
    shutil.copytree(runs[kind], copy)
    shutil.rmtree(copy / "final")
    for step in (140, 160):
        shutil.rmtree(copy / f"checkpoints/step-{step:07d}")
    again = recipe(pretrained, copy, keep_best=True)
    finetune(again, data_of(runs[kind], kind), resume="auto")
    ours, due = (load_file(run / "final/model.safetensors") for run in (copy, runs[kind]))
    assert ours.keys() == due.keys()
    assert all(torch.equal(tensor, due[name]) for name, tensor in ours.items())
    assert config_of(copy) == config_of(runs[kind])
    assert [event.kind for event in read_runs([str(copy)])[0].events] == [RESUMED]
    for line, expected in zip(lines(copy), lines(runs[kind]), strict=True):
        exact = [key for key in expected if key.startswith(("step", "of_step", "loss", "valid"))]
        assert [line[key] for key in exact] == [expected[key] for key in exact]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gets_the_predictions_that_are_measured(
    runs: dict[str, Path], kind: KindName, tmp_path: Path
) -> None:
    """The run remembers the columns; the file has the names of the added columns already."""
    data = data_of(runs[kind], kind)
    finetuned = open_finetuned(runs[kind], data)
    encoded = finetuned.encode(data.read("validation").examples)
    due = decide(data.kind, finetuned.logits(encoded), finetuned.thresholds)

    given, output = runs[kind].parent / f"{kind}_1.jsonl", tmp_path / "out.jsonl"
    write_predictions(str(runs[kind]), [str(given)], output, [], "processes")
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    before = [json.loads(line) for line in given.read_text(encoding="utf-8").splitlines()]
    assert [{name: row[name] for name in before[0]} for row in rows] == before
    names = data.kind.names
    if kind == "classes":
        assert [row["predicted_label"] for row in rows] == [names[index] for index in due]
    elif kind == "number":
        np.testing.assert_allclose([row["score"] for row in rows], due, rtol=1e-5)
    elif kind == "labels":
        held = [[name in row["labels"] for name in names] for row in rows]
        np.testing.assert_array_equal(held, due)
    else:
        tags = [tag for row in rows for tag in row["predicted_tags"]]
        assert tags == [names[index] for index in due]


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_gives_transformers_the_same_numbers(
    runs: dict[str, Path], kind: KindName
) -> None:
    data = data_of(runs[kind], kind)
    examples = data.read("validation").examples
    finetuned = open_finetuned(runs[kind], data)
    encoded = finetuned.encode(examples)
    auto = "AutoModelForTokenClassification" if kind == "tokens" else ""
    opened = getattr(transformers, auto or "AutoModelForSequenceClassification")
    model = opened.from_pretrained(runs[kind] / "final").eval()
    due = finetuned.logits(encoded)
    with torch.no_grad():
        for row in range(8):
            ids = torch.tensor([encoded.ids[row]])
            got = model(ids, token_type_ids=torch.tensor([encoded.types[row]])).logits[0].numpy()
            if encoded.words is None:
                np.testing.assert_allclose(got, due[row], rtol=1e-5, atol=1e-4)
            else:
                words = encoded.words.of(row)
                got = got[encoded.words.places[words]]
                np.testing.assert_allclose(got, due[words], rtol=1e-5, atol=1e-4)
    problem_types = {
        "classes": "single_label_classification",
        "number": "regression",
        "labels": "multi_label_classification",
        "tokens": None,
    }
    assert model.config.problem_type == problem_types[kind]
    assert getattr(model.config, "thresholds", None) == config_of(runs[kind]).get("thresholds")


def test_the_temperature_is_the_best_on_validation(runs: dict[str, Path]) -> None:
    data = data_of(runs["classes"], "classes")
    finetuned = open_finetuned(runs["classes"], data)
    encoded = finetuned.encode(data.read("validation").examples)
    logits = finetuned.logits(encoded)
    fitted = config_of(runs["classes"])["calibration_temperature"]
    if (logits.argmax(1) == encoded.labels).all():
        assert fitted == 1.0
        return
    at_fitted = nll(logits, encoded.labels, fitted).mean()
    for other in (fitted / 1.1, 1.0, fitted * 1.1):
        assert at_fitted <= nll(logits, encoded.labels, other).mean() + 1e-6


def test_thresholds_decide(runs: dict[str, Path]) -> None:
    data = data_of(runs["labels"], "labels")
    finetuned = open_finetuned(runs["labels"], data)
    thresholds = config_of(runs["labels"])["thresholds"]
    assert finetuned.thresholds == thresholds
    assert len(thresholds) == 3
    encoded = finetuned.encode(data.read("validation").examples)
    holds = sigmoid(finetuned.logits(encoded)) >= np.array(thresholds)
    said = evaluate_task(str(runs["labels"]), data_of(runs["labels"], "labels"), "validation")
    assert said["subset_accuracy"] == pytest.approx((holds == encoded.labels).all(1).mean())


def test_a_checkpoint_of_numbers_opens_in_their_unit(runs: dict[str, Path]) -> None:
    """Its weights are on the scale of training, which resuming needs; opening takes it up."""
    run = runs["number"]
    checkpoint = run / "checkpoints/step-0000160"
    stored = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    data = data_of(run, "number")
    assert stored["label_scale"] == [data.kind.mean, data.kind.std]  # type: ignore[union-attr]
    assert "label_scale" not in config_of(run)
    bias = open_classifier(checkpoint).model.state_dict()["classifier.bias"]
    raw = load_file(checkpoint / "model.safetensors")["classifier.bias"]
    assert bias.item() == pytest.approx(raw.item() * stored["label_scale"][1] + data.kind.mean)  # type: ignore[union-attr]
    figures = evaluate_task(str(checkpoint), data, "validation")
    assert figures["mae"] < 100


@pytest.mark.parametrize("kind", ["classes", "labels", "tokens"])
def test_balanced_classes_change_the_loss_only(
    runs: dict[str, Path], pretrained: Path, tmp_path: Path, kind: KindName
) -> None:
    balanced = recipe(pretrained, tmp_path / "run", class_weights="balanced", epochs=1)
    logged = lines(finetune(balanced, data_of(runs[kind], kind)))
    assert logged[0]["loss"] != lines(runs[kind])[0]["loss"]
    tensors = load_file(tmp_path / "run/final/model.safetensors")
    assert tensors.keys() == load_file(runs[kind] / "final/model.safetensors").keys()


def test_numbers_have_no_classes_to_weight(
    runs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    balanced = recipe(pretrained, tmp_path / "run", class_weights="balanced")
    with pytest.raises(UserError, match="are numbers, which have no classes"):
        finetune(balanced, data_of(runs["number"], "number"))


def test_a_run_without_validation_is_refused_at_once(
    runs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    data = replace(data_of(runs["classes"], "classes"), validation_splits=())
    with pytest.raises(UserError, match="has no validation examples, so nothing"):
        finetune(recipe(pretrained, tmp_path / "run"), data)


def test_an_error_as_score_counts_negatively_and_says_so(
    runs: dict[str, Path], pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = replace(data_of(runs["number"], "number"), score_metrics=("mae",))
    run = finetune(recipe(pretrained, tmp_path / "run", keep_best=True, epochs=3), data)
    scores = [line["validation_score"] for line in lines(run) if "validation_score" in line]
    errors = [line["validation_mae"] for line in lines(run) if "validation_mae" in line]
    assert scores == [-error for error in errors]
    assert scores[-1] == max(scores)
    assert "score (minus mae: less is better)" in capsys.readouterr().out


# Teachers.


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_of_every_kind_teaches(
    runs: dict[str, Path], pretrained: Path, tmp_path: Path, kind: KindName
) -> None:
    distillation = {"teacher": str(runs[kind]), "cache": str(tmp_path / "cache"), "alpha": 1.0}
    taught = recipe(pretrained, tmp_path / "run", distillation=distillation, epochs=3)
    logged = lines(finetune(taught, data_of(runs[kind], kind)))
    losses = [line["loss"] for line in logged if "loss" in line]
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
    # On the scale of training: squared errors of numbers around 1,000 would be a million.
    assert losses[0] < 20


def test_unlabelled_texts_get_labels_of_every_kind_but_tags(
    runs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a b c\nd e f\nb b\n", encoding="utf-8")
    for kind in KINDS:
        distillation = {"teacher": str(runs[kind]), "cache": str(tmp_path / kind)}
        changes: dict[str, Any] = {"distillation": distillation | {"unlabelled": str(texts)}}
        taught = recipe(pretrained, tmp_path / f"run_{kind}", epochs=1, **changes)
        data = data_of(runs[kind], kind)
        if kind == "tokens":
            with pytest.raises(UserError, match="tags belong to words"):
                finetune(taught, data)
        else:
            assert lines(finetune(taught, data))[-1]["step"] == 21


def test_a_model_of_another_kind_is_no_teacher(
    runs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    distillation = {"teacher": str(runs["tokens"]), "cache": str(tmp_path / "cache")}
    taught = recipe(pretrained, tmp_path / "run", distillation=distillation)
    with pytest.raises(UserError, match="gives a tag to each word, and classes_0 gives one label"):
        finetune(taught, data_of(runs["classes"], "classes"))
