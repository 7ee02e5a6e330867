"""The model that a run starts from, and checks that it fits the corpus."""

import torch
from tokenizers import Tokenizer

from sqzb.corpus.store import Corpus
from sqzb.errors import UserError
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.open import ModelFolder, open_for_pretraining
from sqzb.recipe import PretrainRecipe


def build_model(
    recipe: PretrainRecipe, corpus: Corpus, start: ModelFolder | None = None
) -> SqueezeBertForPreTraining:
    """Return a new model with the corpus's vocabulary, or the model of `start_from`.

    start: the folder of that model, or of a checkpoint in its place.

    Raises:
        UserError: the vocabulary or the positions of the model do not fit the corpus and the
            recipe.
    """
    vocab_size, pad = corpus.manifest["vocab_size"], corpus.manifest["special_ids"]["pad"]
    if recipe.start_from is not None:
        opened = open_for_pretraining(start or recipe.start_from)
        check_fit(opened.model.config, recipe, corpus, recipe.start_from)
        check_vocabulary(opened.tokenizer, corpus, recipe.start_from)
        return opened.model
    assert recipe.model is not None  # the recipe checks it
    config = recipe.model
    if "vocab_size" not in config.model_fields_set:
        config = config.model_copy(update={"vocab_size": vocab_size})
    config = config.model_copy(update={"pad_token_id": pad})
    check_fit(config, recipe, corpus, "the recipe")
    torch.manual_seed(recipe.seed)
    return SqueezeBertForPreTraining(config)


def check_fit(
    config: SqueezeBertConfig, recipe: PretrainRecipe, corpus: Corpus, origin: str
) -> None:
    """Check that vocabulary size and positions of the model of `origin` fit corpus and recipe.

    Raises:
        UserError: one of them does not fit.
    """
    vocab_size = corpus.manifest["vocab_size"]
    if config.vocab_size != vocab_size:
        raise UserError(
            f"The vocabulary of the corpus {corpus.folder} ({vocab_size:,} tokens) does not fit "
            f"the model of {origin} ({config.vocab_size:,}). Use a corpus that was prepared with "
            "the model's vocabulary."
        )
    if recipe.sequence_length > config.max_position_embeddings:
        raise UserError(
            f"sequence_length {recipe.sequence_length} is more than the "
            f"{config.max_position_embeddings} positions of the model of {origin}. Lower "
            "sequence_length, or start from a model with more positions."
        )


def check_vocabulary(tokenizer: Tokenizer | None, corpus: Corpus, origin: str) -> None:
    """Check that a tokenizer, if there is one, has the corpus's vocabulary.

    origin: the model of the tokenizer, for the message.

    Raises:
        UserError: the vocabulary differs, be it of the same size.
    """
    if tokenizer is not None and tokenizer.get_vocab() != corpus.tokenizer.get_vocab():
        raise UserError(
            f"The vocabulary of the corpus {corpus.folder} differs from that of "
            f"{origin}. Use a corpus that was prepared with the model's vocabulary "
            "(vocabulary.path in the corpus's recipe)."
        )
