"""sqzb embed: a vector for each text of a table, the mean of its tokens' last hidden states."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from sqzb import console
from sqzb.data.arrays import check_ending, open_array
from sqzb.data.dataset import Classes, Example, Text
from sqzb.data.formats import STANDARD_INPUT, open_table
from sqzb.data.texts import check, choose_texts
from sqzb.errors import UserError
from sqzb.export.folder import is_export
from sqzb.export.heads import ENCODER, INPUTS, VECTORS
from sqzb.export.opened import open_export
from sqzb.files import check_output
from sqzb.finetuning.encode import encode
from sqzb.finetuning.finetuned import longest_input, text_columns
from sqzb.finetuning.predict import EVALUATION_BATCH
from sqzb.finetuning.texts import Unseen, count_unseen, unseen_warnings
from sqzb.model.open import Opened, model_folder, open_encoder
from sqzb.training.engine import start_accelerator
from sqzb.using import windows


class Embedded(NamedTuple):
    """Vectors float32 (texts, width), and counts of what the model did not see of the texts."""

    vectors: NDArray[np.float32]
    unseen: Unseen


# Inputs by name, (batch, length), to the mean of each text's tokens, (batch, width).
Means = Callable[[dict[str, Tensor]], Tensor]


class Embedder:
    """An encoder with mean pooling. Encoders that were not trained for it tell little by it.

    columns: of the texts in the training data; none where they are not known.
    """

    def __init__(
        self,
        means: Means,
        width: int,
        columns: tuple[str, ...],
        tokenizer: Tokenizer,
        max_length: int,
    ) -> None:
        self.columns = columns
        self.width = width
        self.max_length = max_length
        self._means = means
        self._tokenizer = tokenizer

    @torch.inference_mode()
    def embed(self, texts: Sequence[Text]) -> Embedded:
        """Return vectors in the order of the texts; each is the mean over the text's tokens.

        [CLS] and [SEP] are among the tokens. Texts over `max_length` tokens are cut.
        """
        examples = []
        for row, text in enumerate(texts):
            first, second = text if isinstance(text, tuple) else (text, None)
            plain = first if isinstance(first, str) else " ".join(first)
            examples.append(Example(plain, second, None, row))
        encoded = encode(examples, self._tokenizer, self.max_length, Classes(("",)))

        vectors = np.zeros((len(texts), self.width), np.float32)
        by_length = np.argsort([len(ids) for ids in encoded.ids], kind="stable")
        for start in range(0, len(by_length), EVALUATION_BATCH):
            rows = by_length[start : start + EVALUATION_BATCH]
            batch = encoded.batch(rows)
            inputs = {name: batch[name] for name in INPUTS}
            vectors[rows] = self._means(inputs).float().cpu().numpy()
        unseen = count_unseen(examples, encoded, self._tokenizer, self.max_length)
        return Embedded(vectors, unseen)


def load_encoder(path: str) -> Embedder:
    """Open the encoder of a run, a saved folder or a Hub id, or an export of one.

    Raises:
        UserError: There is no such model, it cannot be opened, or an export has another head.
    """
    if is_export(path):
        return _load_export(Path(path))
    opened: Opened[Any] = open_encoder(model_folder(path))
    config = opened.model.config
    device = start_accelerator().device
    model = opened.model.to(device).eval()

    def means(batch: dict[str, Tensor]) -> Tensor:
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        return _mean(model(**inputs).last_hidden_state, inputs["attention_mask"])

    columns = text_columns(opened.folder)
    max_length = longest_input(opened.folder, config.max_position_embeddings)
    return Embedder(means, config.hidden_size, columns, opened.tokenizer, max_length)


def _load_export(folder: Path) -> Embedder:
    exported = open_export(folder)
    record = exported.record
    if record.head not in (VECTORS, ENCODER):
        raise UserError(
            f"The export {folder} gives no vectors: its head is {record.head}. Export the run with "
            "--head vectors."
        )

    def means(batch: dict[str, Tensor]) -> Tensor:
        outputs = exported.run(batch)
        if record.head == VECTORS:
            return torch.from_numpy(outputs["sentence_embedding"])
        hidden = torch.from_numpy(outputs["last_hidden_state"])
        return _mean(hidden, batch["attention_mask"])

    width = exported.config.hidden_size
    return Embedder(means, width, tuple(record.columns), exported.tokenizer, record.max_length)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the tokens' hidden states (batch, length, width), without padding."""
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def embed_file(
    path: str, given: str, text: Sequence[str], output: Path, overwrite: bool = False
) -> None:
    """Write the vectors of a table's texts, float32 (rows, width), in the order of the rows.

    A row without a text has the vector of an empty text. Memory use is bounded.

    path    of the model
    given   a file, or - for standard input
    text    columns of the texts; see `choose_texts`
    output  the .npy file, which appears whole or not at all
    overwrite  whether a file that exists at `output` may be replaced

    Raises:
        UserError: The model or the table cannot be used, or the output exists.
        OSError: The output cannot be written.
    """
    check_ending(output)
    check_output(output, overwrite)
    encoder = load_encoder(path)
    table = open_table(given)
    texts = choose_texts(table, text, encoder.columns, None, takes_words=True)
    is_stream = given == STANDARD_INPUT
    total = 0 if is_stream else check(texts, types=False).rows
    empty: Text = "" if len(texts.columns) == 1 else ("", "")
    done, unseen = 0, Unseen()
    with (
        open_array(output, encoder.width) as writer,
        console.bar(Path(given).name, total, show=not is_stream) as bar,
    ):
        for rows in windows(table.rows()):
            row_texts = [texts.text(row) or empty for row in rows]
            embedded = encoder.embed(row_texts)
            writer.write(embedded.vectors)
            unseen += embedded.unseen
            done += len(rows)
            bar.advance(len(rows))
    console.out.print(
        f"{output} has {console.counted(done, 'vector')} of {encoder.width} numbers, in float32."
    )
    for sentence in unseen_warnings(unseen, encoder.max_length):
        console.warn(f"{table.path}: {sentence}")
