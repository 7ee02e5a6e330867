"""A finetuned model in Python predicts what transformers does from the same folder."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sqzb
from saved_runs import save_run
from sqzb.data.dataset import Text
from sqzb.errors import UserError
from sqzb.glue.tasks import TASKS
from sqzb.using import (
    ClassPrediction,
    FinetunedModel,
    NumberPrediction,
    Prediction,
    load,
    remembered_texts,
    windows,
)

PAIRS: list[Text] = [
    ("Water of the river.", "A stone bridge"),
    ("winter", "Winter light, and a garden"),
    ("letter", "the history"),
]
TEXTS: list[Text] = [
    "the letter",
    "Water, and a stone bridge over it.",
    "garden",
    "",
    "music " * 20,
]


@pytest.fixture(scope="module")
def model(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetunedModel:
    """A classifier of single texts, which are cut at 16 tokens."""
    run = save_run(tmp_path_factory.mktemp("run"), vocabulary, task="cola", max_length=16)
    return load(run)


def numbers(prediction: Prediction) -> list[float]:
    if isinstance(prediction, NumberPrediction):
        return [prediction.value]
    return list(prediction.probabilities.values())


def of_transformers(run: Path, *texts: str) -> torch.Tensor:
    """Logits of the same folder."""
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoModelForSequenceClassification
    theirs = auto.from_pretrained(run / "final").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "final")
    with torch.no_grad():
        logits: torch.Tensor = theirs(**tokenizer(*texts, return_tensors="pt")).logits[0]
    return logits


@pytest.mark.parametrize("task", ["mrpc", "mnli", "stsb"])
def test_a_pairs_prediction_is_that_of_transformers(
    task: str, vocabulary: Path, tmp_path: Path
) -> None:
    run = save_run(tmp_path, vocabulary, task=task)
    for pair, found in zip(PAIRS, load(run).predict(PAIRS), strict=True):
        logits = of_transformers(run, *pair)
        wanted = logits.softmax(-1) if TASKS[task].labels else logits
        torch.testing.assert_close(torch.tensor(numbers(found)), wanted, atol=1e-5, rtol=1e-4)
        if isinstance(found, ClassPrediction):
            assert tuple(found.probabilities) == TASKS[task].labels
            assert found.label == TASKS[task].labels[int(wanted.argmax())]
            assert found.probability == max(found.probabilities.values())


@pytest.mark.filterwarnings("ignore:.*tokens")
@given(st.lists(st.sampled_from(TEXTS), max_size=12), st.integers(1, 5))
@settings(max_examples=15)
def test_any_order_and_any_window_predict_as_one_by_one(
    model: FinetunedModel, texts: list[Text], window: int
) -> None:
    alone = {str(text): numbers(model.predict([text])[0]) for text in set(texts)}
    found = list(model.stream(iter(texts), window))
    assert [numbers(prediction) for prediction in found] == [
        pytest.approx(alone[str(text)], abs=1e-6) for text in texts
    ]


@given(st.lists(st.integers(), max_size=300), st.integers(1, 100))
def test_windows_hold_all_items_in_order(items: list[int], largest: int) -> None:
    parts = list(windows(items, largest))
    assert [item for part in parts for item in part] == items
    assert all(1 <= len(part) <= largest for part in parts)


@pytest.mark.parametrize("window", [1, 8, 40])
def test_texts_are_read_at_most_a_window_ahead(model: FinetunedModel, window: int) -> None:
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for _ in range(70):
            read += 1
            yield "water"

    for given_back, _ in enumerate(model.stream(texts(), window)):
        assert read - given_back <= window
    assert read == 70


def test_texts_that_are_cut_are_counted(model: FinetunedModel) -> None:
    """16 tokens have room for 14 words between [CLS] and [SEP]."""
    fits, cut = "water " * 14, "water " * 15
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict([fits])
    with pytest.warns(UserWarning, match="2 of 4 texts have more than 16 tokens"):
        found = model.predict([fits, cut, cut + "garden", "river"])
    assert found[0] == found[1] == found[2] != found[3]


def test_what_cannot_be_predicted_is_told(
    model: FinetunedModel, vocabulary: Path, tmp_path: Path
) -> None:
    pairs = load(save_run(tmp_path / "mrpc", vocabulary, task="mrpc"))
    pretrained = save_run(tmp_path / "pretrained", vocabulary)
    for call, said in (
        (lambda: model.predict("a text"), r"model.predict\(\[text\]\)"),
        (lambda: model.predict(["a", None]), r"texts\[1\] is None"),  # type: ignore[list-item]
        (lambda: model.predict(["a", 3.5]), r"texts\[1\] is 3.5"),  # type: ignore[list-item]
        (lambda: model.predict([("a", "b")]), r"texts\[0\] has two texts, and .* needs one text"),
        (lambda: pairs.predict(["a"]), r"texts\[0\] has one text, and .* needs two texts"),
        (lambda: load(pretrained), "has no classifier"),
        (lambda: load(tmp_path / "nowhere"), "There is no folder"),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_a_model_of_an_unknown_task_takes_single_texts_and_pairs(
    vocabulary: Path, tmp_path: Path
) -> None:
    model = load(save_run(tmp_path, vocabulary, labels=("a", "b")))
    assert model.texts is None and model.max_length == 32
    assert len(model.predict(["one", ("one", "two")])) == 2
    assert model.predict([]) == []


def test_a_run_remembers_its_columns_of_texts(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path, vocabulary, task="mrpc")
    assert remembered_texts(run) == ()
    (run / "data.json").write_text(json.dumps({"text": ["premise", "hypothesis"]}))
    assert remembered_texts(run) == remembered_texts(run / "final") == ("premise", "hypothesis")
    (run / "data.json").write_text("{}")
    with pytest.raises(UserError, match=r"data.json cannot be read"):
        remembered_texts(run)


def test_importing_sqzb_does_not_import_torch() -> None:
    code = "import sys, sqzb; assert callable(sqzb.load); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_load_is_at_the_top_of_the_package(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path, vocabulary, task="stsb")
    (found,) = sqzb.load(str(run)).predict([("river", "water")])
    assert isinstance(found, NumberPrediction)
