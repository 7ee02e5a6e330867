"""Classifiers that transformers opens (extra `hf`), with the interface of SqueezeBERT's.

transformers is imported when a model is opened or saved, not with this module.
"""

import errno
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn

from sqzb.errors import UserError
from sqzb.hub import VOCABULARIES
from sqzb.model.checkpoint import StoredModel, check_shards, first_of, misfits, stored_types
from sqzb.model.config import MOST_LABELS, OF_LABELS, label_count, model_type
from sqzb.model.heads import ClassificationOutput, classified


class ClassifierConfig(NamedTuple):
    """The part of another model's configuration that is used here, under SqueezeBERT's names.

    max_position_embeddings: tokens that a text may have.
    """

    id2label: dict[int, str]
    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    problem_type: str | None
    thresholds: list[float] | None
    calibration_temperature: float | None
    label_scale: list[float] | None

    @property
    def num_labels(self) -> int:
        """Number of labels of the classifier."""
        return len(self.id2label)


class TransformersClassifier(StoredModel):
    """A classifier of transformers, of texts or tokens, with weights in fp32, and its tokenizer.

    transformers runs no code from a folder, and reads only tensors from an old pytorch_model.bin.

    model: a PreTrainedModel.
    tokenizer: its PreTrainedTokenizerFast.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self._tokenizer = tokenizer
        self.config = ClassifierConfig(
            dict(model.config.id2label),
            model.get_input_embeddings().num_embeddings,
            _positions(model),
            model.config.hidden_size,
            problem_type=model.config.problem_type,
            thresholds=getattr(model.config, "thresholds", None),
            calibration_temperature=getattr(model.config, "calibration_temperature", None),
            label_scale=getattr(model.config, "label_scale", None),
        )
        self._takes_types = (
            "token_type_ids" in inspect.signature(model.forward).parameters
            and "token_type_ids" in tokenizer.model_input_names
            and getattr(model.config, "type_vocab_size", 2) > 1
        )

    @classmethod
    def from_folder(
        cls, folder: Path, tokens: bool = False, **changes: Any
    ) -> "TransformersClassifier":
        """Open a local folder.

        tokens: whether the classifier is one of tokens, not of texts.
        changes: `id2label` makes a new head for these labels; `hidden_dropout_prob` and
        `attention_probs_dropout_prob` replace the model's fields for dropout.

        If weights were missing, transformers would initialise them at random; that is refused here.
        With a new head, a missing pooler may be new too.

        Raises:
            UserError: transformers cannot open the folder, it has no fast tokenizer that pads on
                the right, or weights are missing or of another shape.
        """
        check_shards(folder)
        with quiet_transformers(folder) as transformers:
            tokenizer = _fast_tokenizer(transformers, folder, tokens)
            with _told(folder):
                config = _config(transformers, folder, changes)
                model, loading_info = _auto(transformers, tokens).from_pretrained(
                    folder,
                    config=_padding_known(config, tokenizer),
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # _check_loaded reports them by name
                    **LOCAL,
                )
            refuse_types(folder)
            new_head = "id2label" in changes
            head = _head(model, folder)
            _check_loaded(loading_info, head, new_head, folder)
            if new_head:
                fresh = _random(transformers, config, tokens).state_dict()
                model.load_state_dict({name: fresh[name] for name in head}, strict=False)
        return cls(model, tokenizer)

    @classmethod
    def from_sizes(
        cls, folder: Path, tokens: bool = False, **changes: Any
    ) -> "TransformersClassifier":
        """Make a model of the folder's sizes with random weights; arguments as of `from_folder`."""
        with quiet_transformers(folder) as transformers:
            tokenizer = _fast_tokenizer(transformers, folder, tokens)
            with _told(folder):
                config = _padding_known(_config(transformers, folder, changes), tokenizer)
                return cls(_random(transformers, config, tokens), tokenizer)

    def tokenizer(self) -> Tokenizer:
        """Return a copy of the tokenizer's fast form, which pads with the model's own token.

        The original keeps its settings, which `save_pretrained` writes.
        """
        tokenizer: Tokenizer = Tokenizer.from_str(self._tokenizer.backend_tokenizer.to_str())
        tokenizer.no_truncation()
        own = self._tokenizer
        tokenizer.enable_padding(pad_id=own.pad_token_id, pad_token=own.pad_token)
        return tokenizer

    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write the folder.

        tokenizer: if given, the tokenizer that the model was opened with is written, because it has
        more settings than `tokenizer`, its fast form.
        """
        with quiet_transformers(Path(folder)):
            try:
                self.model.save_pretrained(folder)
                if tokenizer is not None:
                    self._tokenizer.save_pretrained(folder)
            except Exception as error:
                # Of Rust's errors, such as a full disk, the number is only in the text.
                number = re.search(r"os error (\d+)", str(error))
                if number is None and not isinstance(error, SafetensorError):
                    raise
                raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error

    def update_config(self, **fields: Any) -> None:
        """Replace fields of the configuration, which `save_pretrained` writes."""
        self.config = self.config._replace(**fields)
        for name, value in fields.items():
            if value is not None or hasattr(self.model.config, name):
                setattr(self.model.config, name, value)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ClassificationOutput:
        """Return logits, and with `labels` a summed loss, as `classified` does.

        token_type_ids: not passed to a model without types.
        """
        types = {"token_type_ids": token_type_ids} if self._takes_types else {}
        return classified(
            self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits, labels
        )

    def forward_flops(self, rows: int, length: int) -> int:
        """Estimate the floating-point operations of a forward on (rows, length) positions.

        The estimate is two operations for each position and each weight that is not an embedding's
        (Kaplan et al. 2020). It leaves out the scores of the attention, and counts a weight that
        layers share (ALBERT) once.
        """
        looked_up = {
            id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)
        }
        weights = sum(p.numel() for p in self.parameters() if p.ndim > 1 and id(p) not in looked_up)
        return 2 * rows * length * weights


# By whether a model has one label.
_PROBLEM_TYPES = {
    True: (None, "regression", "multi_label_classification"),
    False: (None, "single_label_classification", "multi_label_classification"),
}
MOST_LAYERS = 1000
MOST_TOKENS = 10_000_000
# The Hub is not asked again, and no file that is loaded can run code.
LOCAL = {"local_files_only": True, "trust_remote_code": False}


def no_classifier(folder: Path) -> UserError:
    """Return the error for a model without a classifier."""
    return UserError(
        f"The model in {folder} has no classifier. Give a finetuned model. For a pretrained "
        "model, use sqzb fill-mask."
    )


# The library


@contextmanager
def quiet_transformers(folder: Path) -> Iterator[Any]:
    """Yield transformers without its progress bars and warnings.

    The callers report the problems that matter.

    Raises:
        UserError: transformers is not installed, or config.json has a huge number of labels.
    """
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"{folder} holds a model of type {model_type(folder)}, which needs transformers: "
            "pip install 'sqzb[hf]'"
        ) from None
    if label_count(folder) > MOST_LABELS:  # the library would make a name for each
        raise UserError(
            f"{folder / 'config.json'} has num_labels {label_count(folder)}, and {MOST_LABELS:,} "
            "are the most. Correct the file, or get it again."
        )
    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # transformers lets errors of all kinds through
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"transformers cannot open {folder} as a classifier ({why}). Give the folder of a "
            "saved model with its tokenizer, as transformers' save_pretrained writes it. Code "
            "inside a model folder is never run."
        ) from error


def read_sizes(transformers: Any, folder: Path) -> Any:
    """Return the PretrainedConfig in `folder`.

    Raises:
        UserError: a size is so large that the model would take all memory, or all time.
    """
    config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
    config._attn_implementation = None  # a file could name one on the Hub, which is code
    for name, value in config.to_dict().items():
        most = MOST_LAYERS if "layers" in name else MOST_TOKENS
        is_size = "layers" in name or name.endswith(("_size", "_dim", "embeddings", "positions"))
        if is_size and isinstance(value, int) and value > most:
            raise UserError(
                f"{folder / 'config.json'} has {name} {value}, and {most:,} are the most. "
                "Correct the file, or get it again."
            )
    return config


def refuse_types(folder: Path) -> None:
    """Raise UserError if weights are stored in a type that holds no weights, such as int8."""
    problems = misfits(stored_types(folder))
    if problems:
        raise UserError(
            f"The weights in {folder} cannot be used: {first_of(problems)}. Give a model that is "
            "not quantised."
        )


def _config(transformers: Any, folder: Path, changes: Mapping[str, Any]) -> Any:
    config = read_sizes(transformers, folder)
    if "id2label" in changes:
        config.id2label = changes["id2label"]
        config.label2id = {label: number for number, label in changes["id2label"].items()}
        for name in OF_LABELS:
            if hasattr(config, name) or name in changes:
                setattr(config, name, changes.get(name))
    elif config.problem_type not in _PROBLEM_TYPES[len(config.id2label) == 1]:
        raise UserError(
            f"The model in {folder} is for {config.problem_type} of {len(config.id2label)} labels. "
            "Give one that predicts one label of several, several of them, or a number."
        )
    if sorted(config.id2label) != list(range(len(config.id2label))):
        raise UserError(
            f"{folder} does not number its labels 0, 1, 2 without a gap: {config.id2label}."
        )
    _set_dropout(config, changes, folder)
    return config


def _set_dropout(config: Any, changes: Mapping[str, Any], folder: Path) -> None:
    """Set all dropout fields of a configuration from BERT's two names.

    `attention_probs_dropout_prob` sets the fields about attention, `hidden_dropout_prob` the
    others.
    """
    names = [
        name
        for name, value in config.to_dict().items()
        if "drop" in name and "layerdrop" not in name and isinstance(value, int | float)
    ]
    if "hidden_dropout_prob" in changes and not names:
        raise UserError(
            f"dropout: the configuration in {folder} has no field for it. Leave it out."
        )
    for name in names:
        key = "attention_probs_dropout_prob" if "att" in name else "hidden_dropout_prob"
        if key in changes:
            setattr(config, name, changes[key])


def _padding_known(config: Any, tokenizer: Any) -> Any:
    if config.pad_token_id is None:  # a decoder finds the last token of a text by it
        config.pad_token_id = tokenizer.pad_token_id
    return config


def _auto(transformers: Any, tokens: bool) -> Any:
    if tokens:
        return transformers.AutoModelForTokenClassification
    return transformers.AutoModelForSequenceClassification


def _random(transformers: Any, config: Any, tokens: bool) -> Any:
    auto = _auto(transformers, tokens)
    return auto.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _fast_tokenizer(transformers: Any, folder: Path, tokens: bool) -> Any:
    """Return the model's PreTrainedTokenizerFast.

    tokens: whether words are read one by one, each as it is read behind a space.

    Without a vocabulary, transformers would make a tokenizer of special tokens alone; that is
    refused.
    """
    if not any(path for pattern in VOCABULARIES for path in folder.glob(pattern)):
        raise UserError(
            f"{folder} has no tokenizer: none of {', '.join(VOCABULARIES)} is there. "
            "Save the model's tokenizer in the same folder."
        )
    _refuse_huge_ids(folder / "tokenizer.json")
    with _told(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
        if tokens and '"add_prefix_space":false' in tokenizer.backend_tokenizer.to_str():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, add_prefix_space=True, **LOCAL
            )
    for has_fault, fault in (
        (not tokenizer.is_fast, "has no fast form (a tokenizer.json)"),
        (tokenizer.pad_token_id is None, "has no padding token"),
        (tokenizer.padding_side != "right", "pads on the left"),
    ):
        if has_fault:
            raise UserError(
                f"The tokenizer in {folder} ({type(tokenizer).__name__}) {fault}, so that batches "
                "cannot be made. Give another model."
            )
    return tokenizer


def _refuse_huge_ids(path: Path) -> None:
    """Raise UserError if a token has an id up to which the library would allocate memory."""
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        largest = max(vocabulary.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # there is no such table of ids; transformers reports damage
    if isinstance(largest, int) and largest > MOST_TOKENS:
        raise UserError(
            f"{path} gives a token the id {largest}, and {MOST_TOKENS:,} are the most. Correct the "
            "file, or get it again."
        )


def _positions(model: Any) -> int:
    """Return the number of tokens that a text may have.

    RoBERTa and related models number positions from the padding token's id on.
    """
    limit = getattr(model.config, "max_position_embeddings", None) or -1
    limit = limit if limit > 0 else sys.maxsize
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if (
            name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and padding is not None
        ):
            limit = min(limit, module.num_embeddings - padding - 1)
    return int(limit)


def _head(model: Any, folder: Path) -> list[str]:
    """Return the names of the tensors that are not the encoder's."""
    names = list(model.state_dict())
    head = [name for name in names if not name.startswith(f"{model.base_model_prefix}.")]
    if len(head) == len(names):
        raise UserError(
            f"{type(model).__name__} in {folder} cannot be split into encoder and head. Give "
            "another model."
        )
    return head


def _check_loaded(
    loading_info: Mapping[str, Any], head: list[str], new_head: bool, folder: Path
) -> None:
    """Raise UserError for tensors that transformers made because the folder has none that fit."""
    missing, misshapen = (
        set(loading_info["missing_keys"]),
        {name: shapes for name, *shapes in loading_info["mismatched_keys"]},
    )
    if not new_head and missing and missing >= set(head):
        raise no_classifier(folder)
    may_be_new = {*head, *(name for name in missing if "pooler" in name)} if new_head else set()
    problems = [f"missing {name}" for name in sorted(missing - may_be_new)]
    problems += [
        f"{name} has shape {tuple(shapes[0])} instead of {tuple(shapes[1])}"
        for name, shapes in sorted(misshapen.items())
        if name not in may_be_new
    ]
    if problems:
        raise UserError(
            f"The weights in {folder} do not fit its config.json: {first_of(problems)}. Is this "
            "the right folder, and were its files saved together?"
        )
