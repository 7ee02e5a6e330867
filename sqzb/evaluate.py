"""Evaluation: a finetuned model on its task, or a pretrained one on held-out text of a corpus."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqzb import console
from sqzb.corpus.store import MANIFEST, Corpus
from sqzb.data.dataset import Classes, DataSet, Example, are_labelled
from sqzb.data.own import OwnData
from sqzb.errors import UserError
from sqzb.export.folder import is_export, read_record
from sqzb.export.opened import open_finetuned_export
from sqzb.finetuning.calibration import Calibration, calibration_errors
from sqzb.finetuning.evaluation import decide, measure_splits
from sqzb.finetuning.finetuned import Finetuned, data_for, open_finetuned
from sqzb.finetuning.mistakes import by_name, find_mistakes, print_mistakes
from sqzb.finetuning.report import print_details, print_validation_report
from sqzb.model.open import open_for_pretraining
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.evaluation import LABELS, evaluate_heldout
from sqzb.pretraining.report import print_heldout_report
from sqzb.pretraining.start import check_fit, check_vocabulary
from sqzb.recipe import PretrainRecipe
from sqzb.training.engine import Evaluator, start_accelerator
from sqzb.training.run_folder import folders_of, places_of, recipe_of

Keep = Callable[[dict[str, Any]], None]


def _nowhere(figures: dict[str, Any]) -> None:
    """Keep no figures."""


def data_of(
    path: str,
    task_name: str | None,
    glue_dir: Path | None,
    files: Sequence[str] = (),
    text: Sequence[str] = (),
    label: str | None = None,
) -> DataSet:
    """Return the data set to measure a model on, as `data_for` does; an export has its run's.

    Raises:
        UserError: the data cannot be used, or is not known because the run of an export is gone.
    """
    if not is_export(path):
        return data_for(path, task_name, glue_dir, files, text, label)
    run = read_record(Path(path)).source
    try:
        return data_for(run, task_name, glue_dir, files, text, label)
    except UserError as error:
        raise UserError(f"{path} is an export of {run}, whose data it takes. {error}") from error


def _open(path: str, data: DataSet) -> Finetuned:
    if is_export(path):
        return open_finetuned_export(Path(path), data)
    return open_finetuned(path, data)


def evaluate_task(path: str, data: DataSet, split: str, keep: Keep = _nowhere) -> dict[str, Any]:
    """Print and return the figures of a finetuned model on a data set; an export runs it too.

    split: "validation" gives figures, confusion matrices and the worst mistakes; so does "test" if
    its examples have labels. GLUE keeps these back: there "test" gives predictions. MNLI has two
    splits of each.
    keep: is called with all figures before they are printed.

    Raises:
        UserError: the data set has no such split.
    """
    finetuned = _open(path, data)
    kind = data.kind
    names = data.test_splits if split == "test" else data.validation_splits
    if not names:
        advice = "Give --split test."
        if split == "test":
            advice = (
                "Finetune with --test FILE, measure examples that have labels with --data FILE, or "
                "predict with `sqzb predict RUN --file FILE`."
            )
        raise UserError(f"{data.name} has no {split} split. {advice}")
    report: dict[str, Any] = {
        "path": path,
        "task": data.name,
        "split": split,
        "labels": list(kind.names),
    }
    examples = {name: _load(data, name) for name in names}
    encoded = {name: finetuned.encode(examples[name]) for name in names}
    for name in names:
        for warning in finetuned.unseen_warnings(examples[name], encoded[name]):
            console.warn(f"{data.name}, {name}: {warning}")
    logits = {name: finetuned.logits(encoded[name]) for name in names}
    thresholds = finetuned.thresholds
    if not all(map(are_labelled, examples.values())):
        report["splits"] = {}
        for name in names:
            given = by_name(kind, decide(kind, logits[name], thresholds), encoded[name])
            rows = (str(example.row) for example in examples[name])
            predictions = dict(zip(rows, given, strict=True))
            report["splits"][name] = {"examples": len(given), "predictions": predictions}
        keep(report)
        for name in names:
            count = console.counted(report["splits"][name]["examples"], "prediction")
            console.out.print(f"{path} on {data.name}, {name} split: {count}.")
        return report
    figures = measure_splits(data, logits, encoded, thresholds)
    if isinstance(data, OwnData) and isinstance(kind, Classes):
        calibration = Calibration(finetuned.model.config.calibration_temperature or 1.0)
        figures |= calibration_errors(calibration, logits, encoded)
    details = {
        name: find_mistakes(kind, examples[name], encoded[name], logits[name], thresholds)
        for name in names
    }
    report |= figures | {"splits": details}
    keep(report)
    print_validation_report(f"{path} on {data.name}", data, figures, encoded, split)
    print_details(data, logits, encoded, thresholds)
    for name in names:
        print_mistakes(kind, name, details[name])
    return report


def _load(data: DataSet, split: str) -> list[Example]:
    examples, warnings = data.read(split)
    for warning in warnings:
        console.warn(warning)
    return examples


def corpus_of(path: str) -> Path | None:
    """Return the corpus of a pretraining run, or of its model; None if the path is neither.

    Raises:
        UserError: the corpus is not where the run's recipe says.
    """
    recipe = recipe_of(path, PretrainRecipe)
    if recipe is None:
        return None
    corpus = str(recipe.corpus)
    run = folders_of(Path(path))[-1]
    for folder in places_of(corpus, run, recipe.output):
        if (folder / MANIFEST).is_file():
            return folder
    raise UserError(
        f"{path} was trained on the corpus {corpus}, which is not there: {MANIFEST} is missing. "
        "Give the corpus's folder with --corpus DIR, or a task with --task NAME."
    )


def evaluate_corpus(path: str, corpus_folder: Path, keep: Keep = _nowhere) -> dict[str, Any]:
    """Print and return the held-out losses and accuracies of a pretrained model.

    A run is evaluated as it was trained; any other model at every length of the corpus that it can
    read.

    keep: is called with all figures before they are printed.
    """
    corpus = Corpus(corpus_folder)
    opened = open_for_pretraining(path)
    model = opened.model
    has_sop = opened.folder.has_sop_head  # otherwise the head is new and untrained
    accelerator = start_accelerator()
    report: dict[str, Any] = {"path": path, "corpus": str(corpus_folder)}
    reports: dict[str, dict[str, float]] = {}
    for recipe in _pretrain_recipes(path, corpus, model.config.max_position_embeddings):
        check_fit(model.config, recipe, corpus, path)
        check_vocabulary(opened.tokenizer, corpus, path)
        assert isinstance(recipe.micro_batch, int)  # a run's recipe holds the one that was found
        layout = BatchLayout(
            recipe.micro_batch,
            recipe.micro_batch,
            accelerator.num_processes,
            accelerator.process_index,
        )
        examples = Examples(recipe, corpus, layout)
        figures = evaluate_heldout(Evaluator(accelerator, model, LABELS), examples, None)
        if not has_sop:
            figures = {
                name: value for name, value in figures.items() if not name.startswith("heldout_sop")
            }
        reports[f"{path} at length {recipe.sequence_length}"] = figures
        report[f"length_{recipe.sequence_length}"] = figures | {"sequences": len(examples.heldout)}
    report["heldout_unigram_nats"] = corpus.manifest["heldout_unigram_nats"]
    keep(report)
    for title, figures in reports.items():
        print_heldout_report(title, figures, corpus)
    return report


def _pretrain_recipes(path: str, corpus: Corpus, positions: int) -> list[PretrainRecipe]:
    recipe = recipe_of(path, PretrainRecipe)
    if recipe is not None:
        return [recipe]
    lengths = [length for length in corpus.manifest["sequence_lengths"] if length <= positions]
    return [PretrainRecipe(sequence_length=n, max_predictions=round(0.15 * n) + 1) for n in lengths]
