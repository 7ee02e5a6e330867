"""The model card of a finetuned model: what its labelled data and its recipe tell."""

from collections.abc import Mapping, Sequence

from sqzb.data.dataset import Classes, DataSet, Kind, Number, Tags
from sqzb.data.formats.hub import PREFIX
from sqzb.data.metrics import LOWER_IS_BETTER
from sqzb.data.own import OwnData
from sqzb.finetuning.calibration import ECE
from sqzb.glue.tasks import HUB_DATASET, TASKS
from sqzb.hub import hub_id
from sqzb.recipe import FinetuneRecipe, number
from sqzb.training.card import MODEL_ID, Facts, Figure, Measured, Table

# The Hub's names of metrics, where they are not ours. F1's average is in our name.
KINDS = {
    "macro_f1": "f1",
    "micro_f1": "f1",
    "weighted_f1": "f1",
    "entity_f1": "f1",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "subset_accuracy": "accuracy",
    "token_accuracy": "accuracy",
}
CORRELATIONS = ("matthews", "pearson", "spearman")


def card_facts(
    recipe: FinetuneRecipe,
    data: DataSet,
    rows: Mapping[str, int],
    hashes: Mapping[str, str],
    figures: Mapping[str, float],
) -> Facts:
    """Return the content of the model card.

    rows: examples by split.
    hashes: SHA-256 of each input of the run.
    figures: of the model in final/, with `score`.
    """
    is_glue = data.name in TASKS and not isinstance(data, OwnData)
    on_hub = [HUB_DATASET] if is_glue else _hub_ids(recipe.data.train)
    # The table of labels has no names of numbers.
    return Facts(
        title=f"finetuned on {data.name}",
        pipeline="token-classification" if isinstance(data.kind, Tags) else "text-classification",
        start=None if recipe.from_scratch else recipe.model,
        datasets=on_hub,
        licences={data.name: None},
        language="en" if is_glue else None,
        usage=_usage(data),
        labels=() if isinstance(data.kind, Number) else tuple(data.kind.id2label.values()),
        data=(
            Table(("split", "examples"), [(split, f"{n:,}") for split, n in rows.items()]),
            _files(data),
        ),
        hashes=hashes,
        measured=Measured(
            f"GLUE {data.name}" if is_glue else data.name,
            on_hub[0] if on_hub else data.name,
            TASKS[data.name].hub_config if is_glue else None,
        ),
        figures=[_figure(name, value, data) for name, value in figures.items()],
        length=int(number(recipe.max_length)),
        limits=[*_limits(data.kind), *_choice(recipe)],
    )


def _hub_ids(given: Sequence[str]) -> list[str]:
    """Return the Hub ids of the data sets among the files of own data."""
    names = [name.removeprefix(PREFIX) for name in given if name.startswith(PREFIX)]
    asked = [hub_id(name.partition(":")[0]) for name in names]
    return sorted({hub.name for hub in asked if hub is not None})


def _files(data: DataSet) -> Table:
    """Return rows and hashes of the files of own data; files of this disk have no name here."""
    rows = []
    for split, files in data.known.files.items() if isinstance(data, OwnData) else ():
        for file in files:
            origin = file.path if file.path.startswith(PREFIX) else "a local file"
            rows.append((split, origin, f"{file.rows:,}", file.sha256))
    return Table(("split", "file", "rows", "SHA-256 or commit"), rows)


def _usage(data: DataSet) -> str:
    """Return the lines that load the model and ask it about a text, or a pair."""
    pair = data.texts == 2
    text = '{"text": "A text.", "text_pair": "Another."}' if pair else '"A text."'
    ours = '[("A text.", "Another.")]' if pair else '["A text."]'
    task = "token-classification" if isinstance(data.kind, Tags) else "text-classification"
    # Else the pipeline would take the sigmoid of a number.
    plain = ', function_to_apply="none"' if isinstance(data.kind, Number) else ""
    return f"""```python
from transformers import pipeline
classify = pipeline("{task}", "{MODEL_ID}"{plain})
classify({text})
```

With sqzb, which also applies the calibration of the probabilities and of the thresholds:

```python
from sqzb import load
model = load("{MODEL_ID}")
model.predict({ours})
```"""


def _figure(name: str, value: float, data: DataSet) -> Figure:
    """Return a figure with its unit and its split; MNLI's have the half before their name."""
    split, metric = "validation", name
    for of_data in data.validation_splits:
        half = of_data.partition("_")[2]
        if half and name.startswith(f"{half}_"):
            split, metric = of_data, name.removeprefix(f"{half}_")
    return Figure(name, value, _unit(metric, data), KINDS.get(metric, metric), split)


def _unit(metric: str, data: DataSet) -> str:
    if metric == "score":
        scored = data.score_metrics or data.metrics
        return f"mean of {', '.join(scored)}; an error counts negatively"
    if metric in LOWER_IS_BETTER:
        return "unit of the labels"
    if metric in CORRELATIONS:
        return "correlation, -1 to 1"
    if metric.startswith(ECE):
        return "expected calibration error, 0 to 1"
    return "share, 0 to 1"


def _limits(kind: Kind) -> list[str]:
    if isinstance(kind, Number):
        between = f"{kind.low:g} to {kind.high:g}"
        return [f"The model gives each text a number. Its training labels were {between}."]
    if isinstance(kind, Classes):
        return ["The model gives one of the labels above to every text, also to one without any."]
    if isinstance(kind, Tags):
        return ["The model gives one of the labels above to each word."]
    return ["The model gives any number of the labels above to a text: several, one or none."]


def _choice(recipe: FinetuneRecipe) -> list[str]:
    """Return a sentence if the examples of the figures also chose the model."""
    if not recipe.keep_best:
        return []
    return [
        "The best of several models was chosen on the validation examples, so that its figures "
        "there are too high."
    ]
