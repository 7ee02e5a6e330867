"""The most likely tokens for each [MASK] of a text."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from sqzb.errors import UserError
from sqzb.export.folder import is_export
from sqzb.export.heads import INPUTS, MLM
from sqzb.export.opened import open_export
from sqzb.model.open import open_squeezebert_mlm
from sqzb.tokenizer import MASK, special_ids
from sqzb.training.engine import start_accelerator


class _MaskedLM(NamedTuple):
    """A masked language model. logits: of ids (1, length), on the CPU, (1, length, vocabulary)."""

    tokenizer: Tokenizer
    max_length: int
    logits: Callable[[Tensor], Tensor]


def fill_mask(path: str, text: str, top: int) -> list[list[tuple[str, float]]]:
    """Return for each [MASK] of the text the `top` most likely tokens with their probabilities.

    path: a run, a saved folder or a Hub id, or an export of one.

    Raises:
        UserError: there is no [MASK], the text is too long, or the model has no MLM head.
    """
    model = _open_export(Path(path)) if is_export(path) else _open(path)
    tokenizer = model.tokenizer
    ids, mask = tokenizer.encode(text).ids, special_ids(tokenizer).mask
    if mask not in ids:
        raise UserError(
            f"There is no {MASK} in the text. Write {MASK}, in capitals, for each missing token."
        )
    if len(ids) > model.max_length:
        raise UserError(
            f"The text has {len(ids)} tokens, and the model takes at most {model.max_length}. "
            "Shorten the text."
        )
    inputs = torch.tensor([ids])
    probabilities = model.logits(inputs)[inputs == mask].softmax(-1)
    probabilities = probabilities[:, : tokenizer.get_vocab_size()]  # a model may have more rows
    values, indices = probabilities.topk(min(top, probabilities.shape[1]))

    answers = []
    for ids_of_mask, values_of_mask in zip(indices.tolist(), values.tolist(), strict=True):
        tokens = [str(tokenizer.id_to_token(token)) for token in ids_of_mask]
        answers.append(list(zip(tokens, values_of_mask, strict=True)))
    return answers


def _open(path: str) -> _MaskedLM:
    opened = open_squeezebert_mlm(path)
    device = start_accelerator().device
    model = opened.model.to(device).eval()

    @torch.no_grad()
    def logits_of(ids: Tensor) -> Tensor:
        logits: Tensor = model(ids.to(device)).logits
        return logits.cpu()

    return _MaskedLM(opened.tokenizer, model.config.max_position_embeddings, logits_of)


def _open_export(folder: Path) -> _MaskedLM:
    exported = open_export(folder)
    if exported.record.head != MLM:
        raise UserError(
            f"The export {folder} has no head for masked tokens: its head is "
            f"{exported.record.head}. Export the run with --head mlm."
        )

    def logits(ids: Tensor) -> Tensor:
        ones = torch.ones_like(ids)
        batch = dict(zip(INPUTS, (ids, ones, torch.zeros_like(ids)), strict=True))
        return torch.from_numpy(exported.run(batch)["logits"])

    return _MaskedLM(exported.tokenizer, exported.record.max_length, logits)
