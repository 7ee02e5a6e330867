"""The model card of a finished run: final/README.md, which the Hub shows and reads."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sqzb import __version__, console
from sqzb.files import read_json_object, whole_file
from sqzb.hub import HUB_ID, hub_id
from sqzb.model.config import MODEL_TYPE, model_type
from sqzb.recipe import Section
from sqzb.recipe.strict_yaml import dump
from sqzb.training.run_folder import RUN, commits, last_logged

CARD = "README.md"
MODEL_ID = "OWNER/NAME"  # in a card, in place of an id that the model does not have yet
# Keys of recipes that are paths, or may be.
# fmt: off
PATHS = frozenset([
    "output", "corpus", "glue_dir", "cache", "unlabelled", "model", "start_from", "teacher",
    "train", "validation", "test",
])
# fmt: on
# The Hub's identifiers of licences that data has (huggingface.co/docs/hub/repositories-licenses).
# fmt: off
LICENCES = frozenset([
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-2.5",
    "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "gfdl", "odbl", "odc-by", "pddl", "unlicense",
])
# fmt: on


class Figure(NamedTuple):
    """A measured figure.

    kind: the name of the metric on the Hub.
    split: of the data, as the Hub names splits.
    """

    name: str
    value: float
    unit: str
    kind: str
    split: str


class Table(NamedTuple):
    """A table of a card."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Measured(NamedTuple):
    """The data that the figures were measured on.

    type: its Hub id; its name, if it is not on the Hub.
    """

    name: str
    type: str
    config: str | None = None


class Facts(NamedTuple):
    """The content of a card that only the job knows.

    title: behind the kind of model, such as "finetuned on mrpc".
    pipeline: the Hub's name of the kind of use.
    start: path or Hub id of the model that the run started from; None: random weights.
    datasets: Hub ids.
    licences: of the data, by its name; None: not known.
    language: of the data; None: that of the model that the run started from.
    usage: Python and shell blocks.
    data: tables on the data.
    hashes: SHA-256 of each input.
    length: largest number of tokens that the model was trained on.
    limits: sentences.
    """

    title: str
    pipeline: str
    start: str | None
    datasets: Sequence[str]
    licences: Mapping[str, str | None]
    language: str | None
    usage: str
    labels: Sequence[str]
    data: Sequence[Table]
    hashes: Mapping[str, str]
    measured: Measured
    figures: Sequence[Figure]
    length: int
    limits: Sequence[str]


def write_card(run: Path, recipe: Section, facts: Facts) -> None:
    """Write final/README.md of a run: metadata for the Hub, and the text that people read.

    The text follows from the run's files, so that a run that is resumed after its end has the same.
    """
    about = _about(run)
    text = f"---\n{_metadata(run, recipe, facts, about)}---\n{_text(run, recipe, facts, about)}"
    with whole_file(run / "final" / CARD) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def _about(run: Path) -> dict[str, Any]:
    """Return the content of run.json, which is the run's own; of `hub` the commits alone."""
    return {**read_json_object(run / RUN), "hub": commits(run)}


# Metadata


def _metadata(run: Path, recipe: Section, facts: Facts, about: Mapping[str, Any]) -> str:
    """Return the YAML of the card, with its keys in alphabetical order."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=facts.pipeline,
            dataset_type=facts.measured.type,
            dataset_name=facts.measured.name,
            dataset_config=facts.measured.config,
            dataset_split=figure.split,
            dataset_revision=about["hub"].get(facts.measured.type),
            metric_type=figure.kind,
            metric_name=figure.name,
            metric_value=round(figure.value, 6),
            metric_args={"seed": _seed(recipe), "unit": figure.unit},
        )
        for figure in facts.figures
        if math.isfinite(figure.value)
    ]
    before = _start_card(facts.start, about["hub"])
    licence = _licence(facts.licences)
    data = ModelCardData(
        base_model=before.base_model,
        datasets=sorted({*facts.datasets, *before.datasets}) or None,
        eval_results=results or None,
        language=facts.language or before.language,
        library_name="transformers",
        license=licence,
        model_name=_title(run, facts),
        pipeline_tag=facts.pipeline,
        tags=sorted({str(model_type(run / "final")), "sqzb"}),
    )
    text = yaml.safe_dump(data.to_dict(), sort_keys=True, allow_unicode=True, width=math.inf)
    return text if licence else f"# license: left out, because {_why_no_licence(facts)}\n{text}"


def _licence(licences: Mapping[str, str | None]) -> str | None:
    """Return the Hub's identifier of the licence that all data has; None if there is none."""
    names = {(licence or "").strip().lower() for licence in licences.values()}
    name = names.pop() if len(names) == 1 else ""
    return name if name in LICENCES else None


def _why_no_licence(facts: Facts) -> str:
    known = {name: licence for name, licence in facts.licences.items() if licence}
    if not known:
        return "that of the data is not known."
    texts = (f"{name}: {facts.licences[name] or 'not known'}" for name in facts.licences)
    return _line(f"the data's are not one of the Hub's ({'; '.join(texts)}).")


class _Before(NamedTuple):
    """The facts that a model takes over from the one that its run started from."""

    base_model: str | None = None
    datasets: Sequence[str] = ()
    language: str | list[str] | None = None


def _start_card(start: str | None, on_hub: Mapping[str, str]) -> _Before:
    """Return the facts of the start model: from its Hub id, or from the card in its folder."""
    if start is None:
        return _Before()
    asked = hub_id(start)
    if asked is not None and asked.name in on_hub:
        return _Before(asked.name)
    for path in (Path(start) / "final" / CARD, Path(start) / CARD):
        if path.is_file():
            return _facts_in(path)
    return _Before()


def _facts_in(card: Path) -> _Before:
    """Return the Hub ids and the language in a card; nothing of one that cannot be read."""
    from huggingface_hub import ModelCard

    try:
        if not card.read_bytes().startswith(b"---"):
            return _Before()  # no metadata, of which the library would print a warning
        data: Any = ModelCard.load(card, ignore_metadata_errors=True).data
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError, RecursionError):
        return _Before()
    base = data.base_model
    datasets = data.datasets if isinstance(data.datasets, list) else [data.datasets]
    language = data.language if isinstance(data.language, str | list) else None
    return _Before(
        base if isinstance(base, str) and HUB_ID.fullmatch(base) else None,
        [name for name in datasets if isinstance(name, str) and HUB_ID.fullmatch(name)],
        language,
    )


# Text


def _text(run: Path, recipe: Section, facts: Facts, about: Mapping[str, Any]) -> str:
    """Return the card's text in Markdown."""
    kind = model_type(run / "final")
    name = "SqueezeBERT" if kind == MODEL_TYPE else f"model of type {kind}"
    parts = [
        f"# {_title(run, facts)}",
        f"A {name}, {facts.title} with sqzb {__version__}.{_origin(facts, about['hub'])}",
        f"## Use\n\n{facts.usage}",
    ]
    if facts.labels:
        numbered = [(str(index), label) for index, label in enumerate(facts.labels)]
        parts.append(f"## Labels\n\n{_table(Table(('index', 'label'), numbered))}")
    hashes = Table(("input", "SHA-256"), sorted(facts.hashes.items()))
    licence = _licence(facts.licences)
    parts.append(
        "## Data\n\n"
        + "\n".join(_table(table) for table in (*facts.data, hashes) if table.rows)
        + f"\nLicence of the data: {licence or _line(_licence_text(facts.licences))}."
    )
    if facts.figures:
        rows = [(f.name, f"{f.value:.4f}", f.unit, f.split) for f in facts.figures]
        parts.append(
            f"## Figures\n\n{_table(Table(('metric', 'value', 'unit', 'split'), rows))}\n"
            f"Of one run with seed {_seed(recipe)}. Another seed gives other figures."
        )
    parts += [
        f"## Recipe\n\nPaths are left out.\n\n```yaml\n{published_recipe(recipe, about['hub'])}```",
        f"## Intended use and limits\n\n{_limits(facts)}",
        f"## Training time and hardware\n\n{_hardware(run, about)}",
    ]
    return "\n\n".join(parts) + "\n"


def _title(run: Path, facts: Facts) -> str:
    kind = model_type(run / "final")
    return f"{'SqueezeBERT' if kind == MODEL_TYPE else kind} {facts.title}"


def _seed(recipe: Section) -> int:
    seed: int = recipe.model_dump()["seed"]
    return seed


def _origin(facts: Facts, on_hub: Mapping[str, str]) -> str:
    """Return a sentence on the weights that the run started from."""
    if facts.start is None:
        return " The training started from random weights."
    asked = hub_id(facts.start)
    if asked is None or asked.name not in on_hub:
        return " The training started from another model of its author."
    return f" The training started from {asked.name}, commit {on_hub[asked.name]}."


def _licence_text(licences: Mapping[str, str | None]) -> str:
    if not any(licences.values()):
        return "not known"
    return "; ".join(f"{name}: {licence or 'not known'}" for name, licence in licences.items())


def _limits(facts: Facts) -> str:
    sentences = [
        *facts.limits,
        f"Texts of more than {facts.length} tokens are cut, or were not seen in training.",
        "On text of another language, subject or time than the data above, the figures do not "
        "hold: measure the model on data of your own.",
        "The model repeats the biases of its training text. It is not meant for decisions about "
        "people without a person who checks them.",
    ]
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _hardware(run: Path, about: Mapping[str, Any]) -> str:
    """Return time, devices and versions as a table."""
    hardware = about["hardware"]
    device = str(hardware.get("device") or "not known").partition(":")[0]
    name = hardware.get("device_name") or f"{device}, {hardware.get('machine', '')}"
    seconds = (last_logged(run) or {}).get("time")
    time = console.duration(seconds) if isinstance(seconds, int | float) else "not known"
    versions = about.get("versions") or {}
    rows = [
        ("time", time),
        ("devices", f"{hardware.get('processes', 1)} x {name.rstrip(', ')}"),
        ("software", ", ".join(f"{key} {versions[key]}" for key in sorted(versions))),
    ]
    return _table(Table(("", ""), rows)).rstrip("\n")


def published_recipe(recipe: Section, on_hub: Mapping[str, str]) -> str:
    """Return the recipe as YAML with every default, without paths; Hub ids stay.

    on_hub: commits by Hub id.
    """
    return dump(_without_paths(recipe.model_dump(), on_hub))


def _without_paths(values: Mapping[str, Any], on_hub: Mapping[str, str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            kept[key] = _without_paths(value, on_hub)
        elif key not in PATHS or not value:
            kept[key] = value
        else:
            several = [value] if isinstance(value, str) else list(value)
            if all(_is_on_hub(name, on_hub) for name in several):
                kept[key] = value
    return kept


def _is_on_hub(value: Any, on_hub: Mapping[str, str]) -> bool:
    """Return whether the run took a model or data set of this name from the Hub."""
    name = re.split("[:@]", str(value).removeprefix("hub:"))[0]
    return name in on_hub and HUB_ID.fullmatch(name) is not None


def _table(table: Table) -> str:
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in row)} |\n" for row in rows)


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    """Return a text of a user's without line breaks, which would end a row or a comment."""
    return " ".join(text.split())
