"""Pretraining with a teacher: the loss and its gradient, whatever the teacher is built like, and
what is refused.
"""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fork_server
from pretraining_runs import at, equal, weights
from sqzb.corpus.store import Corpus
from sqzb.errors import UserError
from sqzb.model import SqueezeBertConfig, SqueezeBertForMaskedLM, SqueezeBertForPreTraining
from sqzb.model.costs import costs, total
from sqzb.model.heads import IGNORED
from sqzb.pretraining.auto_micro_batch import auto_micro_batch
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.evaluation import LABELS
from sqzb.pretraining.job import pretrain
from sqzb.pretraining.teacher import DistillationModel, build_distillation_model
from sqzb.recipe import MaskedLMDistillation, Optimizer, PretrainRecipe, dump_recipe
from sqzb.tokenizer import save_tokenizer
from sqzb.training.engine import Engine, Evaluator, MicroBatch, StepResult
from sqzb.training.lamb import Lamb
from sqzb.training.optimizers import parameter_groups
from stopped_runs import lines as lasting

CPU = torch.device("cpu")
TEMPERATURE, ALPHA = 3.0, 0.7
SMALL: dict[str, Any] = {"vocab_size": 150, "max_position_embeddings": 40}
BERT: dict[str, Any] = {
    **SMALL,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
# Of differing heads, names and arguments.
FOREIGN: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**BERT)),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(**SMALL, dim=24, n_layers=2, n_heads=2, hidden_dim=32)
    ),
    "electra": lambda: transformers.ElectraForMaskedLM(
        transformers.ElectraConfig(**BERT, embedding_size=16)
    ),
    "albert": lambda: transformers.AlbertForMaskedLM(
        transformers.AlbertConfig(**BERT, embedding_size=16)
    ),
    "mpnet": lambda: transformers.MPNetForMaskedLM(transformers.MPNetConfig(**BERT)),
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(**BERT, type_vocab_size=1)
    ),
}


def scattered(model: Any) -> Any:
    """With weights so far from zero that its probabilities differ."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return model


Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Saved:
    """The folder of a teacher with the corpus's vocabulary: "own", or one of FOREIGN."""
    parent, found = tmp_path_factory.mktemp("teachers"), {}

    def save(kind: str) -> Path:
        if kind not in found:
            folder = found[kind] = parent / kind
            if kind == "own":
                scattered(
                    SqueezeBertForMaskedLM(SqueezeBertConfig(**{**BERT, "num_attention_heads": 4}))
                ).save_pretrained(folder, corpus.tokenizer)
            else:
                scattered(FOREIGN[kind]()).save_pretrained(folder)
                save_tokenizer(corpus.tokenizer, folder, 40)
        return found[kind]

    return save


@pytest.fixture(scope="module")
def recipe(corpus: Corpus) -> PretrainRecipe:
    """Six steps with dropout."""
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
    }
    return PretrainRecipe(
        corpus=str(corpus.folder),
        sequence_length=16,
        max_predictions=3,
        model=SqueezeBertConfig(**sizes, vocab_size=150, max_position_embeddings=32),
        steps=6,
        global_batch=64,
        micro_batch=32,
        log_every=1,
        optimizer=Optimizer(lr=0.02, warmup=0.1),
        evaluate_every=2,
        evaluate_sequences=20,
        checkpoint_every=2,
    )


def taught(recipe: PretrainRecipe, teacher: Path | str, **changes: Any) -> PretrainRecipe:
    keys = {"temperature": TEMPERATURE, "alpha": ALPHA} | {
        k: changes.pop(k) for k in ("alpha",) if k in changes
    }
    return recipe.model_copy(
        update={"distillation": MaskedLMDistillation(teacher=str(teacher), **keys), **changes}
    )


def batch_of(recipe: PretrainRecipe, corpus: Corpus, parts: int = 1) -> list[MicroBatch]:
    return Examples(
        recipe, corpus, BatchLayout(recipe.global_batch, recipe.global_batch // parts, 1, 0)
    ).of_step(0)


def student_of(config: SqueezeBertConfig) -> SqueezeBertForPreTraining:
    torch.manual_seed(1)
    return SqueezeBertForPreTraining(config)


def wrapped(
    recipe: PretrainRecipe, corpus: Corpus, student: SqueezeBertForPreTraining
) -> DistillationModel:
    found = build_distillation_model(recipe, corpus, student, CPU)
    assert found is not None
    return found


def stepped(
    model: nn.Module, batches: list[MicroBatch], lr: float = 0.01
) -> tuple[StepResult, dict[str, Tensor]]:
    """A step's figures, and the gradients that were not clipped."""
    engine = Engine(
        Accelerator(cpu=True),
        model,
        Lamb(parameter_groups(model, 0.01), 1.0, (0.9, 0.999), 1e-6),
        LABELS,
        1e9,
        False,
    )
    gradients: dict[str, Tensor] = {}
    engine.optimizer.register_step_pre_hook(
        lambda *_: gradients.update(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    )
    return engine.step(batches, lr, range(len(batches))), gradients


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_teacher_says_what_transformers_says(
    kind: str, saved: Saved, recipe: PretrainRecipe, corpus: Corpus, tiny_config: SqueezeBertConfig
) -> None:
    """With padding and two segments; the model is opened by transformers' own class, and its head
    runs everywhere.
    """
    teacher = wrapped(taught(recipe, saved(kind)), corpus, student_of(tiny_config)).teacher
    (batch,) = batch_of(recipe, corpus)
    assert not batch["attention_mask"].all() and batch["token_type_ids"].any()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        given = dict(inputs)
        if kind in ("distilbert", "mpnet", "roberta"):
            del given["token_type_ids"]
        everywhere = type(FOREIGN[kind]()).from_pretrained(saved(kind))(**given).logits
        found = teacher.logits(**inputs, mlm_positions=batch["mlm_positions"])
    due = torch.stack([row[at] for row, at in zip(everywhere, batch["mlm_positions"], strict=True)])
    torch.testing.assert_close((found / 2).softmax(-1), (due / 2).softmax(-1), rtol=1e-4, atol=1e-7)
    assert due.std() > 0.1  # there is something to tell


@pytest.mark.parametrize("kind", ["own", "bert"])
def test_a_step_is_that_of_the_loss_in_float64(
    kind: str, saved: Saved, recipe: PretrainRecipe, corpus: Corpus, tiny_config: SqueezeBertConfig
) -> None:
    student = scattered(student_of(tiny_config))
    (batch,) = batch_of(recipe, corpus)
    reference = student_of(tiny_config)
    reference.load_state_dict(student.state_dict())
    inputs = [batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
    output = reference.double()(*inputs, batch["mlm_positions"])
    teacher: Any
    if kind == "own":
        teacher = SqueezeBertForMaskedLM.from_pretrained(saved(kind))
    else:
        teacher = transformers.BertForMaskedLM.from_pretrained(saved(kind))
    with torch.no_grad():
        everywhere = teacher.double().eval()(*inputs).logits
    mlm = torch.zeros((), dtype=torch.double)
    for row, slot in (batch["mlm_labels"] != IGNORED).nonzero().tolist():
        own, its = output.mlm_logits[row, slot], everywhere[row, batch["mlm_positions"][row, slot]]
        p = (its / TEMPERATURE).softmax(0)
        soft = -(p * (own / TEMPERATURE).log_softmax(0)).sum()
        hard = -own.log_softmax(0)[batch["mlm_labels"][row, slot]]
        mlm = mlm + (1 - ALPHA) * hard + ALPHA * TEMPERATURE**2 * soft
    mlm = mlm / (batch["mlm_labels"] != IGNORED).sum()
    sop = nn.functional.cross_entropy(output.sop_logits, batch["sop_labels"], ignore_index=IGNORED)
    (mlm + sop).backward()

    result, gradients = stepped(wrapped(taught(recipe, saved(kind)), corpus, student), [batch])
    assert result["mlm_loss"] == pytest.approx(mlm.item(), rel=1e-5)
    assert result["sop_loss"] == pytest.approx(sop.item(), rel=1e-5)
    due = {f"student.{name}": p.grad for name, p in reference.named_parameters()}
    assert gradients.keys() == due.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient.double(), due[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("parts", [2, 16, 64])
def test_micro_batches_add_up_to_the_same_step(
    parts: int, saved: Saved, recipe: PretrainRecipe, corpus: Corpus, tiny_config: SqueezeBertConfig
) -> None:
    found = []
    for n in (1, parts):
        model = wrapped(taught(recipe, saved("bert")), corpus, student_of(tiny_config))
        result, gradients = stepped(model, batch_of(recipe, corpus, n))
        found.append((result, gradients, model.student.state_dict()))
    whole, division = found
    assert division[0] == pytest.approx(whole[0], rel=1e-5)
    for one, other in zip(whole[1:], division[1:], strict=True):
        for name in one:
            torch.testing.assert_close(other[name], one[name], rtol=1e-4, atol=1e-5)


def test_what_is_evaluated_is_the_student_alone(
    saved: Saved, recipe: PretrainRecipe, corpus: Corpus, tiny_config: SqueezeBertConfig
) -> None:
    student, batches = student_of(tiny_config), batch_of(recipe, corpus, 2)
    model = wrapped(taught(recipe, saved("own")), corpus, student)
    plain = Evaluator(Accelerator(cpu=True), student, LABELS).evaluate(batches)
    assert Evaluator(Accelerator(cpu=True), model, LABELS).evaluate(batches) == plain
    trained, _ = stepped(model, batches, lr=0.0)
    assert trained["mlm_accuracy"] == plain["mlm_accuracy"]  # against the labels, taught or not
    assert trained["mlm_loss"] > 2 * plain["mlm_loss"]


def test_no_weight_of_the_teacher_is_the_students(
    saved: Saved, recipe: PretrainRecipe, corpus: Corpus, tiny_config: SqueezeBertConfig
) -> None:
    student = student_of(tiny_config)
    model = wrapped(taught(recipe, saved("bert")), corpus, student)
    assert [*model.parameters()] == [*student.parameters()] and len(model.state_dict()) == len(
        student.state_dict()
    )
    before = {name: tensor.clone() for name, tensor in model.teacher.model.state_dict().items()}
    stepped(model, batch_of(recipe, corpus))
    assert not model.teacher.model.training
    for name, tensor in model.teacher.model.state_dict().items():
        assert torch.equal(tensor, before[name]) and not tensor.requires_grad


# Whole runs


def heldout(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["heldout_mlm_loss"] for line in lines if "heldout_mlm_loss" in line]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, recipe: PretrainRecipe) -> Path:
    """The run without a teacher."""
    folder = pretrain(at(recipe, tmp_path_factory.mktemp("runs") / "plain"))
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: PretrainRecipe, saved: Saved) -> Path:
    """The uninterrupted run with a teacher."""
    folder = pretrain(at(taught(recipe, saved("bert")), tmp_path_factory.mktemp("runs") / "taught"))
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder


@pytest.mark.parametrize("kind", ["own", "bert"])
def test_without_a_share_the_teacher_changes_no_bit(
    kind: str, saved: Saved, recipe: PretrainRecipe, plain: Path, tmp_path: Path
) -> None:
    folder = pretrain(at(taught(recipe, saved(kind), alpha=0.0), tmp_path / "run"))
    assert lasting(folder) == lasting(plain) and equal(weights(folder), weights(plain))


def test_a_student_comes_near_to_its_teacher(
    saved: Saved, recipe: PretrainRecipe, corpus: Corpus, tmp_path: Path
) -> None:
    """Taught by the teacher alone, its probabilities come nearer to the teacher's than the labels
    bring them.
    """
    (batch,) = batch_of(recipe, corpus)
    inputs = [batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
    teacher = SqueezeBertForMaskedLM.from_pretrained(saved("own")).eval()
    distances = []
    for name, alpha in (("taught", 1.0), ("labels", 0.0)):
        long = at(
            recipe, tmp_path / name, steps=40, log_every=40, evaluate_every=40, checkpoint_every=40
        )
        student = SqueezeBertForMaskedLM.from_pretrained(
            pretrain(taught(long, saved("own"), alpha=alpha))
        ).eval()
        AcceleratorState._reset_state(reset_partial_state=True)
        with torch.no_grad():
            its, own = (model(*inputs).logits.log_softmax(-1) for model in (teacher, student))
        distances.append(
            nn.functional.kl_div(own, its, log_target=True, reduction="sum").item()
            / its[..., 0].numel()
        )
    assert distances[0] < 0.8 * distances[1]


def test_a_checkpoint_has_the_tensors_of_one_without_a_teacher(run: Path, plain: Path) -> None:
    for part in ("model", "sop_head", "optimizer"):
        with_one, without = (
            load_file(f / "checkpoints" / "step-0000006" / f"{part}.safetensors")
            for f in (run, plain)
        )
        assert with_one.keys() == without.keys()
        assert all(with_one[name].shape == without[name].shape for name in without)
    assert not equal(weights(run), weights(plain))


def test_a_resume_changes_nothing(
    run: Path, saved: Saved, recipe: PretrainRecipe, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-0000006")
    shutil.rmtree(tmp_path / "run" / "final")
    pretrain(at(taught(recipe, saved("bert")), tmp_path / "run"), resume="auto")
    assert lasting(tmp_path / "run") == lasting(run) and equal(
        weights(tmp_path / "run"), weights(run)
    )


@pytest.mark.parametrize("change", ["weights", "alpha", "path", "none"])
def test_a_resume_with_another_teacher_is_refused(
    change: str, run: Path, saved: Saved, recipe: PretrainRecipe, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    other, complaint = (
        taught(recipe, saved("bert")),
        f"distillation.{'alpha' if change == 'alpha' else 'teacher'} was",
    )
    if change == "alpha":
        other = taught(recipe, saved("bert"), alpha=0.5)
    elif change == "none":
        other = recipe
    elif change == "path":
        other, complaint = taught(recipe, saved("own")), "the teacher has changed"
    path, kept = saved("bert") / "model.safetensors", tmp_path / "kept"
    shutil.copy(path, kept)
    try:
        if change == "weights":
            complaint = "the teacher has changed"
            save_file(
                {name: tensor * 1.001 for name, tensor in load_file(kept).items()},
                path,
                {"format": "pt"},
            )
        with pytest.raises(UserError, match=complaint):
            pretrain(at(other, tmp_path / "run"), resume="auto")
    finally:
        shutil.copy(kept, path)


def test_the_command_line(saved: Saved, recipe: PretrainRecipe, tmp_path: Path) -> None:
    """The plan of a dry run, then the run, from a recipe in a file, by a process of its own."""
    text = yaml.safe_load(dump_recipe(at(taught(recipe, "absent"), tmp_path / "run", steps=2)))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(text))
    command = [sys.executable, "-m", "sqzb", "pretrain", str(tmp_path / "recipe.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = fork_server.run([*command, "--dry-run"], env=environment, timeout=60)
    assert ended.returncode == 1 and "distillation.teacher=absent" in ended.stderr
    command.append(f"distillation.teacher={saved('own')}")  # for which transformers is not loaded
    for more in (["--dry-run"], []):
        ended = fork_server.run([*command, *more], env=environment, timeout=60)
        assert ended.returncode == 0, ended.stderr
        assert "alpha 0.7, temperature 3" in " ".join(ended.stdout.split())
        assert (tmp_path / "run" / "final").exists() == (not more)
    assert all(math.isfinite(loss) for loss in heldout(tmp_path / "run"))


# micro_batch: auto


def test_a_cpu_counts_the_teachers_memory(
    saved: Saved,
    recipe: PretrainRecipe,
    corpus: Corpus,
    tiny_config: SqueezeBertConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = student_of(tiny_config)
    model = wrapped(taught(recipe, saved("bert")), corpus, student)
    own = {n: total(costs(tiny_config, n, 16, 3, labels=2)).bytes for n in (8, 16, 32)}
    monkeypatch.setattr(
        os, "sysconf", {"SC_PHYS_PAGES": 4 * own[32], "SC_PAGE_SIZE": 1}.__getitem__
    )
    assert auto_micro_batch(recipe, student, Accelerator(cpu=True), tmp_path) == 32
    assert auto_micro_batch(recipe, model, Accelerator(cpu=True), tmp_path) == 16
    assert (
        own[16] + 4 * model.teacher.parameters + 2 * 4 * 16 * 3 * 150 < own[32]
    )  # so 16 was right


class Meta(Accelerator):  # type: ignore[misc]
    """A device that is no CPU, and has no memory to run out of."""

    device = torch.device("meta")


def test_another_device_is_tried_with_the_teacher(
    saved: Saved,
    recipe: PretrainRecipe,
    corpus: Corpus,
    tiny_config: SqueezeBertConfig,
    tmp_path: Path,
) -> None:
    model = build_distillation_model(
        taught(recipe, saved("own")), corpus, student_of(tiny_config), Meta.device
    )
    assert model is not None and {p.device for p in model.teacher.model.parameters()} == {
        Meta.device
    }
    own, seen = model.teacher.logits, []
    model.teacher.logits = lambda *inputs: seen.append(len(inputs[0])) or own(*inputs)  # type: ignore
    assert auto_micro_batch(recipe, model, Meta(), tmp_path) == 64 and seen == [64]


# Refusals


def damage_nothing(folder: Path) -> None:
    pass


def swap_tokens(folder: Path) -> None:
    tokens = (folder / "vocab.txt").read_text().split()
    tokens[140], tokens[147] = tokens[147], tokens[140]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(tokens))


def remove_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink()


def break_a_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "query.weight" in name)
    tensors[name].view(-1)[3] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def remove_head(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls.")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def make_it_foreign_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.Model"}
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "unheard_of", "auto_map": code})
    )
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")


@pytest.mark.parametrize(
    ("kind", "damage", "changes", "complaint"),
    [
        (
            "own",
            swap_tokens,
            {},
            "vocabulary is not that of .*: 2 of 150 tokens differ, first number 140, which is '",
        ),
        (
            "bert",
            swap_tokens,
            {},
            "vocabulary is not that of .*: 2 of 150 tokens differ, first number 140, which is '",
        ),
        ("bert", remove_tokenizer, {}, "has no tokenizer"),
        (
            "own",
            remove_head,
            {},
            r"\(cls\.predictions\)\. Give a model with its MLM head",
        ),
        (
            "bert",
            remove_head,
            {},
            r"cls\.predictions.* and \d others would be random\. Give a model with its MLM head",
        ),
        ("own", break_a_weight, {}, r"non-finite values in \S*query\.weight"),
        ("bert", break_a_weight, {}, r"non-finite values in \S*query\.weight"),
        (
            "own",
            damage_nothing,
            {"sequence_length": 41},
            "has 40 positions, and sequence_length is 41",
        ),
        (
            "bert",
            damage_nothing,
            {"sequence_length": 41},
            "has 40 positions, and sequence_length is 41",
        ),
        (
            "mpnet",
            damage_nothing,
            {"sequence_length": 40},
            "The teacher does not run",
        ),  # two of its positions are padding's
        (
            "bert",
            make_it_foreign_code,
            {},
            "transformers does not open .*/teacher as a masked language model",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    kind: str,
    damage: Callable[[Path], None],
    changes: dict[str, Any],
    complaint: str,
    saved: Saved,
    recipe: PretrainRecipe,
    corpus: Corpus,
    tiny_config: SqueezeBertConfig,
    tmp_path: Path,
) -> None:
    shutil.copytree(saved(kind), tmp_path / "teacher")
    damage(tmp_path / "teacher")
    with pytest.raises(UserError, match=complaint) as refused:
        build_distillation_model(
            taught(recipe, tmp_path / "teacher", **changes), corpus, student_of(tiny_config), CPU
        )
    assert str(refused.value).startswith(f"distillation.teacher={tmp_path / 'teacher'}: ")
    assert not (tmp_path / "teacher" / "ran").exists()


def test_a_finetuned_model_is_no_teacher(
    recipe: PretrainRecipe, corpus: Corpus, tiny_config: SqueezeBertConfig, tmp_path: Path
) -> None:
    """transformers would open it, with a random head."""
    transformers.BertForSequenceClassification(transformers.BertConfig(**BERT)).save_pretrained(
        tmp_path
    )
    save_tokenizer(corpus.tokenizer, tmp_path, 40)
    with pytest.raises(UserError, match="Give a model with its MLM head"):
        build_distillation_model(taught(recipe, tmp_path), corpus, student_of(tiny_config), CPU)


def test_more_logits_than_tokens_are_refused(
    recipe: PretrainRecipe, corpus: Corpus, tiny_config: SqueezeBertConfig, tmp_path: Path
) -> None:
    transformers.BertForMaskedLM(
        transformers.BertConfig(**{**BERT, "vocab_size": 152})
    ).save_pretrained(tmp_path)
    save_tokenizer(corpus.tokenizer, tmp_path, 40)
    with pytest.raises(UserError, match=r"\(1, 3, 152\) instead of \(1, 3, 150\)"):
        build_distillation_model(taught(recipe, tmp_path), corpus, student_of(tiny_config), CPU)


def test_the_model_to_start_from_is_no_teacher(
    recipe: PretrainRecipe, corpus: Corpus, plain: Path, tmp_path: Path
) -> None:
    """Nor a copy of it."""
    shutil.copytree(plain / "final", tmp_path / "copy")
    for teacher in (plain, tmp_path / "copy"):
        second = at(taught(recipe, teacher), tmp_path / "run", model=None, start_from=str(plain))
        with pytest.raises(UserError, match="the same weights that this run starts from"):
            pretrain(second, dry_run=True)
        AcceleratorState._reset_state(reset_partial_state=True)


def test_without_transformers_it_is_named(
    saved: Saved,
    recipe: PretrainRecipe,
    corpus: Corpus,
    tiny_config: SqueezeBertConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = saved("bert"), saved("own")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'sqzb\[hf\]'"):
        build_distillation_model(taught(recipe, folders[0]), corpus, student_of(tiny_config), CPU)
    assert (
        build_distillation_model(taught(recipe, folders[1]), corpus, student_of(tiny_config), CPU)
        is not None
    )
