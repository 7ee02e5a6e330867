"""pretrain from a corpus to a run folder: what it leaves, what it refuses, and that no interruption
changes it.
"""

import errno
import json
import os
import shutil
import socket
import sys
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fork_server
import torchrun
from pretraining_runs import at, equal, weights
from sqzb.corpus.build import build
from sqzb.corpus.store import Corpus
from sqzb.errors import Diverged, UserError
from sqzb.files import locked, sha256
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.costs import costs, total
from sqzb.pretraining import auto_micro_batch
from sqzb.pretraining.job import pretrain
from sqzb.pretraining.start import build_model
from sqzb.recipe import CorpusRecipe, Optimizer, PretrainRecipe, load_recipe
from sqzb.training import checkpoints, throughput
from sqzb.training.engine import Engine, MicroBatch, StepResult
from sqzb.training.prefetch import Prefetcher
from stopped_runs import lines as lasting

STEPS = 60
# A median needs many steps before it, which are small ones here.
SPIKES: dict[str, Any] = {
    "spike_factor": 2.0,
    "global_batch": 32,
    "micro_batch": 32,
    "evaluate_every": 50,
}
KEYS = {
    "step", "tokens", "loss", "mlm_loss", "mlm_accuracy", "sop_loss", "sop_accuracy", "lr",
    "grad_norm", "tokens_per_second", "mfu", "data_wait", "time",
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(corpus: Corpus) -> PretrainRecipe:
    """12 steps with dropout; the ninth goes over the end of the first epoch, and the eighth leaves
    a checkpoint.
    """
    assert 8 * 64 < corpus.manifest["lengths"]["16"]["chunks"]["train"] < 9 * 64
    return PretrainRecipe(
        corpus=str(corpus.folder),
        sequence_length=16,
        max_predictions=3,
        model=SqueezeBertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=32,
        ),
        steps=12,
        global_batch=64,
        micro_batch=32,
        log_every=1,
        optimizer=Optimizer(lr=0.02, warmup=0.1),
        evaluate_every=5,
        evaluate_sequences=20,
        checkpoint_every=4,
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: PretrainRecipe) -> Path:
    """The uninterrupted run of `recipe`."""
    return pretrain(at(recipe, tmp_path_factory.mktemp("runs") / "whole"))


def test_the_run_folder_holds_what_it_should(
    run: Path, recipe: PretrainRecipe, corpus: Corpus
) -> None:
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml",
        "run.json",
        "metrics.jsonl",
        "checkpoints",
        "final",
    }
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-0000008",
        "step-0000012",
    ]
    final = {path.name for path in (run / "final").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= final
    assert not any(path.suffix == ".partial" for path in run.rglob("*"))
    model = SqueezeBertForPreTraining.from_pretrained(run)
    assert model.config.vocab_size == corpus.manifest["vocab_size"]


def test_the_metrics_have_a_line_a_step_and_one_an_evaluation(
    run: Path, recipe: PretrainRecipe
) -> None:
    lines = metrics(run)
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == list(range(1, 13))
    for line in trained:
        assert set(line) == KEYS
        assert line["loss"] == pytest.approx(line["mlm_loss"] + line["sop_loss"])
    assert [line["step"] for line in lines if "heldout_mlm_loss" in line] == [5, 10, 12]
    assert trained[0]["lr"] == 0.02 and trained[-1]["lr"] == pytest.approx(0.02 / 11)
    tokens = [line["tokens"] for line in trained]
    assert tokens == sorted(tokens) and 12 * 64 * 3 < tokens[-1] <= 12 * 64 * 16


def test_the_loss_falls(recipe: PretrainRecipe, corpus: Corpus, tmp_path: Path) -> None:
    folder = pretrain(
        at(
            recipe,
            tmp_path / "run",
            steps=STEPS,
            log_every=20,
            checkpoint_every=STEPS,
            optimizer=Optimizer(lr=0.03, warmup=0.2),
        )
    )
    heldout = [line["heldout_mlm_loss"] for line in metrics(folder) if "heldout_mlm_loss" in line]
    assert heldout[0] > 4 and heldout[-1] < heldout[0] - 1
    assert heldout[-1] < corpus.manifest["heldout_unigram_nats"] + 0.35


def test_a_run_is_a_function_of_its_recipe(
    run: Path, recipe: PretrainRecipe, tmp_path: Path
) -> None:
    again = pretrain(at(recipe, tmp_path / "again"))
    assert lasting(again) == lasting(run) and equal(weights(again), weights(run))
    other = pretrain(at(recipe, tmp_path / "other", seed=1))
    assert not equal(weights(other), weights(run))


def test_the_saved_recipe_makes_the_same_run(run: Path, tmp_path: Path) -> None:
    saved = load_recipe(PretrainRecipe, run / "recipe.yaml", output=str(tmp_path / "again"))
    again = pretrain(saved)
    assert lasting(again) == lasting(run)
    assert load_recipe(PretrainRecipe, again / "recipe.yaml") == saved


@pytest.mark.parametrize("crash", [1, 6, 9])
def test_a_crash_and_a_resume_change_nothing(
    run: Path, recipe: PretrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    begun = at(recipe, tmp_path / "crashed")
    folder = tmp_path / "crashed"
    with monkeypatch.context() as patched:
        own = Engine.step
        calls: list[None] = []

        def step(*args: Any) -> StepResult:
            calls.append(None)
            if len(calls) == crash:
                raise MemoryError("killed")
            return own(*args)

        patched.setattr(Engine, "step", step)
        with pytest.raises(MemoryError):
            pretrain(begun)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')  # torn by the crash
    with pytest.raises(UserError, match="--resume auto"):
        pretrain(begun)
    assert pretrain(begun, resume="auto") == folder
    assert lasting(folder) == lasting(run) and equal(weights(folder), weights(run))


def test_a_kill_while_saving_changes_nothing(
    run: Path, recipe: PretrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = at(recipe, tmp_path / "crashed")
    with monkeypatch.context() as patched:
        own = SqueezeBertForPreTraining.save_pretrained

        def save(model: SqueezeBertForPreTraining, folder: Path, *args: Any) -> None:
            own(model, folder, *args)
            if "step-0000008" in str(folder):
                raise OSError(errno.ENOSPC, "No space left on device")

        patched.setattr(SqueezeBertForPreTraining, "save_pretrained", save)
        with pytest.raises(UserError, match=r"disk is full.*step-0000004"):
            pretrain(begun)
    assert not list((tmp_path / "crashed").rglob("*.partial"))
    pretrain(begun, resume="auto")
    assert lasting(tmp_path / "crashed") == lasting(run) and equal(
        weights(tmp_path / "crashed"), weights(run)
    )


def test_a_resume_may_divide_the_batch_anew(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-0000012")
    pretrain(at(recipe, tmp_path / "run", micro_batch=16), resume="auto")
    trained = [line for line in metrics(tmp_path / "run") if "loss" in line]
    assert [line["step"] for line in trained] == list(range(1, 13))
    assert [line["tokens"] for line in trained] == [
        line["tokens"] for line in metrics(run) if "loss" in line
    ]


def test_a_micro_batch_that_was_found_is_recorded_and_kept(
    recipe: PretrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on from its middle where another one would be found."""
    half = at(recipe, tmp_path / "run", global_batch=128, steps=4, checkpoint_every=2)
    folder = pretrain(at(half, tmp_path / "run", micro_batch="auto"))
    assert (
        load_recipe(PretrainRecipe, folder / "recipe.yaml").micro_batch
        == auto_micro_batch.CPU_MOST
        == 64
    )
    monkeypatch.setattr(auto_micro_batch, "CPU_MOST", 16)
    shutil.rmtree(folder / "checkpoints" / "step-0000004")
    before = weights(folder)
    pretrain(at(half, folder, micro_batch="auto"), resume="auto")
    assert load_recipe(PretrainRecipe, folder / "recipe.yaml").micro_batch == 64 and equal(
        weights(folder), before
    )
    fixed = pretrain(at(half, tmp_path / "fixed", micro_batch=64))
    assert equal(weights(fixed), before)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"global_batch": 128}, {"sequence_length": 32}])
def test_a_resume_on_other_data_is_refused(
    recipe: PretrainRecipe, run: Path, tmp_path: Path, changes: dict[str, int]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(UserError, match=f"{next(iter(changes))} was"):
        pretrain(at(recipe, tmp_path / "run", **changes), resume="auto")
    assert metrics(tmp_path / "run") == metrics(run)


def test_a_resume_takes_a_recipe_of_another_version(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text("a_key_of_old: 1\n")
    pretrain(at(recipe, tmp_path / "run"), resume="auto")
    assert equal(weights(tmp_path / "run"), weights(run))


def test_a_resume_of_another_model_is_refused(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    assert recipe.model is not None
    wider = recipe.model.model_copy(update={"intermediate_size": 64})
    with pytest.raises(UserError, match=r"model\.intermediate_size was 32, is 64"):
        pretrain(at(recipe, tmp_path / "run", model=wider), resume="auto")


def phase_two(recipe: PretrainRecipe, start_from: Path, output: Path) -> PretrainRecipe:
    return at(
        recipe,
        output,
        model=None,
        start_from=str(start_from),
        sequence_length=32,
        max_predictions=5,
        steps=3,
    )


def test_phase_two_goes_on_from_phase_one(
    recipe: PretrainRecipe, run: Path, corpus: Corpus, tmp_path: Path
) -> None:
    second = phase_two(recipe, run, tmp_path / "two")
    begun = build_model(second, corpus).state_dict()
    assert all(torch.equal(begun[name], tensor) for name, tensor in weights(run).items())
    folder = pretrain(second)
    first = next(line for line in metrics(folder) if "loss" in line)
    fresh = next(line for line in metrics(run) if "loss" in line)
    assert first["mlm_loss"] < fresh["mlm_loss"] - 0.3
    assert SqueezeBertForPreTraining.from_pretrained(folder).config.max_position_embeddings == 32


def test_a_vocabulary_of_another_size_is_refused(
    recipe: PretrainRecipe, tmp_path: Path, corpus: Corpus
) -> None:
    assert recipe.model is not None
    config = SqueezeBertConfig.model_validate(
        recipe.model.model_dump(exclude_unset=True) | {"vocab_size": 999}
    )
    with pytest.raises(UserError, match=r"150 tokens.*999"):
        pretrain(at(recipe, tmp_path / "run", model=config))
    SqueezeBertForPreTraining(config).save_pretrained(tmp_path / "model", corpus.tokenizer)
    with pytest.raises(UserError, match=r"150 tokens.*999"):
        pretrain(phase_two(recipe, tmp_path / "model", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_other_tokens_in_the_same_number_are_refused(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "final", tmp_path / "model")
    tokens = (run / "final" / "vocab.txt").read_text().split()
    (tmp_path / "model" / "tokenizer.json").unlink()
    (tmp_path / "model" / "vocab.txt").write_text("\n".join([*tokens[:-2], tokens[-1], tokens[-2]]))
    with pytest.raises(UserError, match="differs from that of"):
        pretrain(phase_two(recipe, tmp_path / "model", tmp_path / "run"))
    (tmp_path / "model" / "vocab.txt").unlink()  # a model without a vocabulary is taken at its size
    pretrain(phase_two(recipe, tmp_path / "model", tmp_path / "run"))


def test_a_sequence_over_the_positions_is_refused(
    recipe: PretrainRecipe, tmp_path: Path, corpus: Corpus
) -> None:
    assert recipe.model is not None
    config = recipe.model.model_copy(update={"vocab_size": 150, "max_position_embeddings": 16})
    SqueezeBertForPreTraining(config).save_pretrained(tmp_path / "model", corpus.tokenizer)
    with pytest.raises(UserError, match="more than the 16 positions"):
        pretrain(phase_two(recipe, tmp_path / "model", tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"output": None}, "--output"),
        ({"corpus": "absent"}, "sqzb prepare-corpus"),
        ({"sequence_length": 24}, "not cut to length 24"),
        ({"start_from": "absent", "model": None}, "absent"),
        ({"start_from": ".", "model": None}, "config.json"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    recipe: PretrainRecipe,
    tmp_path: Path,
    changes: dict[str, Any],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=complaint):
        pretrain(recipe.model_copy(update={"output": "run", **changes}))
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_nothing(
    recipe: PretrainRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(at(recipe, tmp_path / "run"), dry_run=True)
    assert not (tmp_path / "run").exists()
    assert "64 = 32 x 2 accumulation x 1 process" in capsys.readouterr().out


def test_without_sop_there_is_one_segment_and_its_weights_stay(
    recipe: PretrainRecipe, corpus: Corpus, tmp_path: Path
) -> None:
    plain = at(recipe, tmp_path / "run", sop=False)
    begun = {
        name: tensor.clone() for name, tensor in build_model(plain, corpus).state_dict().items()
    }
    folder = pretrain(plain)
    assert all(line["sop_loss"] is None for line in metrics(folder) if "loss" in line)
    trained = weights(folder)
    for name in ("sop.weight", "transformer.pooler.dense.weight"):
        assert torch.equal(trained[name], begun[name])
    assert not torch.equal(
        trained["cls.predictions.transform.dense.weight"],
        begun["cls.predictions.transform.dense.weight"],
    )


def test_bf16_trains_fp32_weights(recipe: PretrainRecipe, tmp_path: Path) -> None:
    folder = pretrain(at(recipe, tmp_path / "run", precision="bf16"))
    assert {tensor.dtype for tensor in weights(folder).values()} == {torch.float32}
    losses = [line["mlm_loss"] for line in metrics(folder) if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("in_bf16", [1e8, 8e8])
def test_a_device_without_units_for_bf16_is_told(
    in_bf16: float,
    recipe: PretrainRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        throughput, "peak_flops", lambda device, precision: in_bf16 if precision == "bf16" else 4e8
    )
    pretrain(at(recipe, tmp_path / "run", precision="bf16", steps=1))
    told = " ".join(capsys.readouterr().err.split())
    assert ("this CPU multiplies 4.0 times as fast in fp32. Set precision=fp32." in told) == (
        in_bf16 < 4e8
    )


@pytest.mark.usefixtures("_deferred")
def test_a_step_that_is_not_finite_is_told_and_left_out(
    recipe: PretrainRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = Engine.step
    calls: list[None] = []

    def step(engine: Engine, *args: Any) -> StepResult:
        calls.append(None)
        if len(calls) != 3:
            return own(engine, *args)
        bias = engine.model.get_parameter("transformer.embeddings.LayerNorm.bias")
        hook = bias.register_hook(lambda gradient: gradient * float("nan"))
        result = own(engine, *args)
        hook.remove()
        return result

    monkeypatch.setattr(Engine, "step", step)
    folder = pretrain(at(recipe, tmp_path / "run", log_every=4))
    assert "step 3: the loss or gradient is not finite" in capsys.readouterr().err
    lines = {line["step"]: line for line in metrics(folder) if "loss" in line}
    assert (
        set(lines) == {3, 4, 8, 12} and lines[3]["grad_norm"] is None and lines[12]["grad_norm"] > 0
    )


def test_the_throughput_is_that_of_training_alone(
    recipe: PretrainRecipe,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock, shapes = [0.0], []

    def noted(engine: Engine, batches: list[MicroBatch], *args: Any) -> Any:
        shapes.append(
            [(*batch["input_ids"].shape, batch["mlm_positions"].shape[1]) for batch in batches]
        )
        return step(engine, batches, *args)

    def timed(method: Any, seconds: float) -> Any:
        def call(*args: Any) -> Any:
            clock[0] += seconds
            return method(*args)

        return call

    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(throughput, "peak_flops", lambda device, precision: 2.5e7)
    monkeypatch.setattr(Prefetcher, "take", timed(Prefetcher.take, 0.5))
    step = Engine.step
    monkeypatch.setattr(Engine, "step", timed(noted, 2.0))
    monkeypatch.setattr(Engine, "evaluate", timed(Engine.evaluate, 1000.0))
    lines = [
        line
        for line in metrics(pretrain(at(recipe, tmp_path / "run", log_every=4, evaluate_every=3)))
        if "loss" in line
    ]
    tokens = [0, *(line["tokens"] for line in lines)]
    assert recipe.model is not None
    config = recipe.model.model_copy(update={"vocab_size": corpus.manifest["vocab_size"]})
    flops = []
    for of_step in shapes:
        each = [total(costs(config, n, length, asked, labels=2)) for n, length, asked in of_step]
        flops.append(3 * sum(cost.flops for cost in each))
    assert {rows for of_step in shapes for rows, *_ in of_step} == {recipe.micro_batch} and len(
        {*map(str, shapes)}
    ) > 1
    for number, line in enumerate(lines):
        assert line["tokens_per_second"] == round((tokens[number + 1] - tokens[number]) / 10)
        due = sum(flops[4 * number : 4 * number + 4]) / 10 / 2.5e7
        assert line["mfu"] == pytest.approx(due, abs=1e-4) and line["mfu"] > 0.1
        assert line["data_wait"] == 0.2
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["hardware"]["peak_flops"] == 2.5e7
    )
    last = lines[-1]
    shown = capsys.readouterr().out
    assert f"{last['tokens_per_second']:,} tok/s" in shown
    assert f"mfu {last['mfu']:.0%}  data 20%" in shown


def test_a_corpus_without_a_heldout_part_is_enough(
    recipe: PretrainRecipe, corpus_recipe: CorpusRecipe, tmp_path: Path
) -> None:
    build(
        corpus_recipe.model_copy(update={"output": str(tmp_path / "corpus"), "heldout": 0.0}),
        workers=1,
    )
    assert (
        pretrain(at(recipe, tmp_path / "run", corpus=str(tmp_path / "corpus"), steps=2)) / "final"
    ).is_dir()


@pytest.mark.parametrize("unpad", [False, True], ids=["padded", "unpadded"])
def test_two_processes_train_as_one(recipe: PretrainRecipe, tmp_path: Path, unpad: bool) -> None:
    """The same losses, with dropout, from one process of 4 micro-batches and two of 2, which find
    their size.
    """
    sizes = {"steps": 4, "global_batch": 256, "micro_batch": 64}
    short = at(recipe, tmp_path / "one", unpad=unpad, **sizes)
    one = lasting(pretrain(short))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from sqzb.recipe import PretrainRecipe, load_recipe; from sqzb.pretraining.job import "
        "pretrain\n"
        "pretrain(load_recipe(PretrainRecipe, Path(sys.argv[1]), ['micro_batch=auto'], "
        "output=sys.argv[2]))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [torchrun.__file__, "--nproc-per-node", "2", "--master-port", str(port)]
    done = fork_server.run(
        [
            sys.executable,
            *launch,
            str(script),
            str(tmp_path / "one" / "recipe.yaml"),
            str(tmp_path / "two"),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    two = lasting(tmp_path / "two")
    assert load_recipe(PretrainRecipe, tmp_path / "two" / "recipe.yaml").micro_batch == 64
    assert json.loads((tmp_path / "two" / "run.json").read_text())["hardware"]["processes"] == 2
    assert len(one) == len(two) > 4
    for expected, line in zip(one, two, strict=True):
        assert line == pytest.approx(expected, rel=1e-4)
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, rtol=0, atol=1e-4)


def test_total_steps_change_only_with_extend(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    longer = at(recipe, tmp_path / "run", steps=16)
    with pytest.raises(UserError, match=r"steps was 12, is 16 \(--extend allows"):
        pretrain(longer, resume="auto")
    pretrain(longer, resume="auto", extend=True)
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss" in line] == list(
        range(1, 17)
    )


def test_a_checkpoint_past_the_last_step_is_refused(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shorter, final = (
        at(recipe, tmp_path / "run", steps=8),
        tmp_path / "run" / "final" / "model.safetensors",
    )
    before = final.read_bytes()
    with pytest.raises(
        UserError, match=r"step-0000012 is past the run's last step, 8\. Give more steps"
    ):
        pretrain(shorter, resume="auto", extend=True)
    assert final.read_bytes() == before
    pretrain(shorter, resume=str(tmp_path / "run" / "checkpoints" / "step-0000008"), extend=True)
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss" in line] == list(
        range(1, 9)
    )
    assert final.read_bytes() != before


def test_another_corpus_is_refused(
    recipe: PretrainRecipe, run: Path, tmp_path: Path, corpus: Corpus
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(corpus.folder, tmp_path / "corpus")
    moved = at(recipe, tmp_path / "run", corpus=str(tmp_path / "corpus"))
    pretrain(moved, resume="auto")  # the same at another place
    manifest = corpus.manifest | {"heldout_unigram_nats": 1.0}
    (tmp_path / "corpus" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="the corpus has changed"):
        pretrain(moved, resume="auto")


def test_a_checkpoint_can_be_named(recipe: PretrainRecipe, run: Path, tmp_path: Path) -> None:
    """Also that of another folder: the run then goes on here."""
    named = run / "checkpoints" / "step-0000008"
    pretrain(at(recipe, tmp_path / "run"), resume=str(named))
    assert equal(weights(tmp_path / "run"), weights(run))
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss" in line] == [9, 10, 11, 12]
    with pytest.raises(UserError, match="no checkpoint"):
        pretrain(at(recipe, tmp_path / "other"), resume=str(run))


def test_a_finished_run_that_goes_on_stays_as_it_is(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    pretrain(at(recipe, tmp_path / "run"), resume="auto")
    assert metrics(tmp_path / "run") == metrics(run) and equal(
        weights(tmp_path / "run"), weights(run)
    )


def test_a_damaged_checkpoint_is_passed_over(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    moments = tmp_path / "run" / "checkpoints" / "step-0000012" / "optimizer.safetensors"
    moments.write_bytes(moments.read_bytes()[:-1])
    pretrain(at(recipe, tmp_path / "run"), resume="auto")
    assert lasting(tmp_path / "run") == lasting(run) and equal(
        weights(tmp_path / "run"), weights(run)
    )


@pytest.mark.parametrize("named", [False, True])
def test_a_checkpoint_is_hashed_once_on_resume(
    recipe: PretrainRecipe, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    shutil.copytree(run, tmp_path / "run")
    newest, hashed, own = tmp_path / "run" / "checkpoints" / "step-0000012", [], sha256

    def noted(path: Path) -> str:
        hashed.append(path)
        return own(path)

    monkeypatch.setattr(checkpoints, "sha256", noted)
    pretrain(at(recipe, tmp_path / "run"), resume=str(newest) if named else "auto")
    assert sorted(hashed) == sorted(
        path for path in newest.iterdir() if path.name != "manifest.json"
    )


def test_a_second_run_in_the_folder_is_refused(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    with locked(tmp_path / "run") as ours:
        assert ours
        with pytest.raises(UserError, match="Another run is using"):
            pretrain(at(recipe, tmp_path / "run"), resume="auto")


def test_too_small_a_disk_is_told_before_anything_runs(
    recipe: PretrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(UserError, match="checkpoints and the model will take"):
        pretrain(at(recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.fixture(params=[False, True], ids=["at once", "deferred"])
def _deferred(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps as a CPU takes them, and as a GPU: the figures are looked at when the next step is on
    its way.
    """
    own = Engine.__init__
    monkeypatch.setattr(Engine, "__init__", partialmethod(own, deferred=request.param))


def break_steps(monkeypatch: pytest.MonkeyPatch, broken: set[int], factor: float) -> None:
    """Multiply the figures of these calls of Engine.step; their gradients are lost if it is not
    finite.
    """
    own, calls = Engine.step, iter(range(1, 10**6))

    def step(engine: Engine, *args: Any) -> StepResult:
        if next(calls) not in broken:
            return own(engine, *args)
        hook = engine.model.get_parameter("transformer.embeddings.LayerNorm.bias").register_hook(
            lambda gradient: gradient * factor
        )
        result = own(engine, *args)
        hook.remove()
        return StepResult({name: value * factor for name, value in result.items()})

    monkeypatch.setattr(Engine, "step", step)


@pytest.mark.usefixtures("_deferred")
def test_too_many_bad_steps_in_a_row_end_the_run(
    recipe: PretrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(monkeypatch, {2, 3, 6, 7, 8}, float("nan"))
    with pytest.raises(
        Diverged, match=r"3 consecutive steps, up to step 8.*step-0000004"
    ) as caught:
        pretrain(at(recipe, tmp_path / "run", max_skipped_steps=3))
    assert caught.value.exit_code == 3
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-0000004", "step-0000008"]
    skipped = [line for line in metrics(tmp_path / "run") if line.get("skipped")]
    assert [line["step"] for line in skipped] == [2, 3, 6, 7, 8]
    assert all(len(line["made_of"]) == 64 and line["made_of"][0][0] == 0 for line in skipped[:2])


@pytest.mark.usefixtures("_deferred")
@pytest.mark.parametrize(("spike", "saved"), [(26, 24), (30, 28)], ids=["within", "last"])
def test_a_spike_is_rolled_back_and_left_out(
    recipe: PretrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spike: int, saved: int
) -> None:
    longer = at(recipe, tmp_path / "run", **SPIKES, steps=30, on_spike="rollback")
    break_steps(monkeypatch, {spike}, 10.0)
    pretrain(longer)
    lines = metrics(tmp_path / "run")
    back = next(line for line in lines if "rolled_back_from" in line)
    assert (
        back["step"] == saved and back["rolled_back_from"] == spike and len(back["made_of"]) == 32
    )
    trained = [line["step"] for line in lines if "loss" in line and "lr" in line]
    assert trained == [step for step in range(1, 31) if step != spike]
    assert [line["step"] for line in lines if line.get("left_out")] == [spike]
    # Killed and gone on from a checkpoint behind it, the step stays left out.
    state = json.loads(
        (tmp_path / "run" / "checkpoints" / "step-0000030" / "trainer.json").read_text()
    )
    assert state["watch"]["left_out"] == [spike - 1]


@pytest.mark.usefixtures("_deferred")
def test_a_spike_is_told(
    recipe: PretrainRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_steps(monkeypatch, {26}, 10.0)
    pretrain(at(recipe, tmp_path / "run", **SPIKES, steps=28))
    assert "step 26: the loss" in capsys.readouterr().err


def test_what_was_not_evaluated_is_when_the_run_goes_on(
    recipe: PretrainRecipe, run: Path, tmp_path: Path
) -> None:
    """Killed between saving step 8 and evaluating it, with evaluations every 4 steps."""
    every = at(recipe, tmp_path / "whole", evaluate_every=4)
    pretrain(every)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-0000012")
    kept = [line for line in metrics(tmp_path / "whole") if line["step"] <= 8][:-1]
    (tmp_path / "cut" / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in kept)
    )
    pretrain(at(every, tmp_path / "cut"), resume="auto")
    assert lasting(tmp_path / "cut") == lasting(tmp_path / "whole")
