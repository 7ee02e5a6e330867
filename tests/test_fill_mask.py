"""The tokens for a mask are those that transformers finds in the same folder."""

from pathlib import Path

import pytest
import torch

from saved_runs import save_run
from sqzb.errors import UserError
from sqzb.fill_mask import fill_mask
from sqzb.tokenizer import load_tokenizer


@pytest.fixture
def run(vocabulary: Path, tmp_path: Path) -> Path:
    return save_run(tmp_path / "pretrained", vocabulary)


def of_transformers(run: Path, text: str) -> torch.Tensor:
    """Logits of the same folder."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForMaskedLM.from_pretrained(run / "final").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "final")
    with torch.no_grad():
        logits: torch.Tensor = model(
            **tokenizer(text, return_tensors="pt", truncation=True)
        ).logits[0]
    return logits


@pytest.mark.parametrize("text", ["the [MASK] of water", "[MASK] river [MASK]", "the [MASK]."])
def test_the_tokens_for_a_mask_are_those_of_transformers(run: Path, text: str) -> None:
    found = fill_mask(str(run), text, 4)
    logits = of_transformers(run, text)
    tokenizer = load_tokenizer(run / "final")
    places = [
        place for place, token in enumerate(tokenizer.encode(text).tokens) if token == "[MASK]"
    ]
    assert len(found) == len(places) == text.count("[MASK]")
    for place, tokens in zip(places, found, strict=True):
        values, ids = logits[place].softmax(-1).topk(4)
        assert [token for token, _ in tokens] == [
            tokenizer.id_to_token(number) for number in ids.tolist()
        ]
        torch.testing.assert_close(
            torch.tensor([p for _, p in tokens]), values, atol=1e-5, rtol=1e-4
        )


def test_all_tokens_together_are_certain(run: Path) -> None:
    (tokens,) = fill_mask(str(run), "[MASK]", 10**6)
    assert len({token for token, _ in tokens}) == len(tokens) == 150
    assert sum(probability for _, probability in tokens) == pytest.approx(1, abs=1e-5)


def test_what_a_model_cannot_do_is_told(run: Path, vocabulary: Path, tmp_path: Path) -> None:
    mrpc = save_run(tmp_path / "mrpc", vocabulary, task="mrpc")
    for path, text, said in (
        (mrpc, "[MASK]", "has no head for masked tokens"),
        (run, "the [mask] of", r"There is no \[MASK\]"),
        (run, "water " * 31 + "[MASK]", "The text has 34 tokens, and the model takes at most 32"),
    ):
        with pytest.raises(UserError, match=said):
            fill_mask(str(path), text, 5)
