"""BERT's WordPiece tokenizers: trained, loaded from the usual files, saved for other tools."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple, TextIO

import numpy as np
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from sqzb.errors import UserError
from sqzb.files import whole_file, write_json

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
# Number of distinct characters in a vocabulary: a twentieth of its tokens, within these bounds.
# BERT's own vocabulary has 1,000.
ALPHABET = (100, 1000)
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
LONGEST_WORD = 100  # characters; a longer word is [UNK]
# Total length of the distinct words that a vocabulary is trained on; the library takes about 150
# bytes a character. English text has few distinct words, but a script without spaces has nearly as
# many characters in distinct words as in the whole text.
WORD_CHARACTERS = 4_000_000

# How BERT's normalizer is set: the keys of tokenizer_config.json, and the names in the tokenizers
# library.
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


class SpecialIds(NamedTuple):
    """The ids of BERT's special tokens in a vocabulary."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Return the ids of BERT's five special tokens.

    Raises:
        UserError: the vocabulary lacks one of them.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise UserError(
            f"The vocabulary lacks {', '.join(missing)}; a BERT vocabulary has all of "
            f"{SPECIAL_TOKENS}."
        )
    return SpecialIds(*(vocabulary[token] for token in SPECIAL_TOKENS))


def train_tokenizer(texts: Iterable[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """Train a WordPiece vocabulary; equal texts give equal vocabularies.

    Characters beyond the most common ones (ALPHABET) become [UNK]: otherwise each character of many
    rare scripts would take two entries of the vocabulary.

    The tokenizers library numbers continuations of one character (`##a`) in the order of a hash
    table, which differs between runs, and breaks ties between merges by these numbers
    (tokenizers#1794). Therefore a first pass finds the characters, and a second pass gives them to
    the library in a fixed order. The texts may be a stream, so a temporary file keeps them between
    the passes.

    The library's memory grows with the number of distinct words, so WORD_CHARACTERS limits these.
    The number of texts has no limit.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    with TemporaryFile("w+", encoding="utf-8", newline="\n") as kept:
        normalized = (normalizer.normalize_str(text) for text in texts)
        at_least, at_most = ALPHABET
        rare = _beyond(min(at_most, max(at_least, vocab_size // 20)), _keep(normalized, kept))
        words = _words(_without(rare, kept))
        # Each word once has the same characters as the text, a tenth of the work.
        tokens = _learn(words, 0, lowercase, SPECIAL_TOKENS).keys() - set(SPECIAL_TOKENS)
        in_order = sorted(tokens, key=lambda token: (token.startswith(CONTINUATION), token))
        texts = (
            " ".join(filter(words.__contains__, text.split())) for text in _without(rare, kept)
        )
        vocabulary = _learn(texts, vocab_size, lowercase, [*SPECIAL_TOKENS, *in_order])
    return _finish(_bert(_wordpiece(vocabulary), {"lowercase": lowercase}))


def _beyond(commonest: int, texts: Iterable[str]) -> str:
    """Return all characters of the texts but white space and the `commonest` most common ones."""
    counts: Counter[int] = Counter()
    for text in texts:
        points, n = np.unique(
            np.frombuffer(text.encode("utf-32-le"), np.uint32), return_counts=True
        )
        counts.update(dict(zip(points.tolist(), n.tolist(), strict=True)))
    ranked = sorted(
        (p for p in counts if not chr(p).isspace()), key=lambda point: (-counts[point], point)
    )
    return "".join(map(chr, ranked[commonest:]))


def _without(rare: str, file: TextIO) -> Iterator[str]:
    file.seek(0)
    if not rare:
        yield from file
        return
    unwanted = re.compile(f"[{re.escape(rare)}]")
    for line in file:
        yield unwanted.sub(" ", line)


def _words(texts: Iterable[str]) -> Set[str]:
    """Return the distinct words of the texts, of WORD_CHARACTERS characters in all at most.

    When there are too many, the rarest words so far are dropped; if they occur again, their count
    starts from zero (lossy counting).
    """
    counts: dict[str, int] = {}
    characters = 0
    for text in texts:
        for match in re.finditer(r"\S+", text):
            word = match[0]
            times = counts[word] = counts.get(word, 0) + 1
            characters += len(word) if times == 1 else 0
            if characters > WORD_CHARACTERS:
                counts = _commonest(counts, WORD_CHARACTERS // 2)
                characters = sum(map(len, counts))
    return counts.keys()


def _commonest(counts: dict[str, int], characters: int) -> dict[str, int]:
    """Return the most common words, of `characters` characters in all at most; ties keep order."""
    ranked = sorted(counts, key=lambda word: -counts[word])
    ends = accumulate(map(len, ranked))
    return {word: counts[word] for word, end in zip(ranked, ends, strict=True) if end <= characters}


def _learn(
    texts: Iterable[str], vocab_size: int, lowercase: bool, first: Sequence[str]
) -> dict[str, int]:
    """Return tokens and their ids: `first`, all characters, then merges up to `vocab_size`."""
    tokenizer = _bert(_wordpiece({}), {"lowercase": lowercase})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=list(first),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def _keep(texts: Iterable[str], file: TextIO) -> Iterator[str]:
    for text in texts:
        file.write(text + "\n")
        yield text


def load_tokenizer(path: Path, lowercase: bool | None = None) -> Tokenizer:
    """Open a tokenizer.json, a vocab.txt, or a folder with one of them.

    lowercase: whether a vocab.txt, which does not record it, is for lower-case text. By default it
    is taken from a tokenizer_config.json beside the file; without one, a vocabulary without capital
    letters is lower-case.

    Raises:
        UserError: there is no tokenizer, it is broken, or it is not BERT's, so that
            `save_tokenizer` could not write it for other tools.
    """
    if path.is_dir():
        candidates = [path / "tokenizer.json", path / "vocab.txt"]
        file = next((file for file in candidates if file.exists()), None)
        if file is None:
            raise UserError(
                f"{path} has no tokenizer: neither tokenizer.json nor vocab.txt is there. Give a "
                "folder or a Hub id with one of these files."
            )
        path = file
    try:
        tokenizer = (
            _from_vocabulary(path, lowercase)
            if path.suffix == ".txt"
            else Tokenizer.from_file(str(path))
        )
        _check(tokenizer)
        _finish(tokenizer)
    except Exception as error:  # the library raises bare Exception for a broken file
        raise UserError(
            f"{path} cannot be read as a tokenizer ({error}). Give a "
            "tokenizer.json or a vocab.txt of a BERT WordPiece tokenizer."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and vocab.txt, which transformers reads.

    max_length: the longest input of the model, in tokens.
    """
    with whole_file(folder / "tokenizer.json") as aside:
        # Its own `save` raises errors without a number and a path.
        aside.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    with whole_file(folder / "vocab.txt") as aside:
        aside.write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            **{key: getattr(tokenizer.normalizer, name) for key, name in NORMALIZER.items()},
            "model_max_length": max_length,
            **dict(zip(names, SPECIAL_TOKENS, strict=True)),
        },
    )


def _from_vocabulary(path: Path, lowercase: bool | None) -> Tokenizer:
    tokens = path.read_text(encoding="utf-8").split("\n")
    vocabulary = {token: number for number, token in enumerate(tokens) if token}
    config = path.with_name("tokenizer_config.json")
    stored = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    settings = {
        name: stored[key] for key, name in NORMALIZER.items() if stored.get(key) is not None
    }
    if lowercase is not None:
        settings["lowercase"] = lowercase
    own_tokens = [token for token in tokens if token not in SPECIAL_TOKENS]
    settings.setdefault("lowercase", all(token == token.lower() for token in own_tokens))
    return _bert(_wordpiece(vocabulary), settings)


def _wordpiece(vocabulary: dict[str, int]) -> models.WordPiece:
    return models.WordPiece(vocab=vocabulary, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD)


def _bert(model: models.WordPiece, settings: dict[str, bool]) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(**settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _check(tokenizer: Tokenizer) -> None:
    """Raise ValueError for a tokenizer that `save_tokenizer` could not write as BERT's."""
    model, normalizer = tokenizer.model, tokenizer.normalizer
    if not isinstance(model, models.WordPiece) or (
        (model.unk_token, model.continuing_subword_prefix, model.max_input_chars_per_word)
        != (UNK, CONTINUATION, LONGEST_WORD)
    ):
        raise ValueError("its model is not BERT's WordPiece")
    if not isinstance(normalizer, normalizers.BertNormalizer) or not normalizer.clean_text:
        raise ValueError("its normalizer is not BERT's")
    if not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer):
        raise ValueError("its pre-tokenizer is not BERT's")
    vocabulary = tokenizer.get_vocab()
    gap = min(set(range(len(vocabulary) + 1)) - set(vocabulary.values()))
    if gap < len(vocabulary):
        raise ValueError(
            f"no token has the number {gap}; in a vocab.txt, line {gap + 1} is empty or repeated"
        )


def _finish(tokenizer: Tokenizer) -> Tokenizer:
    """Add the special tokens and the template `[CLS] a [SEP] b [SEP]`, which needs their ids."""
    ids = special_ids(tokenizer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.BertProcessing((SEP, ids.sep), (CLS, ids.cls))
    return tokenizer
