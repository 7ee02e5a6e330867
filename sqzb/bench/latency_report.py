"""A race of latency as tables and as JSON."""

from typing import Any

from sqzb import console
from sqzb.bench.contestants import Contestant
from sqzb.bench.race import Spread
from sqzb.bench.report import cpu_flags, hardware
from sqzb.bench.results import LENGTH, Entry, Results, latency, times_as_fast
from sqzb.bench.runtimes import EAGER
from sqzb.data import metrics

MEGA = 1e6


def as_json(results: Results) -> dict[str, Any]:
    """Return all figures, without those that `write_report` adds."""
    wanted = results.wanted
    contestants = []
    for contestant in (*results.own, *results.others):
        contestants.append(
            {
                "name": contestant.title,
                "form": contestant.form,
                "head": contestant.head,
                "weights": contestant.weights,
                "flops_of_a_turn": results.flops[contestant.title],
            }
        )
    return {
        "cpu_flags": cpu_flags(),
        "load": results.load,
        "threads": wanted.threads,
        "batch": wanted.batch,
        "length": None if results.texts else wanted.length or LENGTH,
        "texts": results.texts.origin if results.texts else None,
        "tokens": list(results.lengths),
        "rounds": wanted.rounds,
        "contestants": contestants,
        "cells": [_cell(entry) for entry in results.entries],
        "ratios": [ratio for own in results.own for ratio in _ratios(results, own)],
        "best": _best(results),
        "left_out": results.left_out,
    }


def _cell(entry: Entry) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "model": entry.contestant.title,
        "runtime": entry.runtime,
        "precision": entry.precision,
        "error": entry.error,
        "disk_bytes": entry.disk_bytes,
        "peak_bytes": entry.peak_bytes,
    }
    if entry.turns:
        measured = latency(entry.turns)
        figures |= measured._asdict()
        figures["texts_per_second"] = entry.texts_per_second
        figures["metrics"] = entry.metrics
    return figures


def _ratios(results: Results, own: Contestant) -> list[dict[str, Any]]:
    rows = []
    for other in results.others:
        ceiling = results.ceiling(own, other)
        for ours, theirs in results.pairs(own, other):
            ratio = times_as_fast(ours, theirs)
            # Processor time depends less on other processes of the machine.
            by_cpu = latency(theirs.turns).cpu_ms / latency(ours.turns).cpu_ms
            rows.append(
                {
                    "model": own.title,
                    "against": other.title,
                    "runtime": ours.runtime,
                    "precision": ours.precision,
                    "times_as_fast": ratio._asdict(),
                    "times_the_cpu_ms": by_cpu,
                    "ceiling": ceiling,
                    "share_of_ceiling": None if ceiling is None else ratio.middle / ceiling,
                }
            )
    return rows


def _usual(results: Results) -> Entry | None:
    """Return the other model as most people run it: in eager torch, fp32."""
    for other in results.others[:1]:
        for entry in results.entries_of(other):
            if entry.key == (EAGER, "fp32") and entry.turns:
                return entry
    return None


def _fastest(results: Results) -> Entry | None:
    measured = [entry for own in results.own for entry in results.entries_of(own) if entry.turns]
    return max(measured, key=lambda entry: entry.texts_per_second, default=None)


def _best(results: Results) -> dict[str, Any] | None:
    """Return the fastest cell of the model against the other model as most people run it."""
    fastest, usual = _fastest(results), _usual(results)
    if fastest is None or usual is None:
        return None
    ratio = times_as_fast(fastest, usual)
    return {"cell": fastest.name, "against": usual.name, "times_as_fast": ratio._asdict()}


# The tables


def print_results(results: Results) -> None:
    """Print the machine, a table for each contestant, and the ratios."""
    _print_setting(results)
    for contestant in (*results.own, *results.others):
        _print_contestant(results, contestant)
    for own in results.own:
        if results.others:
            _print_ratios(results, own)
    _print_best(results)
    for entry in results.entries:
        if entry.error is not None:
            console.warn(f"{entry.name} failed: {entry.error}")
    for sentence in results.left_out:
        console.out.print(sentence, soft_wrap=False)


def _print_setting(results: Results) -> None:
    wanted = results.wanted
    shortest, longest = results.lengths
    inputs = f"batch {wanted.batch}, {longest} random tokens"
    if results.texts is not None:
        count = console.counted(results.entries[0].texts, "text")
        inputs = (
            f"batch {wanted.batch}, {count} of {shortest} to {longest} tokens from "
            f"{results.texts.origin}"
        )
    rows = [
        ("Machine", hardware()),
        ("Instructions", ", ".join(cpu_flags()) or "unknown"),
        ("Threads", str(wanted.threads)),
        ("Inputs", inputs),
        ("Rounds", f"{wanted.rounds}, in which the cells take turns"),
    ]
    if results.load is not None:
        rows.append(("Load before", f"{results.load:.1f}"))
    for contestant in results.others[:1]:
        rows.append((f"Weights of {contestant.name}", contestant.weights))
    console.facts(rows)


def _print_contestant(results: Results, contestant: Contestant) -> None:
    data = results.texts.data if results.texts else None
    metric = data.metrics[0] if data else ""
    has_metric = any(entry.metrics for entry in results.entries_of(contestant))
    header = ["runtime", "p50 ms", "p90 ms", "CPU ms", "text/s", "disk", "peak"]
    rows = []
    for entry in results.entries_of(contestant):
        row = [f"{entry.runtime} {entry.precision}", *_numbers(entry)]
        if has_metric:
            value = entry.metrics.get(metric)
            row.append("" if value is None else metrics.shown(metric, value))
        rows.append(row)
    if has_metric:
        header.append(metric.replace("_", " "))
    title = f"{contestant.title}; disk and peak memory in MB"
    console.table(title, header, rows)


def _numbers(entry: Entry) -> list[str]:
    if not entry.turns:
        return ["failed", "", "", "", "", ""]
    measured = latency(entry.turns)
    peak = "" if entry.peak_bytes is None else f"{entry.peak_bytes / MEGA:,.0f}"
    return [
        *(_short(value) for value in (measured.p50_ms, measured.p90_ms, measured.cpu_ms)),
        _short(entry.texts_per_second),
        f"{entry.disk_bytes / MEGA:,.0f}",
        peak,
    ]


def _short(value: float) -> str:
    """Return a number of at most 5 characters up to 99,999."""
    if value >= 1000:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _print_ratios(results: Results, own: Contestant) -> None:
    by_cell: dict[tuple[str, str], dict[str, Spread]] = {}
    for other in results.others:
        for ours, theirs in results.pairs(own, other):
            by_cell.setdefault(ours.key, {})[other.title] = times_as_fast(ours, theirs)
    best_form = results.others[-1]
    ceiling = results.ceiling(own, best_form)
    rows = []
    for (runtime, precision), ratios in by_cell.items():
        row = [f"{runtime} {precision}"]
        for other in results.others:
            row.append(ratios[other.title].text(".2f") if other.title in ratios else "")
        if ceiling is not None:
            ratio = ratios.get(best_form.title)
            row.append("" if ratio is None else f"{ratio.middle / ceiling:.0%}")
        rows.append(row)
    header = ["runtime", *(f"to {other.title}" for other in results.others)]
    if ceiling is not None:
        header.append(f"of {ceiling:.2f}")
    title = f"{own.title}: times as fast (spread)"
    if ceiling is not None:
        title += ", share of the ceiling"
    console.table(title, header, rows)


def _print_best(results: Results) -> None:
    fastest, usual = _fastest(results), _usual(results)
    if fastest is None or usual is None:
        return
    ratio = times_as_fast(fastest, usual).text(".2f")
    console.out.print(
        f"Fastest: {fastest.name}. It is {ratio} times as fast as {usual.name}.", soft_wrap=False
    )
