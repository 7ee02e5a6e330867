"""Distillation from inside a teacher: its states and attention are kept as they are, and the student comes to them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from conftest import WORDS
from sqzb.errors import UserError
from sqzb.finetuning.distillation import teachers as distillation
from sqzb.finetuning.distillation.states import attention_divergences, mapped, projection, state_errors
from sqzb.finetuning.distillation.teachers import Taught
from sqzb.finetuning.job import Finetuning, finetune
from sqzb.glue.data import load_split
from sqzb.glue.tasks import task
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining, SqueezeBertForSequenceClassification
from sqzb.model.classifiers import open_classifier
from sqzb.model.heads import IGNORED
from sqzb.recipe import FinetuneRecipe, load_recipe
from sqzb.tokenizer import load_tokenizer, train_tokenizer
from stopped_runs import lines, write_task

MRPC = task("mrpc")
N, CHUNK = 20, 8


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "CHUNK", CHUNK)


def classifier(vocabulary: int, width: int, layers: int, heads: int = 4) -> SqueezeBertForSequenceClassification:
    return SqueezeBertForSequenceClassification(
        SqueezeBertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=32,
            max_position_embeddings=32,
            initializer_range=0.3,
            id2label=dict(enumerate(MRPC.labels)),
        )
    )


@pytest.fixture
def start(tmp_path: Path, vocabulary: Path) -> Path:
    """A student of 2 layers."""
    torch.manual_seed(1)
    tokenizer = load_tokenizer(vocabulary)
    config = classifier(tokenizer.get_vocab_size(), 16, 2).config
    SqueezeBertForPreTraining(config).save_pretrained(tmp_path / "start", tokenizer)
    return tmp_path / "start"


@pytest.fixture
def ours(tmp_path: Path, vocabulary: Path) -> Path:
    """A teacher of ours with the student's tokens, of 4 layers of another width."""
    torch.manual_seed(2)
    tokenizer = load_tokenizer(vocabulary)
    classifier(tokenizer.get_vocab_size(), 32, 4, heads=8).save_pretrained(tmp_path / "ours", tokenizer)
    return tmp_path / "ours"


@pytest.fixture
def bert(tmp_path: Path, vocabulary: Path) -> Path:
    """The same of transformers' BERT, of 3 layers."""
    torch.manual_seed(3)
    size = load_tokenizer(vocabulary).get_vocab_size()
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(
        vocab_size=size,
        **sizes,
        max_position_embeddings=32,
        initializer_range=0.3,
        id2label=dict(enumerate(MRPC.labels)),
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    for path in vocabulary.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    write_task(tmp_path, N)
    path = tmp_path / "MRPC" / "train.tsv"
    header, *rows = path.read_text().splitlines()
    rows = [f"{row} {' '.join(WORDS[n : n + n % 4])}" for n, row in enumerate(rows)]  # of several lengths
    path.write_text("\n".join([header, *rows]) + "\n")
    return tmp_path


def recipe(start: Path, teacher: Path, output: str = "run", **changes: Any) -> FinetuneRecipe:
    asked = {"teacher": [str(teacher)], "cache": str(start.parent / "cache"), "hidden": 0.5, "attention": 0.25}
    asked |= {key: changes.pop(key) for key in ("hidden", "attention", "teacher") if key in changes}
    settings = {"task": "mrpc", "epochs": 2, "batch": 6, "lr": 1e-2, "max_length": 16, "log_every": 1}
    return FinetuneRecipe.model_validate(
        settings | {"model": str(start), "output": str(start.parent / output), "distillation": asked} | changes
    )


def prepared(wanted: FinetuneRecipe, glue: Path) -> Finetuning:
    return Finetuning(wanted, MRPC, Path(str(wanted.output)), glue)


# The losses


@given(st.integers(1, 24), st.integers(1, 24))
def test_layers_are_mapped_evenly_up_to_the_last(layers: int, teachers: int) -> None:
    own, theirs = mapped(layers, teachers)
    assert len(own) == len(theirs) == min(layers, teachers)
    for indices, of in ((own, layers), (theirs, teachers)):
        steps = {after - before for before, after in zip([-1, *indices], indices, strict=False)}
        assert indices[-1] == of - 1 and max(steps) - min(steps) <= 1 <= min(steps)
    if teachers % layers == 0:  # TinyBERT's g(m) = m N / M, from 1
        assert [n + 1 for n in theirs] == [(n + 1) * teachers // layers for n in own]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_the_losses_are_as_defined(seed: int, layers: int, teachers: int) -> None:
    """In numpy, one example, layer and token after the other; and their gradients are the numerical ones."""
    torch.manual_seed(seed)
    states, theirs = torch.randn(3, layers, 5).double(), torch.randn(3, teachers, 4).half()
    layer = projection(5, 4, seed % 7).double()
    pairs = list(zip(*mapped(layers, teachers), strict=True))
    due = [np.mean([(layer(states[i, a]).detach() - theirs[i, b]).numpy() ** 2 for a, b in pairs]) for i in range(3)]
    assert_close(state_errors(states, theirs, layer), torch.tensor(due).double())
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    scores = torch.randn(2, 3, 4, 4).double() + (mask[:, None] == 0) * -1e30
    weights, targets = scores.softmax(-1)
    kept = (targets * (mask[:, :, None] * mask[:, None, :])).half()
    got = attention_divergences(weights, kept, mask)
    for i, n in enumerate((4, 2)):
        p, q = kept[i, :n, :n].double(), weights[i, :n, :n]
        p = p / p.sum(1, keepdim=True)
        assert_close(got[i], (p * (p / q).log()).nan_to_num(0).sum(1).mean())
    assert got[2] == 0
    leaf = scores[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: attention_divergences(x.softmax(-1), kept, mask), leaf)
    inputs = (states.requires_grad_(), layer.weight.detach().requires_grad_())
    product: Callable[[Tensor], nn.Module] = lambda w: _Product(w)  # noqa: E731
    assert torch.autograd.gradcheck(lambda x, w: state_errors(x, theirs.double(), product(w)), inputs)


class _Product(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.matrix = weight

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T


@pytest.mark.parametrize(("width", "teachers"), [(16, 24), (24, 16), (16, 16)])
def test_a_projection_starts_by_turning_and_cutting(width: int, teachers: int) -> None:
    weight = projection(width, teachers, 5).weight.detach()
    small = weight @ weight.T if teachers <= width else weight.T @ weight
    assert_close(small, torch.eye(min(width, teachers)), atol=1e-5, rtol=0)
    assert torch.equal(weight, projection(width, teachers, 5).weight)
    assert not torch.equal(weight, projection(width, teachers, 6).weight)


def test_the_losses_are_added_by_their_weights_over_the_labelled(start: Path, ours: Path, glue: Path) -> None:
    """A row of padding alone, as a process may get, changes nothing; and a copy has nothing to learn."""
    run = prepared(recipe(start, ours), glue)
    run.model.eval()
    (batch,) = run.micro_batches(0)
    inside = run.model.inside(*(batch[n] for n in ("input_ids", "attention_mask", "token_type_ids")), attention=True)
    assert run.beside is not None and inside.attention is not None

    def loss(batch: Any, project: nn.Module | None = run.beside, **weights: float) -> float:
        settings = run.recipe.distillation.model_copy(update=weights)
        return float(Taught(run.model, settings, project)(**batch).tallies["task"].loss.detach())

    plain = {name: tensor for name, tensor in batch.items() if name not in ("teacher_states", "teacher_attention")}
    errors = state_errors(inside.states, batch["teacher_states"], run.beside).sum().detach()
    divergences = (
        attention_divergences(inside.attention, batch["teacher_attention"], batch["attention_mask"]).sum().detach()
    )
    assert min(errors, divergences) > 0.01
    assert loss(batch) == pytest.approx(loss(plain) + float(0.5 * errors + 0.25 * divergences), rel=1e-5)
    ignored = {**batch, "labels": torch.where(torch.arange(6) < 4, batch["labels"], IGNORED)}
    fewer = {name: tensor[:4] for name, tensor in batch.items()}
    assert loss(ignored) == pytest.approx(loss(fewer), rel=1e-5)
    padded = {name: torch.cat([tensor, torch.zeros_like(tensor[:1])]) for name, tensor in batch.items()}
    padded["labels"][-1] = IGNORED
    assert loss(padded) == pytest.approx(loss(batch), rel=1e-5)
    own = {"teacher_states": inside.states.half(), "teacher_attention": inside.attention.half()}
    assert loss({**batch, **own}, nn.Identity()) == pytest.approx(loss(plain), abs=1e-4)


# What is kept


@pytest.mark.parametrize("kind", ["ours", "bert"])
def test_what_is_kept_is_what_transformers_has(
    kind: str, start: Path, glue: Path, request: pytest.FixtureRequest
) -> None:
    """Of each example alone, without padding; a batch has it in the example's row."""
    folder = request.getfixturevalue(kind)
    run = prepared(recipe(start, folder), glue)
    assert run.teacher_states is not None
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    examples = load_split(MRPC, "train", glue)
    found = run.teacher_states.batch(np.array([3, -1, *range(N)]), 16)
    assert not found["teacher_states"][1].any() and not found["teacher_attention"][1].any()
    for row, place in [(3, 0), *((row, row + 2) for row in range(N))]:
        texts = tokenizer(examples[row].text_a, examples[row].text_b, return_tensors="pt")
        with torch.no_grad():
            output = model(**texts, output_hidden_states=True, output_attentions=True)
        states = torch.cat([x[:, 0] for x in output.hidden_states[1:]])
        assert_close(found["teacher_states"][place].float(), states, rtol=2e-3, atol=2e-3)
        weights = output.attentions[-1] if kind == "bert" else output.attentions[-1].softmax(-1)  # its are scores
        n = weights.shape[-1]
        assert_close(found["teacher_attention"][place, :n, :n].float(), weights[0].mean(0), rtol=2e-3, atol=2e-3)
        assert not found["teacher_attention"][place, n:].any() and not found["teacher_attention"][place, :, n:].any()
    plain = prepared(recipe(start, folder, hidden=0, attention=0), glue)
    assert run.teacher_logits is not None and plain.teacher_logits is not None and plain.teacher_states is None
    np.testing.assert_allclose(run.teacher_logits, plain.teacher_logits, rtol=1e-4, atol=1e-5)


def kept(start: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (start.parent / "cache").rglob("*") if path.is_file()}


def test_what_was_lost_is_computed_again_byte_for_byte(start: Path, ours: Path, glue: Path) -> None:
    prepared(recipe(start, ours), glue)
    before = kept(start)
    assert len(before) == 4
    next(start.parent.glob("cache/*/00001.safetensors")).unlink()
    prepared(recipe(start, ours), glue)
    assert kept(start) == before
    prepared(recipe(start, ours, attention=0), glue)
    assert len(kept(start)) == 8
    about = [json.loads(path.read_text()) for path in start.parent.glob("cache/*/about.json")]
    assert sorted(one["key"]["inside"]["attention"] for one in about) == [False, True]


SPOILT: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "no states": (lambda t: {n: x for n, x in t.items() if n != "states"}, "cannot be read"),
    "not finite": (lambda t: t | {"states": t["states"] * float("nan")}, "has states or attention that are not finite"),
    "another type": (
        lambda t: t | {"attention": t["attention"].float()},
        "has states or attention that are not finite",
    ),
    "fewer": (lambda t: t | {"states": t["states"][1:].clone()}, r"has states of \(7, 4, 32\)"),
    "other tokens": (lambda t: t | {"offsets": t["offsets"] + 1}, "has the attention of other tokens"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_cache_that_does_not_fit_is_refused(start: Path, ours: Path, glue: Path, what: str) -> None:
    spoil, said = SPOILT[what]
    prepared(recipe(start, ours), glue)
    path = next(start.parent.glob("cache/*/00001.safetensors"))
    save_file(spoil(load_file(path)), path)
    with pytest.raises(UserError, match=f"00001.safetensors {said}"):
        prepared(recipe(start, ours), glue)


# Runs


def test_a_run_goes_on_exactly_and_final_has_no_projection(start: Path, ours: Path, glue: Path) -> None:
    wanted = {"checkpoint_every": 1, "keep_every": 1}
    whole = finetune(recipe(start, ours, "whole", **wanted), glue)
    shutil.copytree(whole, start.parent / "stopped")
    for step in range(4, 9):
        shutil.rmtree(next((start.parent / "stopped" / "checkpoints").glob(f"step-*{step}")), ignore_errors=True)
    shutil.rmtree(start.parent / "stopped" / "final")
    again = finetune(recipe(start, ours, "stopped", **wanted), glue, "auto")
    assert lines(again) == lines(whole)
    checkpoints = [max((run / "checkpoints").iterdir()) for run in (whole, again)]
    for name in ("model.safetensors", "beside.safetensors", "optimizer.safetensors"):
        one, other = (load_file(folder / name) for folder in checkpoints)
        assert one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    learnt = load_file(checkpoints[0] / "beside.safetensors")["weight"]
    assert learnt.shape == (32, 16) and not torch.equal(learnt, projection(16, 32, 0).weight)
    assert "exp_avg/beside.weight" in one
    assert not (whole / "final" / "beside.safetensors").exists()
    assert not [name for name in load_file(whole / "final" / "model.safetensors") if "beside" in name]


@pytest.mark.parametrize(("hidden", "attention"), [(5.0, 0.0), (0.0, 5.0)])
def test_the_student_comes_nearer(start: Path, bert: Path, glue: Path, hidden: float, attention: float) -> None:
    """To a teacher of another kind."""
    wanted = recipe(start, bert, hidden=hidden, attention=attention, epochs=20, dropout=0.0, checkpoint_every=100)
    run = prepared(wanted, glue)
    (batch,) = run.micro_batches(0)

    def distance() -> float:
        ids, mask, types = (batch[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
        inside = run.model.eval().inside(ids, mask, types, attention=attention > 0)
        if inside.attention is not None:
            return float(attention_divergences(inside.attention, batch["teacher_attention"], mask).mean())
        assert run.beside is not None
        return float(state_errors(inside.states, batch["teacher_states"], run.beside).mean())

    with torch.no_grad():
        before = distance()
        with torch.enable_grad():
            run.go("never", False)
        assert distance() < 0.7 * before
    assert (run.beside is None) == (hidden == 0)


@pytest.mark.parametrize("kind", ["ours", "bert"])
def test_in_bf16_it_is_nearly_the_same(kind: str, request: pytest.FixtureRequest) -> None:
    """And the logits are those of a forward that is not asked for more."""
    model = open_classifier(request.getfixturevalue(kind)).eval()
    ids, mask = torch.randint(5, 100, (3, 8)), torch.ones(3, 8, dtype=torch.long)
    mask[1, 5:] = 0
    types = torch.zeros_like(ids)
    whole = model.inside(ids, mask, types, attention=True)
    assert whole.attention is not None
    assert_close(whole.logits, model(ids, mask, types).logits, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.inside(ids, mask, types, attention=True)
    assert half.attention is not None and half.attention.dtype == torch.float32
    assert (half.attention - whole.attention).abs().max() < 0.1 < whole.attention.max()
    assert (half.states.float() - whole.states).abs().max() < 0.3 < whole.states.abs().max()
    assert_close(half.attention[1].sum(-1), torch.ones(8), rtol=1e-2, atol=1e-2)
    assert not half.attention[1, :, 5:].any()


# Refusals


def test_attention_needs_the_same_tokens(start: Path, ours: Path, glue: Path, tmp_path: Path) -> None:
    (ours / "recipe.yaml").write_text("task: mrpc\nmax_length: 8\n")
    with pytest.raises(
        UserError, match=r"the very same tokens as the student, but 10 of 20 examples differ, first of row 2"
    ):
        prepared(recipe(start, ours), glue)
    prepared(recipe(start, ours, attention=0), glue)
    (ours / "recipe.yaml").unlink()
    tokenizer = train_tokenizer([" ".join(WORDS)] * 2, 90, lowercase=False)
    classifier(tokenizer.get_vocab_size(), 32, 4).save_pretrained(tmp_path / "other", tokenizer)
    with pytest.raises(UserError, match="the very same tokens as the student, but it has another vocabulary"):
        prepared(recipe(start, tmp_path / "other"), glue)
    prepared(recipe(start, tmp_path / "other", attention=0), glue)


def test_another_student_learns_states_alone(start: Path, ours: Path, bert: Path, glue: Path) -> None:
    with pytest.raises(UserError, match=r"distillation\.attention: only a SqueezeBERT learns it"):
        prepared(recipe(bert, ours), glue)
    run = finetune(recipe(bert, ours, attention=0, epochs=1), glue)
    assert all(np.isfinite(line["task_loss"]) for line in lines(run) if "task_loss" in line)


def test_several_teachers_are_refused(start: Path, ours: Path, bert: Path) -> None:
    with pytest.raises(UserError, match=r"distillation\.hidden: is learnt from one teacher, and there are 2"):
        load_recipe(FinetuneRecipe, None, [f"distillation.teacher=[{ours},{bert}]", "distillation.hidden=1"])
