"""Percentiles are those of the standard library, and ratios compare turns of the same round."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzb.bench.cells import SQZB, Call
from sqzb.bench.contestants import Contestant
from sqzb.bench.results import Entry, Results, Wanted, latency, times_as_fast

ROUNDS, CALLS = 3, 4
seconds = st.floats(1e-4, 10)
turns = st.lists(
    st.lists(st.builds(Call, seconds, seconds), min_size=CALLS, max_size=CALLS),
    min_size=ROUNDS,
    max_size=ROUNDS,
)


def contestant(title: str, flops: int = 1) -> Contestant:
    tokenizer: Any = None
    return Contestant(
        name=title,
        title=title,
        form=SQZB,
        folder=Path(),
        head="encoder",
        inputs=(),
        tokenizer=tokenizer,
        positions=1,
        max_length=1,
        flops=lambda batch, length: flops,
        id2label={},
        weights="",
    )


def entry(calls: list[list[Call]], texts: int = CALLS, runtime: str = "torch") -> Entry:
    return Entry(contestant("a"), runtime, "fp32", texts, turns=calls)


@given(turns)
def test_percentiles_are_those_of_all_calls(calls: list[list[Call]]) -> None:
    figures = latency(calls)
    wall = [call.wall * 1e3 for turn in calls for call in turn]
    assert figures.p50_ms == pytest.approx(statistics.median(wall))
    tenths = statistics.quantiles(wall, n=10, method="inclusive")
    assert figures.p90_ms == pytest.approx(tenths[8])
    assert figures.cpu_ms == pytest.approx(
        statistics.median(call.cpu * 1e3 for turn in calls for call in turn)
    )
    sums = [sum(call.wall for call in turn) for turn in calls]
    assert figures.turn_ms == pytest.approx([1e3 * total for total in sums])
    assert entry(calls).texts_per_second == pytest.approx(CALLS / statistics.median(sums))


@given(turns, st.floats(0.1, 10))
def test_a_ratio_is_that_of_each_round(calls: list[list[Call]], factor: float) -> None:
    slower = [[Call(call.wall * factor, call.cpu) for call in turn] for turn in calls]
    ratio = times_as_fast(entry(calls), entry(slower))
    assert ratio == pytest.approx((factor, factor, factor))


@given(turns)
def test_turns_of_unequal_numbers_of_texts_are_compared_by_text(calls: list[list[Call]]) -> None:
    ratio = times_as_fast(entry(calls, texts=8), entry(calls, texts=4))
    assert ratio == pytest.approx((2, 2, 2))


def test_pairs_have_equal_runtime_and_precision_and_were_measured() -> None:
    calls = [[Call(1.0, 1.0)]]
    ours, theirs = contestant("ours", 10), contestant("theirs", 30)
    entries = [
        Entry(ours, "torch", "fp32", 1, turns=calls),
        Entry(ours, "onnx", "fp32", 1, turns=calls),
        Entry(ours, "onnx", "int8", 1, turns=calls),
        Entry(theirs, "torch", "fp32", 1, turns=calls),
        Entry(theirs, "onnx", "fp32", 1, error="no memory"),
    ]
    flops = {"ours": 10, "theirs": 30}
    results = Results(Wanted("run"), None, [ours], [theirs], flops, entries, (1, 1), None, [])
    assert results.pairs(ours, theirs) == [(entries[0], entries[3])]
    assert results.ceiling(ours, theirs) == 3
