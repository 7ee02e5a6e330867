"""Models of transformers that tag words: the numbers of the library, from text and from files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from accelerate import Accelerator
from tokenizers import ByteLevelBPETokenizer

from sqzb.data.dataset import Example, Labels, Tags
from sqzb.finetuning.encode import encode
from sqzb.finetuning.predict import predict
from sqzb.model.open import open_classifier
from sqzb.tokenizer import save_tokenizer, train_tokenizer

WORDS = ["water", "river's", "stone", "wintergarden", "engine"]
NAMES = ("O", "B-X", "I-X")
EXAMPLE = Example(" ".join(WORDS), None, (0, 1, 2, 0, 1), 0, tuple(WORDS))


def save(folder: Path, kind: str, head: str) -> Path:
    """Write a model with its tokenizer: WordPiece, or byte-level pieces with spaces in them."""
    sizes: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "max_position_embeddings": 34,
        "initializer_range": 0.4,
    }
    text = " ".join(WORDS)
    if kind == "Roberta":
        sizes |= {"type_vocab_size": 1, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        tokenizer = ByteLevelBPETokenizer()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        tokenizer.train_from_iterator([text] * 3, 290, show_progress=False, special_tokens=special)
        folder.mkdir()
        tokenizer.save_model(str(folder))
    else:
        save_tokenizer(train_tokenizer([text] * 3, 60, lowercase=True), folder, 32)
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    getattr(transformers, f"{kind}{head}")(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_tags_are_those_of_transformers(tmp_path: Path, kind: str, from_scratch: bool) -> None:
    """A word reads as it does behind a space, where a tokenizer knows the difference."""
    folder = save(tmp_path / "start", kind, "ForMaskedLM")
    labels = dict(enumerate(NAMES))
    opened = open_classifier(folder, from_scratch, tokens=True, id2label=labels)
    encoded = encode([EXAMPLE], opened.tokenizer, 32, Tags(NAMES))
    due = predict(opened.model, encoded, Accelerator(cpu=True))
    opened.model.save_pretrained(tmp_path / "final", opened.tokenizer)

    again = open_classifier(tmp_path / "final")
    assert again.folder.classifies_tokens
    assert encode([EXAMPLE], again.tokenizer, 32, Tags(NAMES))[:2] == encoded[:2]
    np.testing.assert_array_equal(predict(again.model, encoded, Accelerator(cpu=True)), due)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "final")
    model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "final").eval()
    assert model.config.id2label == labels
    given = tokenizer(WORDS, is_split_into_words=True, return_tensors="pt")
    words = given.word_ids()
    with torch.no_grad():
        logits = model(**given).logits[0].numpy()
    firsts = [words.index(number) for number in range(len(WORDS))]
    np.testing.assert_allclose(logits[firsts], due, rtol=1e-4, atol=1e-5)
    pieces = tokenizer.tokenize(" " + EXAMPLE.text_a if kind == "Roberta" else EXAMPLE.text_a)
    assert tokenizer.convert_ids_to_tokens(encoded.ids[0])[1:-1] == pieces


def test_several_labels_are_those_of_transformers(tmp_path: Path) -> None:
    folder = save(tmp_path / "start", "Bert", "ForMaskedLM")
    several = Labels(("x", "y", "z"))
    opened = open_classifier(
        folder, id2label=several.id2label, problem_type="multi_label_classification"
    )
    opened.model.update_config(thresholds=[0.2, 0.5, 0.7])
    example = EXAMPLE._replace(label=(0, 2), words=None)
    encoded = encode([example], opened.tokenizer, 32, several)
    batch = encoded.batch([0])
    opened.model.eval()
    ours = opened.model(**batch)
    opened.model.save_pretrained(tmp_path / "final", opened.tokenizer)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "final")
    due = model.eval()(**batch)
    torch.testing.assert_close(ours.logits, due.logits)
    torch.testing.assert_close(ours.loss_sums["task"].loss / 3, due.loss)
    assert open_classifier(tmp_path / "final").model.config.thresholds == [0.2, 0.5, 0.7]
