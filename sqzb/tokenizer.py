"""BERT's WordPiece tokenizers: trained, loaded from the usual files, saved for other tools."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from sqzb import console
from sqzb.errors import UserError
from sqzb.files import whole_file, write_json
from sqzb.words import (
    LONGEST_WORD,
    distinct_words,
    has_long_words,
    keep_lines,
    lines_without,
    rare_characters,
)

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
PASSES = 3  # over a vocabulary's text, after it has been read

# Share of unknown tokens, or of characters in them, from which a warning is printed.
MANY_UNKNOWN = 0.03

# How BERT's normalizer is set: the keys of tokenizer_config.json, and the names in the tokenizers
# library.
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
DIVIDES = "divides_long_words"  # a key of tokenizer_config.json; absent: false


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
    ids: dict[str, int] = {}
    for token in SPECIAL_TOKENS:
        number = tokenizer.token_to_id(token)
        if number is not None:
            ids[token] = number
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        raise UserError(
            f"The vocabulary lacks {', '.join(missing)}; a BERT vocabulary has all of "
            f"{SPECIAL_TOKENS}."
        )
    return SpecialIds(*ids.values())


def unknown_characters(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], unknown: int | None
) -> int:
    """Return the number of characters in unknown tokens, from tokens and their offsets."""
    total = 0
    for token, (start, end) in zip(ids, offsets, strict=True):
        total += end - start if token == unknown else 0
    return total


def strips_accents(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer removes accents; where nothing else is set, a lower-casing one does."""
    settings = tokenizer.normalizer
    strips: bool | None = settings.strip_accents
    return bool(settings.lowercase if strips is None else strips)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    lowercase: bool,
    strip_accents: bool | None = None,
    show: bool = False,
) -> Tokenizer:
    """Train a WordPiece vocabulary; equal texts give equal vocabularies.

    strip_accents: whether to remove all marks above, below and beside letters; None: as lowercase.
    show: whether to show the progress of the passes over the text, once it has been read.

    Characters beyond the most common ones (ALPHABET) become [UNK]: otherwise each character of many
    rare scripts would take two entries of the vocabulary. In a text of words that WordPiece is too
    short for (LONG_WORDS), the tokenizer divides them.

    The tokenizers library numbers continuations of one character (`##a`) in the order of a hash
    table, which differs between runs, and breaks ties between merges by these numbers
    (tokenizers#1794). Therefore a first pass finds the characters, and a second pass gives them to
    the library in a fixed order. The texts may be a stream, so a temporary file keeps them between
    the passes.

    The library's memory grows with the number of distinct words, so WORD_CHARACTERS limits these.
    The number of texts has no limit.
    """
    settings = {"lowercase": lowercase}
    if strip_accents is not None:
        settings["strip_accents"] = strip_accents
    normalizer = normalizers.BertNormalizer(**settings)
    with TemporaryFile("w+", encoding="utf-8", newline="\n") as kept, ExitStack() as shown:
        normalized = (normalizer.normalize_str(text) for text in texts)
        rare = rare_characters(vocab_size, keep_lines(normalized, kept))
        characters = sum(map(len, lines_without("", kept)))
        bar = shown.enter_context(
            console.bar("Counting words", PASSES * characters, show=show, unit=_of_a_pass)
        )
        words = distinct_words(_passed(lines_without(rare, kept), bar))
        divides = has_long_words(_passed(lines_without(rare, kept), bar))
        # Each word once has the same characters as the text, a tenth of the work.
        blank = _bert(_wordpiece({}), settings, divides)
        tokens = _learn(words, 0, SPECIAL_TOKENS, blank).keys() - set(SPECIAL_TOKENS)
        in_order = sorted(tokens, key=lambda token: (token.startswith(CONTINUATION), token))
        of_words = (
            " ".join(filter(words.__contains__, text.split()))
            for text in _passed(lines_without(rare, kept), bar)
        )
        counted = _then_merging(of_words, shown, show)
        vocabulary = _learn(counted, vocab_size, [*SPECIAL_TOKENS, *in_order], blank)
    return _finish(_bert(_wordpiece(vocabulary), settings, divides))


def _of_a_pass(characters: int) -> str:
    """Return characters of all passes as those of one pass, such as 12.3 M."""
    return f"{characters / PASSES / 1e6:,.1f} M"


def _passed(texts: Iterable[str], bar: console.Bar) -> Iterator[str]:
    """Yield the texts, and move the bar behind each."""
    for text in texts:
        yield text
        bar.advance(len(text))


def _then_merging(texts: Iterable[str], shown: ExitStack, show: bool) -> Iterator[str]:
    """Yield the texts, then show the merges in place of the bar, until `shown` is closed.

    The tokenizers library merges once it has all texts, and reports no progress of the merges.
    """
    yield from texts
    shown.close()
    shown.enter_context(console.bar("Merging pieces", 0, show=show))


def _learn(
    texts: Iterable[str], vocab_size: int, first: Sequence[str], blank: Tokenizer
) -> dict[str, int]:
    """Return tokens and their ids: `first`, all characters, then merges up to `vocab_size`.

    blank: the tokenizer without its vocabulary.
    """
    tokenizer = Tokenizer.from_str(blank.to_str())
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=list(first),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


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
            **_class_for_transformers(tokenizer),
            **{key: getattr(tokenizer.normalizer, name) for key, name in NORMALIZER.items()},
            "model_max_length": max_length,
            **dict(zip(names, SPECIAL_TOKENS, strict=True)),
        },
    )


def _class_for_transformers(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the keys of tokenizer_config.json that choose transformers' class.

    Its BertTokenizer takes only the vocabulary from tokenizer.json, and makes the rest as BERT has
    it. The general class takes the whole file.
    """
    if not _divides(tokenizer):
        return {"tokenizer_class": "BertTokenizer"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": inputs,
        DIVIDES: True,
    }


def _from_vocabulary(path: Path, lowercase: bool | None) -> Tokenizer:
    tokens = path.read_text(encoding="utf-8-sig").split("\n")
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
    return _bert(_wordpiece(vocabulary), settings, stored.get(DIVIDES) is True)


def _wordpiece(vocabulary: dict[str, int]) -> models.WordPiece:
    return models.WordPiece(vocab=vocabulary, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD)


def _bert(model: models.WordPiece, settings: dict[str, bool], divides: bool) -> Tokenizer:
    """Return BERT's tokenizer around a model, without the template for special tokens.

    settings: of the normalizer, by their names in the tokenizers library.
    divides: whether words over LONGEST_WORD characters are divided.
    """
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(**settings)
    tokenizer.pre_tokenizer = _dividing() if divides else pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _dividing() -> pre_tokenizers.PreTokenizer:
    """Return BERT's pre-tokenizer with a limit on the length of words.

    A piece does not end before a mark that belongs to its last letter. A higher limit of WordPiece
    itself, in place of pieces, would take time by the square of a word's length.
    """
    pieces = Regex(rf".{{1,{LONGEST_WORD}}}(?!\p{{M}})")
    return pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(pieces, "isolated")]
    )


def _divides(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer divides words over LONGEST_WORD characters."""
    kind = tokenizer.pre_tokenizer
    return isinstance(kind, pre_tokenizers.Sequence) and (
        kind.__getstate__() == _dividing().__getstate__()
    )


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
    is_bert = isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
    if not is_bert and not _divides(tokenizer):
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
