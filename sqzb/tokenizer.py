"""WordPiece tokenizers as BERT has them: trained, loaded from any of the usual files, saved for other tools."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from sqzb.errors import UserError
from sqzb.files import whole_file, write_json

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"


class SpecialIds(NamedTuple):
    """The numbers of BERT's special tokens in a vocabulary."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """UserError when the vocabulary lacks one of the five."""
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise UserError(f"The vocabulary lacks {', '.join(missing)}; a BERT vocabulary has all of {SPECIAL_TOKENS}.")
    return SpecialIds(*(vocabulary[token] for token in SPECIAL_TOKENS))


def train_tokenizer(texts: Iterable[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """Learn a WordPiece vocabulary; the same texts in the same order give the same vocabulary."""
    tokenizer = _bert(models.WordPiece(unk_token=UNK, max_input_chars_per_word=100), lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _finish(tokenizer)


def load_tokenizer(path: Path, lowercase: bool | None = None) -> Tokenizer:
    """Open a tokenizer.json, a vocab.txt, or a folder with one of them.

    `lowercase` is for a vocab.txt, which does not say it: by default what a tokenizer_config.json beside it says,
    else whether the vocabulary is free of capitals. Raises UserError when there is none or it is broken.
    """
    if path.is_dir():
        found = next((path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).exists()), None)
        if found is None:
            raise UserError(f"{path} has no tokenizer: neither tokenizer.json nor vocab.txt is there.")
        path = found
    try:
        tokenizer = _from_vocabulary(path, lowercase) if path.suffix == ".txt" else Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a broken file
        raise UserError(
            f"{path} cannot be read as a tokenizer ({error}). Give a tokenizer.json or a vocab.txt."
        ) from error
    special_ids(tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and vocab.txt, as transformers expects them of BERT's tokenizer."""
    with whole_file(folder / "tokenizer.json") as aside:
        tokenizer.save(str(aside))
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    with whole_file(folder / "vocab.txt") as aside:
        aside.write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": _lowercase(tokenizer),
            "model_max_length": max_length,
            **dict(zip(names, SPECIAL_TOKENS, strict=True)),
        },
    )


def _lowercase(tokenizer: Tokenizer) -> bool:
    return tokenizer.normalizer is None or tokenizer.normalizer.normalize_str("A") == "a"


def _from_vocabulary(path: Path, lowercase: bool | None) -> Tokenizer:
    tokens = path.read_text(encoding="utf-8").split("\n")
    vocabulary = {token.rstrip("\r"): number for number, token in enumerate(tokens) if token}
    beside = path.with_name("tokenizer_config.json")
    if lowercase is None and beside.exists():
        lowercase = json.loads(beside.read_text(encoding="utf-8")).get("do_lower_case")
    if lowercase is None:
        lowercase = not any(token != token.lower() for token in vocabulary if token not in SPECIAL_TOKENS)
    return _finish(_bert(models.WordPiece(vocab=vocabulary, unk_token=UNK, max_input_chars_per_word=100), lowercase))


def _bert(model: models.WordPiece, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _finish(tokenizer: Tokenizer) -> Tokenizer:
    """Add what needs the numbers of the special tokens: `[CLS] a [SEP] b [SEP]` around a pair."""
    ids = special_ids(tokenizer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.BertProcessing((SEP, ids.sep), (CLS, ids.cls))
    return tokenizer
