"""A finetuned model in Python predicts what transformers does from the same folder."""

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
from examples import scaled
from saved_runs import remember, save_run
from sqzb.data.dataset import Text
from sqzb.errors import UserError
from sqzb.glue.tasks import TASKS
from sqzb.using import (
    ClassPrediction,
    FinetunedModel,
    LabelsPrediction,
    NumberPrediction,
    Prediction,
    TokensPrediction,
    load,
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
    " \n",
    "music " * 20,
]


@pytest.fixture(scope="module")
def model(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetunedModel:
    """A classifier of single texts, which are cut at 16 tokens."""
    run = save_run(tmp_path_factory.mktemp("run"), vocabulary, task="cola", max_length=16)
    return load(run)


def numbers(prediction: Prediction | None) -> list[float]:
    if prediction is None:
        return []
    if isinstance(prediction, NumberPrediction):
        return [prediction.value]
    assert not isinstance(prediction, TokensPrediction)
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


def test_empty_texts_have_no_prediction(vocabulary: Path, tmp_path: Path) -> None:
    """A pair with one text has one; the rule is that of `sqzb predict --file`."""
    model = load(save_run(tmp_path, vocabulary, task="mrpc"))
    both, second, neither = model.predict([("river", "water"), ("", "water"), ("", " ")])
    assert both is not None and second is not None and neither is None
    with pytest.raises(UserError, match=r"texts\[0\] has one text"):
        model.predict([""])


def test_a_calibrated_model_divides_its_logits(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path, vocabulary, labels=("a", "b", "c"), calibration_temperature=2.5)
    (found,) = load(run).predict(["river"])
    wanted = (of_transformers(run, "river") / 2.5).softmax(-1)
    torch.testing.assert_close(torch.tensor(numbers(found)), wanted, atol=1e-5, rtol=1e-4)


def test_labels_hold_from_their_thresholds_on(vocabulary: Path, tmp_path: Path) -> None:
    """The pipeline of transformers has the same probabilities, and no thresholds."""
    transformers = pytest.importorskip("transformers")
    names = ("red", "green", "blue")
    run = save_run(
        tmp_path,
        vocabulary,
        labels=names,
        problem_type="multi_label_classification",
        thresholds=[0.1, 0.5, 0.9],
    )
    pipeline = transformers.pipeline("text-classification", str(run / "final"), top_k=None)
    texts = ["river", "Winter light, and a garden", "the history"]
    for text, found in zip(texts, load(run).predict(texts), strict=True):
        assert isinstance(found, LabelsPrediction)
        theirs = {entry["label"]: entry["score"] for entry in pipeline([text])[0]}
        assert found.probabilities == pytest.approx(theirs, abs=1e-5)
        least = dict(zip(names, (0.1, 0.5, 0.9), strict=True))
        due = tuple(name for name in names if found.probabilities[name] >= least[name])
        assert found.labels == due


TAGS = ("O", "B-PER", "I-PER", "B-LOC")


def test_tags_are_those_of_transformers_on_the_first_piece(
    vocabulary: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    run = save_run(tmp_path, vocabulary, labels=TAGS, tokens=True)
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(run / "final").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "final")
    words = ["Water", "unseenword", "of", "the", "bridge", "."]
    (found,) = load(run).predict([words])
    assert isinstance(found, TokensPrediction) and found.words == tuple(words)
    inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        best = theirs(**inputs).logits[0].argmax(-1).tolist()
    places = inputs.word_ids()
    assert found.tags == tuple(TAGS[best[places.index(word)]] for word in range(len(words)))


@given(st.lists(st.sampled_from(["Water", "of", "bridge", "São", "can't"]), max_size=6))
@settings(max_examples=scaled(7))
def test_entities_are_spans_of_the_given_text(tags_model: FinetunedModel, words: list[str]) -> None:
    text = " ".join(words)
    as_text, as_words = tags_model.predict([f"  {text}!", words])
    for found, given_text in ((as_text, f"  {text}!"), (as_words, text)):
        if not given_text:
            assert found is None
            continue
        assert isinstance(found, TokensPrediction) and len(found.words) == len(found.tags)
        for entity in found.entities:
            assert given_text[entity.start : entity.end] == entity.text != ""
        begins = [tag for tag in found.tags if tag.startswith("B-")]
        assert [entity.label for entity in found.entities] == [tag[2:] for tag in begins]


@pytest.fixture(scope="module")
def tags_model(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetunedModel:
    return load(save_run(tmp_path_factory.mktemp("tags"), vocabulary, labels=TAGS, tokens=True))


@pytest.mark.filterwarnings("ignore:.*tokens")
@given(st.lists(st.sampled_from(TEXTS), max_size=12), st.integers(1, 5))
@settings(max_examples=scaled(7))
def test_any_order_and_any_window_predict_as_one_by_one(
    model: FinetunedModel, texts: list[Text], window: int
) -> None:
    alone = {str(text): numbers(model.predict([text])[0]) for text in set(texts)}
    assert all((numbers == []) == (not text.strip()) for text, numbers in alone.items())
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
    run = save_run(tmp_path, vocabulary, labels=("a", "b"))
    assert load(run).columns == ()
    remember(run, "premise", "hypothesis")
    for path in (run, run / "final"):
        model = load(path)
        assert model.columns == ("premise", "hypothesis") and model.texts == 2
    (run / "data.json").write_text("{}")
    with pytest.raises(UserError, match=r"data\.json cannot be read"):
        load(run)


def test_importing_sqzb_does_not_import_torch() -> None:
    code = "import sys, sqzb; assert callable(sqzb.load); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_load_is_at_the_top_of_the_package(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path, vocabulary, task="stsb")
    (found,) = sqzb.load(str(run)).predict([("river", "water")])
    assert isinstance(found, NumberPrediction)
