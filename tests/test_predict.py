"""A quick look at a model: what transformers says of the same folder and the same text."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saved_runs import save_run
from sqzb.data.lines import read_lines
from sqzb.errors import UserError
from sqzb.glue.tasks import TASKS
from sqzb.predict import Prediction, predict, shown

PAIRS = [
    ("Water of the river.", "A stone bridge"),
    ("winter", "Winter light, and a garden"),
    ("letter", "the history"),
]
Save = Callable[..., Path]


@pytest.fixture
def save(vocabulary: Path, tmp_path: Path) -> Save:
    """Write a run of random weights: a classifier for a task's labels, or a pretrained model."""

    def write(task: str | None = None, recipe: bool = True, max_length: int = 128) -> Path:
        run = save_run(
            tmp_path / (task or "pretrained"), vocabulary, task=task, max_length=max_length
        )
        if not recipe:
            (run / "recipe.yaml").unlink()
        return run

    return write


def of_transformers(run: Path, kind: str, *texts: str) -> torch.Tensor:
    """Logits of the same folder."""
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, kind).from_pretrained(run / "final").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "final")
    with torch.no_grad():
        logits: torch.Tensor = model(
            **tokenizer(*texts, return_tensors="pt", truncation=True)
        ).logits[0]
    return logits


@pytest.mark.parametrize("task", ["mrpc", "mnli", "stsb"])
def test_a_pairs_prediction_is_that_of_transformers(save: Save, task: str) -> None:
    run = save(task)
    for pair, found in zip(PAIRS, predict(str(run), PAIRS), strict=True):
        logits = of_transformers(run, "AutoModelForSequenceClassification", *pair)
        assert found is not None and list(found) == list(TASKS[task].labels or ["score"])
        wanted = logits.softmax(-1) if TASKS[task].labels else logits
        torch.testing.assert_close(torch.tensor(list(found.values())), wanted, atol=1e-5, rtol=1e-4)


def test_a_single_sentence_and_one_that_is_too_long(save: Save) -> None:
    run = save("cola")
    texts = ["the letter", "water and winter " * 40]
    for text, found in zip(texts, predict(str(run), [(text,) for text in texts]), strict=True):
        wanted = of_transformers(run, "AutoModelForSequenceClassification", text).softmax(-1)
        torch.testing.assert_close(
            torch.tensor(list((found or {}).values())), wanted, atol=1e-5, rtol=1e-4
        )


def test_a_text_is_cut_as_in_training(save: Save) -> None:
    run = save("cola", max_length=8)
    long, cut, longer = predict(str(run), [("water " * 20,), ("water " * 6,), ("water " * 5,)])
    assert long == cut != longer


def test_lines_and_predictions_keep_step(save: Save, tmp_path: Path) -> None:
    """Empty lines stay empty ones; the others do not depend on what is beside them."""
    file = tmp_path / "lines.txt"
    file.write_bytes(
        "\ufeff".encode()
        + b"\r\n"
        + "".join(f"{a}\t{b}\r\n \r\n" for a, b in PAIRS).encode()
        + b"one\ttwo"
    )
    rows = read_lines(file)
    assert rows == [(), PAIRS[0], (), PAIRS[1], (), PAIRS[2], (), ("one", "two")]
    run = str(save("mrpc"))
    found = predict(run, rows)
    assert [prediction is None for prediction in found] == [not row for row in rows]
    for row, prediction in zip(rows, found, strict=True):
        assert prediction is None or prediction == pytest.approx(predict(run, [row])[0], abs=1e-6)
    assert predict(run, [(), ()]) == [None, None] and predict(run, []) == []


def test_the_line_that_is_shown() -> None:
    pair: Prediction = {"not_equivalent": 0.069, "equivalent": 0.931}
    assert shown(pair) == "equivalent\tnot_equivalent 6.9%\tequivalent 93.1%"
    assert shown({"score": 3.25}) == "3.2500"
    assert shown(None) == ""


def test_what_a_model_cannot_do_is_told(save: Save, tmp_path: Path) -> None:
    pretrained, mrpc, cola = (str(save(task)) for task in (None, "mrpc", "cola"))
    (tmp_path / "one.txt").write_text("a\tb\n\nalone\n")
    one = tmp_path / "one.txt"
    for call, said in (
        (lambda: predict(pretrained, [("a",)]), "has no classifier"),
        (lambda: predict(mrpc, [("a",)]), "mrpc takes two sentences, and here is one sentence"),
        (lambda: predict(cola, [("a", "b")]), "cola takes one sentence, and here is two sentences"),
        (
            lambda: predict(mrpc, read_lines(one), one),
            re.escape(f"{one}:3: mrpc takes two sentences"),
        ),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_a_model_of_an_unknown_task_takes_what_it_is_given(save: Save) -> None:
    run = str(save("mrpc", recipe=False))
    assert all(predict(run, [("a",), ("a", "b")]))
