"""The model that a run starts from, and checks that it fits the corpus."""

import math

import numpy as np
import torch
from tokenizers import Tokenizer

from sqzb.corpus.store import TRAIN, Corpus
from sqzb.draws import Permutation
from sqzb.errors import UserError
from sqzb.model import SqueezeBertConfig, SqueezeBertForPreTraining
from sqzb.model.layers import SqueezeBertLayer
from sqzb.model.open import ModelFolder, open_for_pretraining
from sqzb.recipe import PretrainRecipe

# Chunks whose tokens are counted: enough that the frequency of a usual token is right to a per
# cent, and a second's work.
SAMPLED, SAMPLE_SEED = 20_000, 0


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
    model = SqueezeBertForPreTraining(config)
    if recipe.initialisation.unigram_bias:
        set_unigram_bias(model, corpus, recipe.sequence_length)
    if recipe.initialisation.depth_scaled:
        scale_by_depth(model)
    return model


@torch.no_grad()
def set_unigram_bias(model: SqueezeBertForPreTraining, corpus: Corpus, length: int) -> None:
    """Set the bias of the MLM head to the log frequencies of the corpus's tokens.

    The frequencies, each count plus 1, are those of at most SAMPLED chunks of this length.
    """
    chunks = corpus.split(TRAIN, length)
    numbers = Permutation(len(chunks), SAMPLE_SEED)[np.arange(min(len(chunks), SAMPLED))]
    with corpus.hash_check.explaining():
        tokens, sizes, *_ = chunks.rows(numbers)
        is_token = np.arange(tokens.shape[1]) < sizes[:, None]
        counts = 1 + np.bincount(tokens[is_token], minlength=model.config.vocab_size)
        model.cls.predictions.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))


@torch.no_grad()
def scale_by_depth(model: SqueezeBertForPreTraining) -> None:
    """Divide the weights of the layers that write to the residual by sqrt(2 x layers).

    The sum of all layers' outputs then has the variance of one layer's (as GPT-2, Radford et al.
    2019).
    """
    layers = [layer for layer in model.modules() if isinstance(layer, SqueezeBertLayer)]
    for layer in layers:
        for writing in (layer.post_attention, layer.output):
            writing.conv1d.weight.div_(math.sqrt(2 * len(layers)))


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
