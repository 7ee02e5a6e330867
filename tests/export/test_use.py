"""Commands that read exports give what they give for the model in torch."""

from pathlib import Path

import numpy as np
import pytest

from export_runs import exported, need, own_run
from own_runs import write_own
from saved_runs import save_run
from sqzb.embed import embed_file, load_encoder
from sqzb.errors import UserError
from sqzb.evaluate import data_of, evaluate_task
from sqzb.export import check
from sqzb.export.heads import Head
from sqzb.fill_mask import fill_mask
from sqzb.model.open import open_for_pretraining

TEXTS = ["the letter", "Water, and a stone bridge over it.", "garden", "", "music " * 40]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check on few texts."""
    need("onnx")
    monkeypatch.setattr(check, "DOCUMENTED", 32)


def test_eval_gives_the_figures_of_the_run(vocabulary: Path, tmp_path: Path) -> None:
    run = own_run(tmp_path, vocabulary)
    folder = exported(run, "onnx")
    reports = []
    for path in (str(run), str(folder)):
        reports.append(evaluate_task(path, data_of(path, None, None), "validation"))
    before, after = reports
    assert after["accuracy"] == before["accuracy"] and after["macro_f1"] == before["macro_f1"]
    matrices = [report["splits"]["validation"]["confusion"] for report in reports]
    assert matrices[0] == matrices[1]

    others = write_own(tmp_path / "others", "classes", 20, 30)
    data = data_of(str(folder), None, None, list(others.validation))
    assert 0 <= evaluate_task(str(folder), data, "validation")["accuracy"] <= 1


def test_eval_needs_data_of_known_labels(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", vocabulary, ("a", "b"))
    folder = str(exported(run, "onnx"))
    with pytest.raises(UserError, match=r"an export of .*run, whose data it takes.*--task"):
        data_of(folder, None, None)
    own = own_run(tmp_path / "own", vocabulary)
    with pytest.raises(UserError, match="has the labels a, b"):
        evaluate_task(folder, data_of(str(own), None, None), "validation")


@pytest.mark.parametrize("head", ["vectors", "encoder"])
def test_embed_gives_the_vectors_of_the_run(head: Head, vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path / "pretrained", vocabulary)
    folder = exported(run, "onnx", head)
    ours, theirs = load_encoder(str(run)), load_encoder(str(folder))
    assert (theirs.width, theirs.max_length) == (ours.width, ours.max_length)
    np.testing.assert_allclose(theirs.embed(TEXTS).vectors, ours.embed(TEXTS).vectors, atol=1e-4)
    (tmp_path / "lines.txt").write_text("the letter\n", encoding="utf-8")
    embed_file(str(folder), str(tmp_path / "lines.txt"), [], tmp_path / "vectors.npy")
    assert np.load(tmp_path / "vectors.npy").shape == (1, ours.width)


def test_fill_mask_gives_the_tokens_of_the_run(vocabulary: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path / "pretrained", vocabulary)
    folder = exported(run, "onnx", "mlm")
    text = "[MASK] river [MASK]"
    before, after = fill_mask(str(run), text, 4), fill_mask(str(folder), text, 4)
    for ours, theirs in zip(before, after, strict=True):
        assert [token for token, _ in ours] == [token for token, _ in theirs]
        expected = [number for _, number in ours]
        np.testing.assert_allclose([number for _, number in theirs], expected, atol=1e-4)
    with pytest.raises(UserError, match="takes at most 32"):
        fill_mask(str(folder), "water " * 31 + "[MASK]", 5)


def test_other_uses_are_refused_with_advice(vocabulary: Path, tmp_path: Path) -> None:
    folder = exported(save_run(tmp_path / "run", vocabulary, ("a", "b")), "onnx")
    with pytest.raises(UserError, match="gives no vectors: its head is classifier"):
        load_encoder(str(folder))
    with pytest.raises(UserError, match="no head for masked tokens: its head is classifier"):
        fill_mask(str(folder), "[MASK]", 1)
    with pytest.raises(UserError, match="is an export, which has no weights for torch"):
        open_for_pretraining(folder)
