import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glue_runs import finetune
from sqzb.errors import UserError
from sqzb.finetuning.job import Finetuning
from sqzb.finetuning.start import build_model
from sqzb.glue.data import open_task
from sqzb.glue.tasks import task
from sqzb.model import (
    SqueezeBertConfig,
    SqueezeBertForPreTraining,
    SqueezeBertForSequenceClassification,
)
from sqzb.recipe import FinetuneRecipe
from sqzb.tokenizer import train_tokenizer
from sqzb.training import checkpoints
from sqzb.training.run_folder import RunLog
from stopped_runs import lines

MRPC, STSB, MNLI = (open_task(name, None) for name in ("mrpc", "stsb", "mnli"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a b c d e f g h"] * 3, 100, lowercase=True)


@pytest.fixture
def pretrained(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    return write_pretrained(tmp_path / "pretrained", tokenizer)


def write_pretrained(folder: Path, tokenizer: Tokenizer) -> Path:
    torch.manual_seed(1)
    config = SqueezeBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    SqueezeBertForPreTraining(config).save_pretrained(folder, tokenizer)
    return folder


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    folder = tmp_path / "glue" / "MRPC"
    folder.mkdir(parents=True)
    rows = "".join(
        f"{n % 2}\t0\t0\t{'a b' if n % 2 else 'c d'}\t{'e f g' if n % 3 else 'h'}\n"
        for n in range(40)
    )
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text(
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + rows, encoding="utf-8"
        )
    return folder.parent


@pytest.fixture
def more_glue(glue: Path) -> Path:
    """`glue` with an MNLI of two halves and an STS-B."""
    words = ["a b", "c d", "e f"]
    for folder, names, header in (
        ("MNLI", ("train", "dev_matched", "dev_mismatched"), "sentence1\tsentence2\tgold_label"),
        ("STS-B", ("train", "dev"), "sentence1\tsentence2\tscore"),
    ):
        (glue / folder).mkdir()
        labels = MNLI.kind.names if folder == "MNLI" else ("0.5", "2.5", "5")
        for name in names:
            rows = "".join(
                f"{words[n % 3]}\t{'g ' * (n % 4)}\t{labels[n % 3]}\n"
                for n in range(30 + len(name))
            )
            (glue / folder / f"{name}.tsv").write_text(f"{header}\n{rows}", encoding="utf-8")
    return glue


def recipe(pretrained: Path, output: Path, **changes: object) -> FinetuneRecipe:
    settings = {
        "task": "mrpc",
        "epochs": 2,
        "batch": 8,
        "lr": 1e-2,
        "max_length": 16,
        "log_every": 1,
    }
    return FinetuneRecipe.model_validate(
        settings | {"model": str(pretrained), "output": str(output)} | changes
    )


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    pretrained: Path, glue: Path, tmp_path: Path
) -> None:
    weights = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        finetune(recipe(pretrained, tmp_path / name, seed=seed), glue)
        weights.append(load_file(tmp_path / name / "final/model.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not all(torch.equal(tensor, weights[2][name]) for name, tensor in weights[0].items())


def test_every_step_and_epoch_is_logged(pretrained: Path, glue: Path, tmp_path: Path) -> None:
    folder = finetune(recipe(pretrained, tmp_path / "run"), glue)
    logged = [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["step"] for line in logged if "loss" in line] == list(range(1, 11))
    assert [line["epoch"] for line in logged if "epoch" in line] == [1, 2]
    assert {"validation_accuracy", "validation_f1", "validation_score"} <= logged[-1].keys()


def logged_by(folder: Path) -> list[dict[str, float]]:
    return [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_mnli_is_measured_on_both_halves(pretrained: Path, more_glue: Path, tmp_path: Path) -> None:
    last = logged_by(
        finetune(recipe(pretrained, tmp_path / "run", task="mnli", epochs=15), more_glue)
    )[-1]
    halves = [last[f"validation_{half}_accuracy"] for half in ("matched", "mismatched")]
    assert last["validation_score"] == sum(halves) / 2 > 0.9
    with pytest.raises(UserError, match="the validation_mismatched set has changed"):
        rows = more_glue / "MNLI" / "dev_mismatched.tsv"
        rows.write_text(rows.read_text() + "a\tb\tneutral\n")
        finetune(
            recipe(pretrained, tmp_path / "run", task="mnli", epochs=15), more_glue, resume="auto"
        )


def test_one_task_starts_from_anothers_model(
    pretrained: Path, more_glue: Path, tmp_path: Path
) -> None:
    """From three labels to a number and back to two; the encoder goes along, the head and its
    loss do not.
    """
    start = pretrained
    for name in ("mnli", "stsb", "mrpc"):
        folder = finetune(recipe(start, tmp_path / name, task=name, epochs=15), more_glue)
        config = SqueezeBertForSequenceClassification.from_pretrained(folder).config
        assert tuple(config.id2label.values()) == (task(name).labels or ("score",))
        assert logged_by(folder)[-1]["validation_score"] > 0.9
        start = folder


def test_what_is_odd_about_the_data_is_told(
    pretrained: Path, glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (glue / "MRPC" / "train.tsv").open("a", encoding="utf-8") as train:
        train.write("1\t0\t0\t\te f g\n")
    finetune(recipe(pretrained, tmp_path / "run", epochs=1), glue)
    said = " ".join(capsys.readouterr().err.split())
    assert "mrpc's train split has 41 examples, and GLUE's has 3,668" in said
    assert (
        said.count(
            "mrpc's train split has an empty sentence in 1 of its 41 examples. "
            "These examples are kept."
        )
        == 1
    )
    assert "validation split has an empty sentence" not in said
    assert "mrpc's validation split has 40 examples, and GLUE's has 408" in said
    assert (
        "40 of the 40 examples in mrpc's validation split have the same texts as a training example"
        in said
    )


def test_what_the_model_does_not_see_is_in_the_plan(
    pretrained: Path, glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (glue / "MRPC" / "train.tsv").open("a", encoding="utf-8") as train:
        for _ in range(40):
            train.write(f"1\t0\t0\t{'a b ' * 20}\t日本語 日本語\n")
    finetune(recipe(pretrained, tmp_path / "run", epochs=1, max_length=16), glue)
    printed = capsys.readouterr()
    rows = [line for line in printed.out.splitlines() if line.startswith("│ train")]
    assert len(rows) == 1 and rows[0].split("│")[2].strip() == "50.0%"
    told = " ".join(printed.err.split())
    assert "50.0% of the train examples are cut to 16 tokens" in told
    assert "of the characters of the train examples are [UNK]" in told
    assert "of the validation examples are cut" not in told


def test_ax_is_refused_with_the_model_that_predicts_it(
    pretrained: Path, glue: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"finetune mnli, whose model predicts it .*--task ax --split test"
    ):
        finetune(recipe(pretrained, tmp_path / "run", task="ax"), glue)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("known_products")
def test_the_flops_are_those_of_each_batch_as_it_is_padded(
    pretrained: Path, glue: Path, tmp_path: Path
) -> None:
    run = Finetuning(
        recipe(pretrained, tmp_path / "run", batch=1), open_task("mrpc", glue), tmp_path / "run"
    )
    run.prepare()
    lengths = set()
    for step in range(20):
        (batch,) = run.micro_batches(step)
        lengths.add(batch["input_ids"].shape[1])
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run.model(**batch)
        assert run.forward_flops(batch) == counter.get_total_flops()
    assert len(lengths) > 1


def test_from_scratch_takes_the_sizes_and_not_the_weights(pretrained: Path) -> None:
    source = SqueezeBertForPreTraining.from_pretrained(pretrained)
    scratch = build_model(recipe(pretrained, pretrained, from_scratch=True), MRPC, pretrained).model
    kept = build_model(recipe(pretrained, pretrained), MRPC, pretrained).model
    words = source.transformer.embeddings.word_embeddings.weight
    assert (
        scratch.get_parameter("transformer.embeddings.word_embeddings.weight").shape == words.shape
    )
    assert not torch.equal(
        scratch.get_parameter("transformer.embeddings.word_embeddings.weight"), words
    )
    assert torch.equal(kept.get_parameter("transformer.embeddings.word_embeddings.weight"), words)


def test_another_tasks_head_is_reset(
    tmp_path: Path, pretrained: Path, tokenizer: Tokenizer
) -> None:
    """A classifier of three labels, whose config.json holds a problem type, becomes a
    regression, and the reverse.
    """
    config = SqueezeBertForPreTraining.from_pretrained(pretrained).config
    for old, new, wanted in (
        ({0: "x", 1: "y", 2: "z"}, STSB, {0: "score"}),
        ({0: "score"}, MRPC, MRPC.kind.id2label),
    ):
        changed = config.model_copy(
            update={
                "id2label": old,
                "problem_type": "regression" if len(old) == 1 else "single_label_classification",
            }
        )
        SqueezeBertForSequenceClassification(changed).save_pretrained(
            tmp_path / new.name, tokenizer
        )
        model = build_model(recipe(tmp_path / new.name, tmp_path), new, tmp_path / new.name).model
        assert isinstance(model, SqueezeBertForSequenceClassification)
        assert model.config.id2label == wanted
        assert model.config.problem_type == (
            "regression" if len(wanted) == 1 else "single_label_classification"
        )
        assert model.classifier.out_features == len(wanted)


def test_dropout_is_the_models_own_unless_given(pretrained: Path) -> None:
    own = build_model(recipe(pretrained, pretrained), MRPC, pretrained).model.config
    given_ = build_model(recipe(pretrained, pretrained, dropout=0.3), MRPC, pretrained).model.config
    assert isinstance(own, SqueezeBertConfig) and isinstance(given_, SqueezeBertConfig)
    assert (own.hidden_dropout_prob, own.attention_probs_dropout_prob) == (0.1, 0.1)
    assert (given_.hidden_dropout_prob, given_.attention_probs_dropout_prob) == (0.3, 0.3)


def test_examples_longer_than_the_positions_are_refused(
    pretrained: Path, glue: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="max_length 64 is more than the model's 32 positions"):
        finetune(recipe(pretrained, tmp_path / "run", max_length=64), glue)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_over_the_models_is_refused(
    pretrained: Path, glue: Path, tmp_path: Path
) -> None:
    train_tokenizer(["many other words are here"] * 3, 200, lowercase=True).save(
        str(pretrained / "tokenizer.json")
    )
    with pytest.raises(UserError, match="does not fit"):
        finetune(recipe(pretrained, tmp_path / "run"), glue)


# The best model


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """The model that the runs below start from, which none of them changes."""
    return write_pretrained(tmp_path_factory.mktemp("start") / "pretrained", tokenizer)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MRPC with labels that follow from nothing, so that the score goes up and down."""
    glue = tmp_path_factory.mktemp("noise")
    (glue / "MRPC").mkdir()
    draw = np.random.default_rng(0)
    for name in ("train.tsv", "dev.tsv"):
        rows = "".join(
            f"{draw.integers(2)}\t0\t0\t{draw.choice(list('abcdefgh'))}\t{n % 7}\n"
            for n in range(40)
        )
        (glue / "MRPC" / name).write_text(
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + rows, encoding="utf-8"
        )
    return glue


def best_recipe(start: Path, output: Path, **changes: object) -> FinetuneRecipe:
    settings = {"epochs": 5, "evaluate_every": 2, "keep_best": True, "lr": 3e-2}
    return recipe(start, output, **settings | changes)


Finished = Callable[[int], Path]


@pytest.fixture(scope="module")
def finished(start: Path, noise: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run of `best_recipe` with a seed, which is made once: tests change copies of it."""
    parent = tmp_path_factory.mktemp("finished")

    def run(seed: int) -> Path:
        if not (parent / str(seed)).exists():
            finetune(best_recipe(start, parent / str(seed), seed=seed), noise)
        return parent / str(seed)

    return run


def scores_of(folder: Path) -> dict[int, float]:
    """By step, of the evaluations on the way."""
    lines = logged_by(folder)
    return {
        int(line["step"]): line["validation_score"]
        for line in lines
        if "epoch" in line and "of_step" not in line
    }


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    weights = weights_of(other)
    return all(torch.equal(tensor, weights[name]) for name, tensor in weights_of(one).items())


def steps_kept(folder: Path) -> list[int]:
    return sorted(
        int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").iterdir()
    )


def first_best(scores: dict[int, float]) -> int:
    return min(step for step, score in scores.items() if score == max(scores.values()))


@pytest.mark.parametrize("seed", range(3))
def test_final_is_the_first_of_the_best(
    start: Path, noise: Path, finished: Finished, tmp_path: Path, seed: int
) -> None:
    folder = shutil.copytree(finished(seed), tmp_path / "run")
    every = finetune(best_recipe(start, tmp_path / "every", seed=seed, keep_checkpoints=99), noise)
    scores = scores_of(folder)
    assert list(scores) == [*range(2, 25, 2), 25] and scores == scores_of(every)
    best = first_best(scores)
    assert steps_kept(folder) == sorted({best, 25})
    assert same_weights(folder / "final", every / "checkpoints" / f"step-{best:07d}")
    last = logged_by(folder)[-1]
    assert last["validation_score"] == scores[best] and last.get("of_step", 25) == best
    figures = f"| score | {scores[best]:.4f} |"
    assert figures in (folder / "final" / "README.md").read_text(encoding="utf-8")
    # Once more changes nothing; and without keep_best it is the last one.
    before = logged_by(folder)
    finetune(best_recipe(start, folder, seed=seed), noise, resume="auto")
    assert logged_by(folder) == before and same_weights(
        folder / "final", every / "checkpoints" / f"step-{best:07d}"
    )
    plain = finetune(best_recipe(start, tmp_path / "plain", seed=seed, keep_best=False), noise)
    assert same_weights(plain / "final", every / "checkpoints" / "step-0000025")


def test_some_best_are_early_and_some_scores_equal(finished: Finished) -> None:
    """Else the test above would say little."""
    found = [scores_of(finished(seed)) for seed in range(3)]
    assert any(first_best(scores) < 20 for scores in found)
    assert any(list(scores.values()).count(max(scores.values())) > 1 for scores in found)


@pytest.mark.parametrize("patience", [1, 3])
def test_the_run_ends_early_when_nothing_gets_better(
    start: Path, noise: Path, finished: Finished, tmp_path: Path, patience: int
) -> None:
    whole = finished(0)
    folder = finetune(best_recipe(start, tmp_path / "run", early_stopping=patience), noise)
    scores = scores_of(folder)
    assert list(scores.items()) == list(scores_of(whole).items())[: len(scores)]
    assert len(scores) < len(scores_of(whole))
    since = [sum(step > first_best(until) for step in until) for until in prefixes(scores)]
    assert since[-1] == patience and max(since[:-1]) < patience
    assert steps_kept(folder) == sorted({first_best(scores), max(scores)})
    assert logged_by(folder)[-1]["of_step"] == first_best(scores)


def prefixes(scores: dict[int, float]) -> list[dict[int, float]]:
    return [dict(list(scores.items())[: n + 1]) for n in range(len(scores))]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("seed", range(2))
def test_killed_around_saves_and_evaluations_the_best_is_the_same(
    start: Path, noise: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends early too: both follow from the log, whatever was interrupted."""
    early = {"early_stopping": 6} if seed % 2 else {}
    whole = finetune(best_recipe(start, tmp_path / "whole", **early), noise)
    draw, left = np.random.default_rng(seed), 0

    def fragile(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **rest: Any) -> Any:
            moment()
            result = function(*arguments, **rest)
            moment()
            return result

        return run

    def moment() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    for where, name in (
        (RunLog, "log"),
        (checkpoints, "save"),
        (Finetuning, "_measure"),
        (checkpoints, "write_final"),
    ):
        monkeypatch.setattr(where, name, fragile(getattr(where, name)))
    kills = 0
    while True:
        left = int(draw.integers(2, 16))
        try:
            finetune(best_recipe(start, tmp_path / "run", **early), noise, resume="auto")
            break
        except Killed:
            kills += 1
    assert kills > 3
    assert lines(tmp_path / "run") == lines(whole)
    assert same_weights(tmp_path / "run" / "final", whole / "final")


def test_a_resume_with_other_evaluations_is_refused(
    start: Path, noise: Path, finished: Finished, tmp_path: Path
) -> None:
    shutil.copytree(finished(0), tmp_path / "run")
    for change in ({"evaluate_every": 3}, {"keep_best": False}, {"early_stopping": 2}):
        with pytest.raises(UserError, match=f"{next(iter(change))} was"):
            finetune(best_recipe(start, tmp_path / "run", **change), noise, resume="auto")


def test_a_run_that_goes_on_from_an_old_checkpoint_keeps_the_best_again(
    start: Path, noise: Path, finished: Finished, tmp_path: Path
) -> None:
    """The newer checkpoints, still there, do not push it out."""
    whole = finished(1)
    folder = finetune(best_recipe(start, tmp_path / "run", keep_every=2, seed=1), noise)
    best = first_best(scores_of(whole))
    for path in (folder / "checkpoints").iterdir():
        if path.name not in ("step-0000002", "step-0000025"):
            shutil.rmtree(path)
    finetune(
        best_recipe(start, folder, seed=1),
        noise,
        resume=str(folder / "checkpoints" / "step-0000002"),
    )
    assert (
        best > 2
        and lines(folder) == lines(whole)
        and same_weights(folder / "final", whole / "final")
    )


def test_a_best_checkpoint_that_is_damaged_is_told(
    start: Path,
    noise: Path,
    finished: Finished,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(finished(0), tmp_path / "run")
    best, last = steps_kept(folder)
    (folder / "checkpoints" / f"step-{best:07d}" / "model.safetensors").write_bytes(b"")
    finetune(best_recipe(start, folder), noise, resume="auto")
    assert "final/ is the last model" in capsys.readouterr().err
    assert same_weights(folder / "final", folder / "checkpoints" / f"step-{last:07d}")
