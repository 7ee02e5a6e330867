"""Extra texts for a student, which the teacher labels.

The texts are copies of the training examples with some words changed, and unlabelled text of the
user. Words are changed in the text, not in its tokens, so a teacher with another tokenizer reads
the same text as the student.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from numpy.typing import NDArray
from torch import Tensor

from sqzb.console import counted
from sqzb.data.dataset import DataSet, Example, Kind, Tags
from sqzb.data.lines import check_sentences, read_lines
from sqzb.draws import uniform
from sqzb.errors import UserError
from sqzb.files import sha256, whole_file
from sqzb.finetuning.distillation.cache import Cache, sha256_of_texts
from sqzb.finetuning.predict import EVALUATION_BATCH
from sqzb.model.checkpoint import CONFIG, sha256_of
from sqzb.model.open import ModelFolder, Source, open_squeezebert_mlm
from sqzb.recipe import Distillation, FinetuneRecipe
from sqzb.tokenizer import special_ids

# Shares of the words. The first is EDA's for random deletion (Wei and Zou 2019). The second is
# ours: all replaced words of a text are masked at once, so they are as many as in pretraining,
# where TinyBERT (Jiao et al. 2020) masks one word after the other and replaces 40 %.
DROPPED, REPLACED = 0.1, 0.15
CANDIDATES = 15  # most likely words, from which a replacement is sampled: TinyBERT's K
# Copies in a file. A file takes seconds to compute, because other processes wait for the last one.
CHUNK = 1024
# The decision that a draw is for, as a part of its key, so that decisions are independent.
_FATE, _WORD = range(2)

Texts = tuple[str, str | None]


def check(distillation: Distillation, source: ModelFolder, kind: Kind) -> None:
    """Check that the extra texts of the recipe can be made and labelled.

    source: the folder of the model that the student starts from.
    kind: the kind of the labels.

    Raises:
        UserError: there is no teacher, the labels are tags, or the model has no MLM head.
    """
    asked = [key for key in ("augment", "unlabelled") if getattr(distillation, key)]
    if asked and isinstance(kind, Tags):
        raise UserError(
            f"distillation.{asked[0]} makes texts, and tags belong to words, which texts are not "
            "divided into. Leave it out; the teacher's tags of the training words remain."
        )
    if asked and not distillation.teacher:
        raise UserError(
            f"distillation.{asked[0]} needs a teacher, which labels the texts. Give --teacher "
            "MODEL."
        )
    if distillation.augment and not source.has_mlm_head:
        raise UserError(
            f"distillation.augment: the model in {source.path} has no SqueezeBERT head for masked "
            "words. Start from a pretrained SqueezeBERT, or leave the key out."
        )


def read_unlabelled(distillation: Distillation, data: DataSet) -> list[Example]:
    """Return the examples of the recipe's file of texts without labels; none without a file.

    Raises:
        UserError: the file cannot be read, has no text, or a line has another number of texts than
            the data set.
    """
    if not distillation.unlabelled:
        return []
    file = Path(distillation.unlabelled)
    try:
        rows = read_lines(file)
        check_sentences(data.name, data.texts, rows, file)
    except UserError as error:
        raise UserError(f"distillation.unlabelled: {error}") from error
    examples = [
        Example(row[0], row[1] if len(row) > 1 else None, None, number)
        for number, row in enumerate(rows)
        if row
    ]
    if not examples:
        raise UserError(f"distillation.unlabelled: {file} has no line with text.")
    return examples


def augmented(
    recipe: FinetuneRecipe,
    data: DataSet,
    source: ModelFolder,
    train: Sequence[Example],
    accelerator: Accelerator,
) -> list[Example]:
    """Return the copies of training examples that the recipe asks for, without labels.

    The copies of an example are consecutive, in the order of the training set, and have its row.
    They are read from the cache as far as it has them. All processes that need the others, of this
    run and of other runs, share the work of making them.

    source: the folder of the model that the student starts from, whose MLM head makes the copies.

    Raises:
        UserError: the head's logits are not finite, or the cache is damaged.
    """
    if not recipe.distillation.augment:
        return []
    try:
        examples = _copies(recipe, data, source, train, accelerator)
    except UserError as error:
        raise UserError(f"distillation.augment, of {recipe.model}: {error}") from error
    clear_device_cache(garbage_collection=True)
    return examples


def _copies(
    recipe: FinetuneRecipe,
    data: DataSet,
    source: ModelFolder,
    train: Sequence[Example],
    accelerator: Accelerator,
) -> list[Example]:
    copies = recipe.distillation.augment
    augmenter = Augmenter(source, copies, recipe.seed, accelerator)
    chunk = max(1, CHUNK // copies)
    key = augmenter.key | {"texts": sha256_of_texts(train), "examples_in_a_file": chunk}
    about = {
        "what": "Training examples of a task with words dropped or replaced, in the examples' "
        "order, so many in a file; a line has the texts of one copy.",
        "model": recipe.model,
        "task": data.name,
        "split": "train",
    }
    kept = _TextsCache(Path(recipe.distillation.cache), about, key, train, chunk, copies)
    chunks = kept.read(
        lambda rows: augmenter.copies_of(train[rows], rows.start), accelerator.is_main_process
    )
    texts = (text for chunk in chunks for text in chunk)
    of_copy = (example for example in train for _ in range(copies))
    return [
        Example(a, b, None, example.row) for (a, b), example in zip(texts, of_copy, strict=True)
    ]


class _TextsCache(Cache[list[Texts], list[Texts]]):
    """The cache of augmented texts: JSON lines with the texts of a copy each."""

    title, contents, suffix = "Augmented texts", "texts", ".jsonl"

    def __init__(
        self,
        parent: Path,
        about: dict[str, Any],
        key: dict[str, Any],
        train: Sequence[Example],
        chunk: int,
        copies: int,
    ) -> None:
        super().__init__(parent, about, key, len(train), chunk)
        self._copies, self._pairs = copies, train[0].text_b is not None

    def write(self, path: Path, content: list[Texts]) -> None:
        """Write the texts of a file."""
        with whole_file(path) as aside:
            lines = (json.dumps(texts, ensure_ascii=False) + "\n" for texts in content)
            aside.write_text("".join(lines), encoding="utf-8", newline="\n")

    def load(self, path: Path, rows: slice) -> list[Texts]:
        """Return the texts of a file, after checking that they are as written."""
        try:
            pairs = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
            texts: list[Texts] = [(a, b) for a, b in pairs]
        except (ValueError, TypeError) as error:
            raise self.unfit(f"{path.name} cannot be read ({error})") from error
        due = (rows.stop - rows.start) * self._copies
        if len(texts) != due:
            raise self.unfit(f"{path.name} has {counted(len(texts), 'line')}, not {due}")
        if not all(
            isinstance(a, str) and isinstance(b, str if self._pairs else type(None))
            for a, b in texts
        ):
            raise self.unfit(f"{path.name} has lines that are not the texts of an example")
        return texts


class _Word(NamedTuple):
    """A word of a text.

    start, end: its position in the text.
    ids: its tokens.
    may_change: whether it has a letter or a digit.
    """

    start: int
    end: int
    ids: list[int]
    may_change: bool


class _Mask(NamedTuple):
    """A word to replace.

    own: its token, which is not sampled again; -1 if it has several tokens.
    draw: the random number that samples its replacement.
    """

    text: int
    word: int
    own: int
    draw: float


class _Draft(NamedTuple):
    """An unfinished copy.

    sequences: tokens of each text, each with the number of its mask, or -1.
    changes: for each text, replacements by the number of the word; "" for a dropped word.
    """

    sequences: list[list[tuple[int, int]]]
    masks: list[_Mask]
    changes: list[dict[int, str]]

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts."""
        return sum(map(len, self.sequences))


class Augmenter:
    """Makes `copies` copies of examples, by the MLM head of the SqueezeBERT in a folder.

    All random choices of a copy are functions of (seed, example, copy), and do not depend on the
    rest of the batch, except for the rounding of the head's probabilities. Punctuation never
    changes, and a text keeps at least one word.
    """

    def __init__(self, source: Source, copies: int, seed: int, accelerator: Accelerator) -> None:
        opened = open_squeezebert_mlm(source)
        model, self._tokenizer = opened.model, opened.tokenizer
        self.key: dict[str, Any] = {
            "weights": sha256_of(model.state_dict()),
            "config": sha256(opened.folder.path / CONFIG),
            "tokenizer": hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest(),
            "copies": copies,
            "seed": seed,
            "dropped": DROPPED,
            "replaced": REPLACED,
            "candidates": CANDIDATES,
            "precision": accelerator.mixed_precision,
        }
        self._model = model.to(accelerator.device).eval()
        self._copies, self._seed, self._accelerator = copies, seed, accelerator
        self._special = special_ids(self._tokenizer)
        # Whole words alone: no piece of one, special token or punctuation.
        whole = [number for token, number in self._tokenizer.get_vocab().items() if token.isalnum()]
        if len(whole) <= CANDIDATES:
            raise UserError(
                f"The model's vocabulary has {len(whole)} whole words; {CANDIDATES + 1} are needed."
            )
        self._whole = torch.tensor(sorted(whole), device=accelerator.device)

    def copies_of(self, examples: Sequence[Example], first: int) -> list[Texts]:
        """Return the copies of examples; the copies of an example are consecutive.

        first: number of the first example in the training set.

        Raises:
            UserError: the head's logits are not finite.
        """
        words = [self._words(example) for example in examples]
        drafts = [
            draft
            for number, of_one in enumerate(words, first)
            for draft in self._drafts(of_one, number)
        ]
        order = sorted(range(len(drafts)), key=lambda n: drafts[n].tokens)
        for start in range(0, len(order), EVALUATION_BATCH):
            self._fill([drafts[n] for n in order[start : start + EVALUATION_BATCH]])
        variants = []
        for number, draft in enumerate(drafts):
            example, of_example = examples[number // self._copies], words[number // self._copies]
            texts = [
                _changed(text, own, changes)
                for text, own, changes in zip(
                    _texts(example), of_example, draft.changes, strict=True
                )
            ]
            variants.append((texts[0], texts[1] if len(texts) > 1 else None))
        return variants

    def _words(self, example: Example) -> list[list[_Word]]:
        """Return the words of each text."""
        words_by_text = []
        for text in _texts(example):
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
            words: dict[int | None, _Word] = {}
            for number, token, (start, end) in zip(
                encoding.word_ids, encoding.ids, encoding.offsets, strict=True
            ):
                word = words.get(number)
                start, ids = (start, [token]) if word is None else (word.start, [*word.ids, token])
                words[number] = _Word(start, end, ids, any(map(str.isalnum, text[start:end])))
            words_by_text.append(list(words.values()))
        return words_by_text

    def _drafts(self, words: list[list[_Word]], number: int) -> list[_Draft]:
        places = np.arange(sum(map(len, words)))
        copies = np.arange(self._copies)[:, None]
        fates = uniform(self._seed, number, copies, places, _FATE)
        draws = uniform(self._seed, number, copies, places, _WORD)
        return [self._draft(words, *of_copy) for of_copy in zip(fates, draws, strict=True)]

    def _draft(
        self, words: list[list[_Word]], fates: NDArray[np.float64], draws: NDArray[np.float64]
    ) -> _Draft:
        draft = _Draft([], [], [])
        decided = iter(zip(fates.tolist(), draws.tolist(), strict=True))
        for text, of_text in enumerate(words):
            own = [(*next(decided), word) for word in of_text]
            may_drop = any(word.may_change and fate >= DROPPED for fate, _, word in own)
            sequence: list[tuple[int, int]] = []
            changes: dict[int, str] = {}
            for number, (fate, draw, word) in enumerate(own):
                if word.may_change and fate < DROPPED and may_drop:
                    changes[number] = ""
                elif word.may_change and DROPPED <= fate < DROPPED + REPLACED:
                    sequence.append((self._special.mask, len(draft.masks)))
                    draft.masks.append(
                        _Mask(text, number, word.ids[0] if len(word.ids) == 1 else -1, draw)
                    )
                else:
                    sequence += [(token, -1) for token in word.ids]
            draft.sequences.append(sequence)
            draft.changes.append(changes)
        room = self._model.config.max_position_embeddings - 1 - len(words)
        while draft.tokens > room:  # a word whose mask is cut off stays as it is
            max(draft.sequences, key=len).pop()
        return draft

    @torch.no_grad()
    def _fill(self, drafts: list[_Draft]) -> None:
        """Sample a word into `changes` for each mask that was not cut off."""
        shape = len(drafts), max(draft.tokens + 1 + len(draft.sequences) for draft in drafts)
        ids = np.full(shape, self._special.pad)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        asked: list[tuple[int, int]] = []  # where there is a mask
        masks: list[_Mask] = []
        for row, draft in enumerate(drafts):
            ids[row, 0], column = self._special.cls, 1
            for text, sequence in enumerate(draft.sequences):
                end = column + len(sequence) + 1
                ids[row, column:end] = [*(token for token, _ in sequence), self._special.sep]
                types[row, column:end] = text
                blanks = [
                    (place, number)
                    for place, (_, number) in enumerate(sequence, column)
                    if number >= 0
                ]
                asked += [(row, place) for place, _ in blanks]
                masks += [draft.masks[number] for _, number in blanks]
                column = end
            mask[row, :column] = 1
        if masks:
            logits = self._logits(ids, mask, types, np.array(asked))
            for (row, _), at, token in zip(asked, masks, self._sampled(logits, masks), strict=True):
                drafts[row].changes[at.text][at.word] = str(self._tokenizer.id_to_token(token))

    def _logits(self, *inputs: NDArray[np.int64]) -> Tensor:
        """Return the logits at the masks, (masks, whole words).

        inputs: ids, mask, types, and the masks' positions (row, column).
        """
        ids, mask, types, asked = (
            torch.from_numpy(array).to(self._accelerator.device) for array in inputs
        )
        with self._accelerator.autocast():
            x = self._model.transformer(ids, mask, types).last_hidden_state[
                asked[:, 0], asked[:, 1]
            ]
            logits = self._model.cls(x, self._model.transformer.embeddings.word_embeddings)
        whole_words: Tensor = logits[:, self._whole].float()
        if not whole_words.isfinite().all():
            raise UserError(
                "The logits of the model's MLM head are not finite. Train or download the model "
                "again, or set precision=fp32."
            )
        return whole_words

    def _sampled(self, logits: Tensor, masks: list[_Mask]) -> list[int]:
        """Sample a token for each mask from the most likely tokens."""
        own = torch.tensor([mask.own for mask in masks], device=logits.device)
        likeliest = logits.masked_fill(self._whole == own[:, None], -torch.inf).topk(CANDIDATES)
        # Sorted by id, so that rounding cannot swap tokens of nearly equal probabilities.
        tokens, order = self._whole[likeliest.indices].sort(1)
        probabilities = likeliest.values.gather(1, order).double().softmax(1).cpu().numpy()
        up_to = probabilities.cumsum(1)
        draws = np.array([mask.draw for mask in masks])[:, None]
        chosen = (up_to <= draws * up_to[:, -1:]).sum(1)
        return list(tokens.cpu().numpy()[np.arange(len(masks)), chosen].tolist())


def _texts(example: Example) -> list[str]:
    return [example.text_a] if example.text_b is None else [example.text_a, example.text_b]


def _changed(text: str, words: list[_Word], changes: dict[int, str]) -> str:
    """Return the text with the words replaced; a dropped word also drops the space before it."""
    if not changes:
        return text
    parts, end = [], 0
    for number, new in sorted(changes.items()):
        before = text[end : words[number].start]
        parts += [before if new else before.rstrip(), new]
        end = words[number].end
    return "".join([*parts, text[end:]]).strip()
