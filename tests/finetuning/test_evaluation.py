import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy, mse_loss

import fork_server
from examples import scaled
from sqzb.data.dataset import Classes, Example, Kind
from sqzb.errors import UserError
from sqzb.finetuning.encode import Encoded, encode
from sqzb.finetuning.evaluation import evaluate, evaluate_splits, losses, majority
from sqzb.finetuning.labels import confusion, outputs_of, under_chance
from sqzb.finetuning.predict import predict
from sqzb.glue.data import open_task
from sqzb.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from sqzb.model.heads import IGNORED
from sqzb.tokenizer import train_tokenizer

WORDS = [chr(ord("a") + i) for i in range(20)]
MRPC, MNLI, STSB = (open_task(name, None) for name in ("mrpc", "mnli", "stsb"))
MNLI_CLASSES = Classes(MNLI.kind.names)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([" ".join(WORDS)] * 3, 100, lowercase=True)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> SqueezeBertForSequenceClassification:
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return SqueezeBertForSequenceClassification(config)


def examples(texts: Sequence[tuple[list[str], list[str] | None]]) -> list[Example]:
    return [
        Example(" ".join(a), None if b is None else " ".join(b), row % 2, row)
        for row, (a, b) in enumerate(texts)
    ]


text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30)


@given(st.tuples(text, text | st.none()), st.integers(8, 40))
@settings(deadline=None, max_examples=scaled(25))
def test_a_pair_is_cut_from_the_end_of_its_longer_segment(
    tokenizer: Tokenizer, pair: tuple[list[str], list[str] | None], max_length: int
) -> None:
    encoded = encode(examples([pair]), tokenizer, max_length, Classes(("no", "yes")))
    a, b = pair[0], pair[1] or []
    room = max_length - (2 if pair[1] is None else 3)
    n_a = encoded.types[0].count(0) - 2
    n_b = len(encoded.ids[0]) - n_a - (2 if pair[1] is None else 3)
    due = ["[CLS]", *a[:n_a], "[SEP]"] + ([] if pair[1] is None else [*b[:n_b], "[SEP]"])
    assert [tokenizer.id_to_token(number) for number in encoded.ids[0]] == due
    assert n_a + n_b == min(room, len(a) + len(b))
    # What was cut was the longer one, down to the other's length and then by turns.
    assert n_a == len(a) or n_a >= n_b - 1
    assert n_b == len(b) or n_b >= n_a - 1


def test_a_batch_is_padded_to_its_longest_and_filled_up_with_rows_that_do_not_count(
    tokenizer: Tokenizer,
) -> None:
    encoded = encode(
        examples([(WORDS[:3], None), (WORDS[:7], None)]), tokenizer, 32, Classes(("no", "yes"))
    )
    batch = encoded.batch([0, 1, -1])
    assert batch["input_ids"].shape == (3, 9)
    assert batch["attention_mask"].sum(1).tolist() == [5, 9, 0]
    assert batch["labels"].tolist() == [0, 1, IGNORED]


@pytest.mark.parametrize("kind", [MNLI.kind, STSB.kind])
def test_labels_have_the_type_of_the_loss(tokenizer: Tokenizer, kind: Kind) -> None:
    labels = encode(examples([(WORDS[:2], None)]), tokenizer, 16, kind).batch([0])["labels"]
    assert labels.dtype == (torch.float32 if kind == STSB.kind else torch.int64)


def test_predictions_come_in_the_order_of_the_examples(
    tokenizer: Tokenizer, model: SqueezeBertForSequenceClassification
) -> None:
    """However they were batched: each as it would be alone."""
    draw = np.random.default_rng(0)
    texts = [(list(draw.choice(WORDS, draw.integers(1, 25))), None) for _ in range(70)]
    encoded = encode(examples(texts), tokenizer, 32, Classes(("no", "yes")))
    together = predict(model, encoded, Accelerator())
    for row in range(70):
        inputs = {name: tensor for name, tensor in encoded.batch([row]).items() if name != "labels"}
        alone = model.eval()(**inputs).logits[0].detach().numpy()
        np.testing.assert_allclose(together[row], alone, atol=1e-5)


# One of two processes; it writes the logits that it gets, and the number of examples that its model
# has seen.
SHARED = """
import json, os, sys
from pathlib import Path
import numpy as np
from sqzb.finetuning.encode import encode
from sqzb.finetuning.evaluation import evaluate_splits
from sqzb.finetuning.predict import predict_together
from sqzb.data.dataset import Example
from sqzb.glue.data import open_task
from sqzb.model import SqueezeBertForSequenceClassification as Model
from sqzb.tokenizer import load_tokenizer
from sqzb.training.engine import start_accelerator
folder = Path(sys.argv[1])
seen, whole = [], Model.forward
def counted(self, input_ids, *rest, **named):
    seen.append(len(input_ids))
    return whole(self, input_ids, *rest, **named)
Model.forward = counted
accelerator = start_accelerator()
examples = [Example(*row) for row in json.loads((folder / "examples.json").read_text())]
encoded = encode(examples, load_tokenizer(folder), 32, open_task("mnli", None).kind)
model = Model.from_pretrained(folder).to(accelerator.device)
logits = predict_together(model, encoded, accelerator)
own = sum(seen)
splits = {"validation_matched": encoded, "validation_mismatched": encoded.first(40)}
figures = evaluate_splits(model, splits, open_task("mnli", None), accelerator)
rank = os.environ["RANK"]
np.save(folder / f"logits-{rank}.npy", logits)
(folder / f"told-{rank}.json").write_text(json.dumps({"seen": own, "figures": figures}))
"""


def test_two_processes_share_the_predictions_and_have_the_same_figures(
    tokenizer: Tokenizer, model: SqueezeBertForSequenceClassification, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    texts = [(list(draw.choice(WORDS, draw.integers(1, 25))), None) for _ in range(150)]
    model.save_pretrained(tmp_path, tokenizer)
    (tmp_path / "examples.json").write_text(json.dumps(examples(texts)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        fork_server.Popen(
            [sys.executable, "-c", SHARED, str(tmp_path)],
            env=os.environ | world | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]
    assert [process.wait(60) for process in processes] == [0, 0]

    encoded = encode(examples(texts), tokenizer, 32, MNLI_CLASSES)
    alone = predict(model, encoded, Accelerator())
    splits = {"validation_matched": encoded, "validation_mismatched": encoded.first(40)}
    figures = evaluate_splits(model, splits, MNLI, Accelerator())
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in "01"]
    for rank in "01":
        np.testing.assert_allclose(np.load(tmp_path / f"logits-{rank}.npy"), alone, atol=1e-6)
    assert np.array_equal(np.load(tmp_path / "logits-0.npy"), np.load(tmp_path / "logits-1.npy"))
    assert [one["figures"] for one in told] == [figures, figures]
    # Five batches of at most 32, of which the last has 22.
    assert [one["seen"] for one in told] == [86, 64]


def test_score_is_the_mean_of_the_metrics(
    tokenizer: Tokenizer, model: SqueezeBertForSequenceClassification
) -> None:
    encoded = encode(
        examples([(WORDS[: 1 + row], None) for row in range(15)]),
        tokenizer,
        32,
        Classes(("no", "yes")),
    )
    figures = evaluate(model, encoded, MRPC, Accelerator())
    predictions = predict(model, encoded, Accelerator()).argmax(1)
    assert figures["accuracy"] == (predictions == encoded.labels).mean()
    assert figures["score"] == (figures["accuracy"] + figures["f1"]) / 2


def test_both_halves_of_mnli_count_alike(
    tokenizer: Tokenizer, model: SqueezeBertForSequenceClassification
) -> None:
    encoded = encode(
        examples([(WORDS[: 1 + row], None) for row in range(15)]),
        tokenizer,
        32,
        Classes(("no", "yes")),
    )
    other = encode(
        examples([(WORDS[row:], None) for row in range(4)]), tokenizer, 32, Classes(("no", "yes"))
    )
    halves = {"validation_matched": encoded, "validation_mismatched": other}
    alone = [evaluate(model, half, MNLI, Accelerator())["accuracy"] for half in halves.values()]
    assert evaluate_splits(model, halves, MNLI, Accelerator()) == {
        "matched_accuracy": alone[0],
        "mismatched_accuracy": alone[1],
        "score": (alone[0] + alone[1]) / 2,
    }
    assert evaluate_splits(model, {"validation": encoded}, MRPC, Accelerator()) == evaluate(
        model, encoded, MRPC, Accelerator()
    )


def test_majority_gives_the_commonest_label(tokenizer: Tokenizer) -> None:
    rows = [Example("a", "b", label, 0) for label in (1, 1, 1, 0)]
    assert majority(MRPC, encode(rows, tokenizer, 16, Classes(("no", "yes"))))["accuracy"] == 0.75


# Labels by name


def refuse(message: str) -> None:
    pytest.fail(message)


@given(st.permutations(MNLI.kind.names), st.sampled_from([str.lower, str.upper, str.title]))
def test_labels_are_found_by_name_in_any_order_and_case(
    names: list[str], case: Callable[[str], str]
) -> None:
    outputs = outputs_of(
        MNLI, {number: case(name) for number, name in enumerate(names)}, "it", refuse
    )
    assert [names[output] for output in outputs] == list(MNLI.kind.names)


def test_names_that_say_nothing_are_taken_in_order_with_a_word(tokenizer: Tokenizer) -> None:
    said: list[str] = []
    assert outputs_of(MNLI, {n: f"LABEL_{n}" for n in range(3)}, "it", said.append) == [0, 1, 2]
    assert len(said) == 1 and "entailment, neutral, contradiction, in this order" in said[0]


@pytest.mark.parametrize(
    ("name", "labels", "told"),
    [
        (
            "mrpc",
            ("entailment", "neutral", "contradiction"),
            "entailment, neutral, contradiction.*not_equivalent",
        ),
        (
            "mrpc",
            ("equivalent", "equivalent"),
            "equivalent, equivalent.*not_equivalent, equivalent",
        ),
        ("mrpc", ("LABEL_1", "LABEL_0"), "LABEL_1, LABEL_0.*not_equivalent"),
        ("mrpc", ("score",), "the label score.*not_equivalent"),
        ("mnli", ("LABEL_0", "LABEL_1"), "LABEL_0, LABEL_1.*entailment, neutral, contradiction"),
        ("stsb", ("LABEL_0", "LABEL_1"), "LABEL_0, LABEL_1.*stsb has a number"),
    ],
)
def test_other_names_are_refused_with_both_lists(
    name: str, labels: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UserError, match=f"the folder.*{told}"):
        outputs_of(open_task(name, None), dict(enumerate(labels)), "the folder", refuse)


def test_a_regression_has_one_output_of_any_name() -> None:
    assert (
        outputs_of(STSB, {0: "LABEL_0"}, "it", refuse)
        == outputs_of(STSB, {0: "score"}, "it", refuse)
        == [0]
    )


def labelled(labels: Sequence[float] | NDArray[Any], kind: type = np.int64) -> Encoded:
    return Encoded([[]] * len(labels), [[]] * len(labels), np.array(labels, kind), 0)


pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=50)


@given(pairs)
def test_confusion_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = np.array(pairs, np.int64).reshape(-1, 2).T
    if not pairs:
        assert not confusion(MNLI_CLASSES, predicted, labelled(true)).any()
        return
    due = confusion_matrix(true, predicted, labels=[0, 1, 2])
    np.testing.assert_array_equal(confusion(MNLI_CLASSES, predicted, labelled(true)), due)


def test_losses_are_those_of_torch() -> None:
    draw = np.random.default_rng(0)
    logits, true = draw.normal(0, 30, (40, 3)).astype(np.float32), draw.integers(0, 3, 40)
    due = cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(true), reduction="none")
    np.testing.assert_allclose(losses(MNLI.kind, logits, labelled(true)), due.numpy(), atol=1e-12)
    scores = draw.normal(size=40)
    error = mse_loss(
        torch.from_numpy(logits[:, 0]).double(),
        torch.tensor(scores.astype(np.float32)),
        reduction="none",
    )
    np.testing.assert_allclose(
        losses(STSB.kind, logits[:, :1], labelled(scores, np.float32)), error.numpy(), rtol=1e-12
    )


def test_a_wrong_order_of_labels_is_told_and_ignorance_is_not() -> None:
    draw = np.random.default_rng(0)
    good = np.diag([300, 300, 300]) + 30  # 85 % right
    assert under_chance(good) is None
    for order in ((1, 2, 0), (2, 0, 1)):
        assert "id2label" in (under_chance(good[:, order]) or "")
        assert under_chance(good[:, order] // 10) is None  # too few to tell
    for _ in range(200):  # a model that knows nothing, also one that is fond of the rarest label
        true, predicted = (
            draw.choice(3, 2000, p=[0.7, 0.2, 0.1]),
            draw.choice(3, 2000, p=draw.dirichlet((0.3, 0.3, 2))),
        )
        assert under_chance(confusion(MNLI_CLASSES, predicted, labelled(true))) is None
    assert under_chance(np.array([[0, 0, 900], [0, 0, 90], [0, 0, 10]])) is None
    assert under_chance(np.zeros((2, 2), np.int64)) is None
