"""The encoder: embeddings, layers and pooler."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sqzb.model.checkpoint import SavedModel
from sqzb.model.config import SqueezeBertConfig
from sqzb.model.layers import Dropout, SqueezeBertLayer, initialize
from sqzb.model.unpadding import SequenceRows, sequence_rows


class EncoderOutput(NamedTuple):
    """The encoder's output: hidden states and the pooled first ones.

    last_hidden_state: (batch, length, width), or (rows, width) without padding.
    pooler_output: (batch, width).
    """

    last_hidden_state: Tensor
    pooler_output: Tensor


class Embeddings(nn.Module):
    """The sum of token, position and type embeddings, with LayerNorm and dropout, as BERT."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, width, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None,
        sequences: SequenceRows | None = None,
    ) -> Tensor:
        """Map ids (batch, length) to embeddings (batch, length, width).

        token_type_ids: as input_ids; None: all of type 0.
        sequences: the places of the sequences, if the ids are rows without padding. Then ids are
        (rows), and embeddings (rows, width).

        Raises:
            ValueError: the sequences are longer than the model's positions.
        """
        length = input_ids.shape[1] if sequences is None else sequences.length
        positions = self.position_embeddings.num_embeddings
        if length > positions:
            raise ValueError(
                f"a sequence of {length} tokens is longer than the model's {positions} positions"
            )
        if sequences is None:
            of_positions = self.position_embeddings.weight[:length]
        else:
            of_positions = self.position_embeddings(sequences.positions)
        x = self.word_embeddings(input_ids) + of_positions
        types = self.token_type_embeddings
        x = x + (types.weight[0] if token_type_ids is None else types(token_type_ids))
        embedded: Tensor = self.dropout(self.LayerNorm(x))
        return embedded


class Encoder(nn.Module):
    """The stack of SqueezeBERT layers."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SqueezeBertLayer(config) for _ in range(config.num_hidden_layers)
        )

    def forward(
        self, x: Tensor, mask: Tensor | None, sequences: SequenceRows | None = None
    ) -> Tensor:
        """Map (batch, length, width), or (rows, width) without padding, to the same shape.

        mask: (batch, 1, 1, length), added to the attention scores; None: no padding.
        sequences: the places of the sequences, if the rows have no padding.
        """
        for layer in self.layers:
            x = layer(x, mask, sequences)
        return x


class Pooler(nn.Module):
    """A linear layer and tanh on the hidden state of the first token, [CLS]."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map hidden states (batch, length, width) to (batch, width)."""
        return torch.tanh(self.dense(x[:, 0]))


class SqueezeBertModel(SavedModel):
    """The encoder without a head: token ids to hidden states."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        initialize(self, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode a batch.

        input_ids, token_type_ids: int64 (batch, length); without types, all tokens are of type 0.
        attention_mask: (batch, length), 1 for tokens and 0 for padding; None: no padding.

        input_ids may also be (rows): the tokens that attention_mask has, one sequence after the
        other, without padding between them. Rows behind the last token are ignored.
        """
        mask = None if attention_mask is None else additive_mask(attention_mask)
        if input_ids.ndim == 2:
            x = self.encoder(self.embeddings(input_ids, token_type_ids), mask)
            return EncoderOutput(x, self.pooler(x))
        assert attention_mask is not None, "rows without padding need the mask of their sequences"
        sequences = sequence_rows(attention_mask, len(input_ids))
        x = self.encoder(self.embeddings(input_ids, token_type_ids, sequences), mask, sequences)
        return EncoderOutput(x, self.pooler(sequences.first(x)[:, None]))


def additive_mask(attention_mask: Tensor) -> Tensor:
    """Turn a mask of 1 and 0, (batch, length), into one to add to scores, (batch, 1, 1, length).

    Padding becomes a number so low that its exponential is 0, but not minus infinity: a row that is
    all padding must stay finite. The number exists in fp32 and in bf16.
    """
    return (attention_mask[:, None, None, :] == 0).float() * -3e38
