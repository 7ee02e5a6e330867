"""What a run folder tells, whole or damaged."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from report_runs import finetuned, pretrained
from sqzb.errors import UserError
from sqzb.report.runs import (
    FINETUNE,
    PRETRAIN,
    RESUMED,
    ROLLED_BACK,
    SKIPPED,
    Event,
    read_runs,
    starts_from,
)
from sqzb.training.run_folder import EVALUATION, METRICS, RECIPE, RUN

LINES = st.lists(st.fixed_dictionaries({"step": st.integers(0, 50), "loss": st.floats()}))
DAMAGE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"[1]", b"null", b'{"step": true}', b'{"step": -1}', b"[" * 50_000]),
    st.just(b'{"step": 3, "loss": ' + b"9" * 5000 + b"}"),
    st.just(b'{"step": "3", "loss": 1}'),
)


def test_a_pretraining_run(tmp_path: Path) -> None:
    [run] = read_runs([str(pretrained(tmp_path / "one", resumes=[{"step": 20}]))])
    assert (run.name, run.kind, run.steps, run.state) == ("one", PRETRAIN, 40, "finished")
    assert run.final_figures == {"mlm_loss": 0.25, "mlm_accuracy": 0.2}
    assert run.events == [Event(20, RESUMED)]
    assert run.seconds == pytest.approx(80) and run.tokens == 40_000
    assert run.tokens_per_second == 500


def test_time_is_that_of_the_log_where_it_has_one(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "one")
    with (folder / METRICS).open("a") as log:
        log.write('{"step": 41, "time": 123.5}\n')
    assert read_runs([str(folder)])[0].seconds == 123.5


def test_a_finetuning_run(tmp_path: Path) -> None:
    [run] = read_runs([str(finetuned(tmp_path / "one", 0.75))])
    assert (run.kind, run.data, run.steps, run.state) == (FINETUNE, "rte", 10, "finished")
    assert run.final_figures == {"accuracy": 0.75, "score": 0.75}


def test_an_unfinished_run_says_where_it_is(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "one", evaluated=False, reached=7)
    [run] = read_runs([str(folder)])
    assert run.state == "unfinished: step 7 of 40" and run.final_figures == {}
    (folder / METRICS).unlink()
    assert read_runs([str(folder)])[0].state == "no step logged"


def test_a_run_that_goes_on_to_more_steps_is_unfinished(tmp_path: Path) -> None:
    """It still has the final/ of its first end."""
    folder = pretrained(tmp_path / "one", steps=80, reached=60)
    (folder / "final").mkdir()
    assert read_runs([str(folder)])[0].state == "unfinished: step 60 of 80"


def test_events_are_found(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "one", reached=5)
    with (folder / METRICS).open("a") as log:
        log.write('{"step": 6, "loss": null, "skipped": true, "made_of": [[0, 1]]}\n')
        log.write('{"step": 6, "rolled_back_from": 9, "loss": 4.0}\n')
    events = read_runs([str(folder)])[0].events
    assert set(events) == {Event(6, SKIPPED), Event(6, ROLLED_BACK)}


@settings(max_examples=scaled(15))
@given(LINES, st.lists(st.tuples(st.integers(0, 20), DAMAGE), max_size=4))
def test_damaged_lines_are_left_out_and_counted(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[dict[str, float]],
    damage: list[tuple[int, bytes]],
) -> None:
    """The rest is read; of steps that come again, the last line counts."""
    folder = pretrained(tmp_path_factory.mktemp("runs") / "one", steps=1)
    content = [json.dumps(line).encode() for line in lines]
    for place, damaged in damage:
        content.insert(place, damaged)
    (folder / METRICS).write_bytes(b"\n".join(content))
    [run] = read_runs([str(folder)])
    kept: dict[int, float] = {}
    for line in lines:
        if abs(line["loss"]) < float("inf"):
            kept = {step: loss for step, loss in kept.items() if step < line["step"]}
            kept[int(line["step"])] = line["loss"]
    if kept:
        series = run.training["loss"]
        assert dict(zip(series.steps.tolist(), series.values.tolist(), strict=True)) == kept
    assert run.unreadable <= sum(damaged.count(b"\n") + 1 for _, damaged in damage)


@pytest.mark.parametrize("name", [RECIPE, RUN, EVALUATION, METRICS])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[" * 300, b"{}", b"- 1", b'"text"'])
def test_damaged_files_are_as_if_missing(tmp_path: Path, name: str, content: bytes) -> None:
    folder = finetuned(tmp_path / "one")
    (folder / name).write_bytes(content)
    [run] = read_runs([str(folder)])
    assert run.name == "one" and run.state


def test_runs_are_found_below_a_folder_and_named_by_what_differs(tmp_path: Path) -> None:
    for task in ("rte", "mrpc"):
        for seed in (1, 2):
            finetuned(tmp_path / "sweep" / task / f"seed={seed}", task=task, seed=seed)
    pretrained(tmp_path / "base")
    runs = read_runs([str(tmp_path / "sweep"), str(tmp_path / "base" / "final")])
    assert [run.name for run in runs] == [
        *("mrpc/seed=1", "mrpc/seed=2", "rte/seed=1", "rte/seed=2"),
        "base",
    ]
    assert runs[0].sweep == tmp_path / "sweep" and runs[-1].sweep is None
    assert len(read_runs([str(tmp_path / "base"), str(tmp_path / "base")])) == 1


def test_names_are_as_long_as_they_must(tmp_path: Path) -> None:
    paths = [pretrained(tmp_path / name) for name in ("a/one", "b/one", "b/two")]
    runs = read_runs([str(path) for path in paths])
    assert [run.name for run in runs] == ["a/one", "b/one", "two"]


def test_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, reason in (("none", "does not exist"), ("file", "is a file"), ("", "none below it")):
        with pytest.raises(UserError, match=reason):
            read_runs([str(tmp_path / path)])


def test_the_run_that_another_starts_from(tmp_path: Path) -> None:
    one = pretrained(tmp_path / "runs" / "one")
    two = pretrained(tmp_path / "runs" / "two", start_from=str(one))
    three = finetuned(tmp_path / "runs" / "three", model=str(two / "final"))
    runs = read_runs([str(one), str(two), str(three)])
    assert [starts_from(run, runs) for run in runs] == [None, *runs[:2]]


def test_relative_paths_lead_from_where_the_run_was_started(tmp_path: Path) -> None:
    one = pretrained(tmp_path / "runs" / "one")
    two = pretrained(tmp_path / "runs" / "two", start_from="runs/one")
    recipe = (two / RECIPE).read_text().replace(str(two), "runs/two")
    corpus = tmp_path / "data" / "corpus"
    corpus.mkdir(parents=True)
    (corpus / "manifest.json").write_text('{"heldout_unigram_nats": 6.5}')
    (two / RECIPE).write_text(recipe)
    runs = read_runs([str(one), str(two)])
    assert starts_from(runs[1], runs) is runs[0]
    assert [run.baseline for run in runs] == [None, 6.5]


@pytest.mark.parametrize("name", ["units.json", "manifest.json"])
def test_a_corpus_is_no_run(tmp_path: Path, name: str) -> None:
    """A corpus has a recipe.yaml too, and is often in the folder of its runs."""
    pretrained(tmp_path / "phase1")
    (tmp_path / "corpus").mkdir()
    for file in (name, RECIPE):
        (tmp_path / "corpus" / file).write_text("{}")
    assert [run.name for run in read_runs([str(tmp_path)])] == ["phase1"]
    with pytest.raises(UserError, match="is no run"):
        read_runs([str(tmp_path / "corpus")])
