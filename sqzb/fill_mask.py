"""The most likely tokens for each [MASK] of a text."""

import torch

from sqzb.errors import UserError
from sqzb.model.open import open_squeezebert_mlm
from sqzb.tokenizer import MASK, special_ids
from sqzb.training.engine import start_accelerator


def fill_mask(path: str, text: str, top: int) -> list[list[tuple[str, float]]]:
    """Return for each [MASK] of the text the `top` most likely tokens with their probabilities.

    Raises:
        UserError: there is no [MASK], the text is too long, or the model has no MLM head.
    """
    opened = open_squeezebert_mlm(path)
    model, tokenizer = opened.model, opened.tokenizer
    ids, mask = tokenizer.encode(text).ids, special_ids(tokenizer).mask
    if mask not in ids:
        raise UserError(
            f"There is no {MASK} in the text. Write {MASK}, in capitals, for each missing token."
        )
    if len(ids) > model.config.max_position_embeddings:
        raise UserError(
            f"The text has {len(ids)} tokens, and the model takes at most "
            f"{model.config.max_position_embeddings}. Shorten the text."
        )
    device = start_accelerator().device
    inputs = torch.tensor([ids], device=device)
    with torch.no_grad():
        logits = model.to(device).eval()(inputs).logits
    probabilities = logits[inputs == mask].softmax(-1)
    probabilities = probabilities[:, : tokenizer.get_vocab_size()]  # a model may have more rows
    values, indices = probabilities.topk(min(top, probabilities.shape[1]))

    answers = []
    for ids_of_mask, values_of_mask in zip(indices.tolist(), values.tolist(), strict=True):
        tokens = [str(tokenizer.id_to_token(token)) for token in ids_of_mask]
        answers.append(list(zip(tokens, values_of_mask, strict=True)))
    return answers
