"""A corpus is compared with its hashes while it is read: no damage is learnt from."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glue_runs import tiny
from sqzb.corpus.store import CHUNKS, SHARDS, Corpus
from sqzb.errors import UserError
from sqzb.pretraining.batches import BatchLayout, Examples
from sqzb.pretraining.inspection import inspect
from sqzb.pretraining.job import pretrain
from sqzb.recipe import PretrainRecipe

RECIPE = PretrainRecipe(sequence_length=16, max_predictions=3, global_batch=8, micro_batch=8)


@pytest.fixture(scope="module")
def copy(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hashes") / "corpus"
    shutil.copytree(corpus.folder, folder)
    return folder


def files(folder: Path) -> list[Path]:
    return sorted([*folder.glob(f"{SHARDS}/*.safetensors"), *folder.glob(f"{CHUNKS}/*")])


def read_all(folder: Path) -> None:
    examples = Examples(RECIPE, Corpus(folder), BatchLayout(8, 8, 1, 0))
    for step in range(3):
        examples.of_step(step)
    list(examples.of_heldout(None))


def test_a_whole_corpus_is_read(copy: Path) -> None:
    read_all(copy)


@settings(suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from(["0", "1"]))
def test_damage_is_found_and_ends_in_no_other_error(
    copy: Path, data: st.DataObject, local_rank: str
) -> None:
    """The first process of a machine finds all; another one what would end it in a traceback."""
    path = data.draw(st.sampled_from(files(copy)))
    whole = path.read_bytes()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.unlink()
    path.write_bytes(content)
    is_changed = bytes(content) != whole
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LOCAL_RANK", local_rank)
        try:
            read_all(copy)
            assert local_rank == "1" or not is_changed
        except UserError as error:
            assert path.name in str(error) and "prepare-corpus --verify" in str(error)
        finally:
            path.unlink()
            path.write_bytes(whole)


def test_no_checkpoint_is_made_of_damage(copy: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(copy, tmp_path / "corpus")
    path = files(damaged)[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    sizes = tiny(100).model_dump(exclude={"vocab_size"})
    changes = {"corpus": str(damaged), "output": str(tmp_path / "run"), "steps": 1}
    recipe = PretrainRecipe.model_validate(RECIPE.model_dump() | changes | {"model": sizes})
    with pytest.raises(UserError, match=f"{path.name} has changed since"):
        pretrain(recipe)
    assert not list(tmp_path.glob("run/checkpoints/*"))
    with pytest.raises(UserError, match=f"{path.name} has changed since"):
        inspect(damaged, 1, 16, 0)
