"""The heads of exports, with their outputs."""

from typing import Literal

Head = Literal["classifier", "tokens", "mlm", "encoder", "vectors"]
CLASSIFIER: Head = "classifier"
TOKENS: Head = "tokens"
MLM: Head = "mlm"
ENCODER: Head = "encoder"
VECTORS: Head = "vectors"

# Inputs of every export, int64 (batch, length), in the order of a call.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Outputs of each head by name, with the names of their axes but the last.
OUTPUTS: dict[Head, dict[str, tuple[str, ...]]] = {
    CLASSIFIER: {"logits": ("batch",)},
    TOKENS: {"logits": ("batch", "length")},
    MLM: {"logits": ("batch", "length")},
    ENCODER: {"last_hidden_state": ("batch", "length"), "pooler_output": ("batch",)},
    VECTORS: {"sentence_embedding": ("batch",)},
}
