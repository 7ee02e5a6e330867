"""Further texts for a student: the training set's own with other words in them, and
unlabelled ones, by a teacher.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import stats
from transformers import AutoTokenizer, SqueezeBertForMaskedLM
from transformers import SqueezeBertForSequenceClassification as TransformersClassifier
from typer.testing import CliRunner

import fork_server
from conftest import WORDS, prose
from glue_runs import finetune, tiny
from sqzb.cli import app
from sqzb.data.dataset import Example
from sqzb.errors import UserError
from sqzb.finetuning import finetuned
from sqzb.finetuning.distillation import augmentation
from sqzb.finetuning.distillation.augmentation import CANDIDATES, DROPPED, REPLACED, Augmenter
from sqzb.finetuning.job import Finetuning
from sqzb.glue.data import open_task
from sqzb.glue.tasks import task
from sqzb.model import SqueezeBertForPreTraining
from sqzb.recipe import FinetuneRecipe, dump_recipe
from sqzb.tokenizer import SPECIAL_TOKENS, load_tokenizer, save_tokenizer, train_tokenizer
from sqzb.training.engine import start_accelerator
from stopped_runs import lines, write_worded

N, COPIES = 24, 3
UNLABELLED = "the harbour\tof the village\n\nwinter light\tWater and stone\nmusic\tanswer\n"
MakeTeacher = Callable[..., Path]


def pretrained(folder: Path) -> Path:
    torch.manual_seed(1)
    save_tokenizer(train_tokenizer(prose(100, 0), 200, True), folder, 64)
    tokenizer = load_tokenizer(folder)
    config = tiny(tokenizer.get_vocab_size(), max_position_embeddings=64, initializer_range=0.3)
    SqueezeBertForPreTraining(config).save_pretrained(folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model that is only read."""
    return pretrained(tmp_path_factory.mktemp("head"))


@pytest.fixture
def start(head: Path, tmp_path: Path) -> Path:
    """A pretrained model to start from."""
    return shutil.copytree(head, tmp_path / "start")


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """MRPC, an STS-B of the same texts, and unlabelled pairs."""
    write_worded(tmp_path, N)
    (tmp_path / "more.txt").write_text(UNLABELLED)
    return tmp_path


def recipe(
    start: Path, *teachers: Path, output: str = "run", name: str = "mrpc", **changes: Any
) -> FinetuneRecipe:
    ours: dict[str, Any] = {
        "teacher": [str(path) for path in teachers],
        "cache": str(start.parent / "cache"),
    }
    ours |= {"augment": COPIES, "unlabelled": str(start.parent / "more.txt")}
    ours |= {
        key: changes.pop(key)
        for key in ("augment", "unlabelled", "cache", "alpha")
        if key in changes
    }
    settings = {"task": name, "epochs": 1, "batch": 7, "lr": 1e-3, "max_length": 16, "log_every": 1}
    return FinetuneRecipe.model_validate(
        settings
        | {"model": str(start), "output": str(start.parent / output), "distillation": ours}
        | changes
    )


def prepared(wanted: FinetuneRecipe, glue: Path) -> Finetuning:
    assert wanted.task is not None and wanted.output is not None
    job = Finetuning(wanted, open_task(wanted.task, glue), Path(wanted.output))
    job.prepare()
    return job


def augmenter(head: Path, copies: int, seed: int = 0) -> Augmenter:
    return Augmenter(head, copies, seed, start_accelerator())


def pairs(n: int, words: int) -> list[Example]:
    """Of known words with capitals, which the model's own words have not."""
    draw = np.random.default_rng(0)
    texts = [
        " ".join(word.capitalize() for word in draw.choice(WORDS, words)) for _ in range(2 * n)
    ]
    return [
        Example(a, b, 0, row) for row, (a, b) in enumerate(zip(texts[:n], texts[n:], strict=True))
    ]


def made(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.jsonl"))


# The copies


def test_so_many_words_are_dropped_and_replaced_and_the_others_stay(head: Path) -> None:
    """By a two-sided binomial test at one in a thousand."""
    examples = pairs(30, 15)
    copies = augmenter(head, COPIES).copies_of(examples, 0)
    before = [
        text.split() for example in examples for _ in range(COPIES) for text in example[:2] if text
    ]
    after = [str(text).split() for copy in copies for text in copy]
    known = load_tokenizer(head).get_vocab()
    dropped = replaced = 0
    for old, new in zip(before, after, strict=True):
        dropped += len(old) - len(new)
        replaced += sum(word.islower() for word in new)
        rest = iter(old)
        assert all(word in rest for word in new if not word.islower())  # in their order
        assert all(word in known for word in new if word.islower())
    n = sum(map(len, before))
    for found, share in ((dropped, DROPPED), (replaced, REPLACED)):
        assert stats.binomtest(found, n, share).pvalue > 1e-3


def test_new_words_come_by_the_probabilities_that_transformers_has(
    head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of copies in which one word is new: each is one of the likeliest whole words but its
    own, as often as is due.
    """
    monkeypatch.setattr(augmentation, "DROPPED", 0.0)
    words = ["water", "of", "the", "river", "in", "winter"]
    copies = augmenter(head, 2000).copies_of(
        [Example(" ".join(words[:3]), " ".join(words[3:]), 0, 0)], 0
    )
    model, tokenizer = (
        SqueezeBertForMaskedLM.from_pretrained(head).eval(),
        AutoTokenizer.from_pretrained(head),
    )
    found: dict[int, Counter[str]] = {place: Counter() for place in range(len(words))}
    for a, b in copies:
        new = f"{a} {b}".split()
        places = [place for place, word in enumerate(new) if word != words[place]]
        if len(places) == 1:
            found[places[0]][new[places[0]]] += 1
    statistic, freedom = 0.0, 0
    for place, counts in found.items():
        masked = [*words[:place], "[MASK]", *words[place + 1 :]]
        inputs = tokenizer(" ".join(masked[:3]), " ".join(masked[3:]), return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id][0]
        whole = [
            n
            for token, n in tokenizer.get_vocab().items()
            if token.isalnum() and token != words[place]
        ]
        likeliest = sorted(whole, key=lambda n: -float(logits[n]))[:CANDIDATES]
        due = logits[likeliest].double().softmax(0).numpy() * counts.total()
        seen = [counts.pop(str(tokenizer.convert_ids_to_tokens(n)), 0) for n in likeliest]
        assert not counts
        statistic += float(((seen - due) ** 2 / due).sum())
        freedom += CANDIDATES - 1
    assert stats.chi2.sf(statistic, freedom) > 1e-3


def test_a_copy_follows_from_the_seed_the_example_and_its_number(head: Path) -> None:
    """Whatever else is made with it, and so by whatever process."""
    examples = pairs(9, 8)
    due = augmenter(head, COPIES).copies_of(examples, 0)
    parts = [augmenter(head, COPIES).copies_of(examples[n : n + 2], n) for n in (6, 0, 8, 2, 4)]
    assert [copy for n in (1, 3, 4, 0, 2) for copy in parts[n]] == due
    fewer = augmenter(head, COPIES - 1).copies_of(examples, 0)
    assert fewer == [copy for number, copy in enumerate(due) if number % COPIES < COPIES - 1]
    for other in (
        augmenter(head, COPIES, 1).copies_of(examples, 0),
        augmenter(head, COPIES).copies_of(examples, 9),
    ):
        assert sum(a == b for a, b in zip(due, other, strict=True)) < 4
    assert len(set(due)) > len(due) - 4


TEXT = st.text(st.sampled_from("aé Zw,.'[]-(中☃\u0301\t"), max_size=40) | st.lists(
    st.sampled_from([*WORDS[:5], "Water", "don't", *SPECIAL_TOKENS, "x" * 120, "river." * 9]),
    max_size=70,
).map(" ".join)


@given(TEXT, TEXT | st.none())
def test_any_text_keeps_its_punctuation_and_a_word_and_gets_no_special_tokens(
    head: Path, text_a: str, text_b: str | None
) -> None:
    """Empty ones, and those that are longer than the model takes, too."""
    for copy in _augmenter_of(head).copies_of([Example(text_a, text_b, 0, 0)], 0):
        assert (copy[1] is None) == (text_b is None)
        for old, new in zip((text_a, text_b or ""), (copy[0], copy[1] or ""), strict=True):
            ours = [[c for c in text if c in ",.'-("] for text in (old, new)]
            assert ours[0] == ours[1] and any(map(str.isalnum, old)) == any(map(str.isalnum, new))
            assert (
                all(new.count(token) <= old.count(token) for token in SPECIAL_TOKENS)
                and "##" not in new
            )


_OPENED: dict[Path, Augmenter] = {}


def _augmenter_of(head: Path) -> Augmenter:
    return _OPENED.setdefault(head, augmenter(head, 4))


# What the run makes of them


@pytest.mark.parametrize("name", ["mrpc", "stsb"])
def test_further_examples_have_the_teachers_labels_and_logits(
    start: Path, teacher: MakeTeacher, glue: Path, name: str
) -> None:
    """As transformers has them of the very texts that the student gets; the task's own keep
    their labels.
    """
    folder = teacher(labels=task(name).labels or ("score",))
    run = prepared(recipe(start, folder, name=name), glue)
    assert (
        run.extra_examples == {"unlabelled": 3, "augmented": N * COPIES}
        and run.teacher_logits is not None
    )
    assert len(run.train_set.ids) == len(run.teacher_logits) == N * (1 + COPIES) + 3
    plain, own = (
        prepared(recipe(start, name=name, augment=0, unlabelled=None), glue).train_set,
        run.train_set.first(N),
    )
    assert (
        plain.ids == own.ids
        and plain.types == own.types
        and np.array_equal(plain.labels, own.labels)
    )

    texts = [tuple(line.split("\t")) for line in UNLABELLED.splitlines() if line]
    texts += [
        tuple(json.loads(line)) for path in made(start.parent / "cache") for line in path.open()
    ]
    model, tokenizer = (
        TransformersClassifier.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    read = load_tokenizer(start)
    for row, pair in enumerate(texts, N):
        with torch.no_grad():
            due = model(**tokenizer(*pair, return_tensors="pt")).logits[0].numpy()
        np.testing.assert_allclose(run.teacher_logits[row], due, rtol=1e-3, atol=1e-3)
        assert (
            run.train_set.ids[row] == read.encode(pair[0], pair[1] if len(pair) > 1 else None).ids
        )
    said = run.teacher_logits[N:]
    assert np.array_equal(
        run.train_set.labels[N:], said[:, 0] if name == "stsb" else said.argmax(1)
    )
    assert len(set(run.train_set.labels[N:].tolist())) > 1
    for step in range(run.steps):
        (batch,) = run.micro_batches(step)
        rows = run.example_ids(step)
        assert np.array_equal(batch["teacher_logits"].numpy(), run.teacher_logits[rows])
        assert np.array_equal(batch["labels"].numpy(), run.train_set.labels[rows])
    assert run.steps == -(-(N * (1 + COPIES) + 3) // 7)


def test_from_the_command_to_the_end_and_no_other_texts_when_it_goes_on(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    run, folder = start.parent / "run", teacher()
    (start.parent / "wanted.yaml").write_text(dump_recipe(recipe(start, folder)))
    arguments = ["finetune", "--recipe", str(start.parent / "wanted.yaml"), "--glue-dir", str(glue)]
    ended = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert ended.exit_code == 0
    assert f"mrpc: {N} training and {N} validation examples" in ended.output
    assert (
        f"and 3 unlabelled and {N * COPIES} augmented examples with its labels, in each epoch"
        in ended.output
    )
    assert finetuned.open_finetuned(str(run), open_task("mrpc", glue)).data.name == "mrpc"
    before = lines(run)
    finetune(recipe(start, folder), glue, "auto")
    assert lines(run) == before
    (glue / "more.txt").write_text(UNLABELLED + "river\tof stone\n")
    with pytest.raises(UserError, match="not be the same run: the training set has changed"):
        finetune(recipe(start, folder), glue, "auto")


SMALL_FILES = """
import os, time
os.fsync = lambda fd: time.sleep(0.01)  # files take so long that some are still to be made
from sqzb.finetuning.distillation import augmentation
augmentation.CHUNK = 1
from sqzb.cli import main
main()
"""


def test_killed_while_it_makes_texts_it_goes_on_to_the_same_bytes(
    start: Path, teacher: MakeTeacher, glue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what another process has made is taken as it is."""
    monkeypatch.setattr(augmentation, "CHUNK", 1)
    wanted, cache = recipe(start, teacher()), start.parent / "cache"
    (start.parent / "wanted.yaml").write_text(dump_recipe(wanted))
    process = fork_server.Popen(
        [
            sys.executable,
            "-c",
            SMALL_FILES,
            "finetune",
            "--recipe",
            "wanted.yaml",
            "--glue-dir",
            str(glue),
        ],
        cwd=start.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(made(cache)) < 3 and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL and 3 <= len(made(cache)) < N
    made(cache)[0].with_name("00020.jsonl.partial").write_text("torn")
    prepared(wanted, glue)
    prepared(recipe(start, teacher(), cache=str(start.parent / "undisturbed")), glue)
    found, due = (
        {path.name: path.read_bytes() for path in made(start.parent / name)[0].parent.iterdir()}
        for name in ("cache", "undisturbed")
    )
    assert found == due and len(due) == 2 * N + 1  # each with its hash, and about.json


def test_a_signal_while_texts_are_made_stops_the_run_at_once(
    start: Path, teacher: MakeTeacher, glue: Path
) -> None:
    wanted, cache = recipe(start, teacher()), start.parent / "cache"
    (start.parent / "wanted.yaml").write_text(dump_recipe(wanted))
    process = fork_server.Popen(
        [
            sys.executable,
            "-c",
            SMALL_FILES,
            "finetune",
            "--recipe",
            "wanted.yaml",
            "--glue-dir",
            str(glue),
        ],
        cwd=start.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while len(made(cache)) < 3 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: stopped during preparation" in said and "Traceback" not in said
    assert 3 <= len(made(cache)) < N and not (start.parent / "run").exists()


# Refusals


def headless(start: Path) -> None:
    tensors = load_file(start / "model.safetensors")
    save_file(
        {name: t for name, t in tensors.items() if "cls." not in name}, start / "model.safetensors"
    )


def filled(name: str, value: float) -> Callable[[Path], None]:
    def fill(start: Path) -> None:
        tensors = load_file(start / "model.safetensors")
        tensors[name][:] = value
        save_file(tensors, start / "model.safetensors", {"format": "pt"})

    return fill


def more(text: bytes) -> Callable[[Path], None]:
    def write(start: Path) -> None:
        (start.parent / "more.txt").write_bytes(text)

    return write


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no head": (headless, "distillation.augment: the model in .* has no SqueezeBERT head"),
    "a head that is no number": (
        filled("cls.predictions.bias", float("nan")),
        r"distillation.augment, of .*non-finite values in cls\.predictions\.bias",
    ),
    "a head that overflows": (
        filled("cls.predictions.transform.LayerNorm.weight", 3e38),
        "distillation.augment, of .*The logits of .*MLM head are not finite",
    ),
    "no file": (
        lambda start: (start.parent / "more.txt").unlink(),
        "distillation.unlabelled: .*more.txt cannot be",
    ),
    "no text": (more(b"\n \n"), "distillation.unlabelled: .*more.txt has no line with text"),
    "one sentence": (
        more(b"a\tb\n\nalone\n"),
        "more.txt:3: mrpc takes two sentences, and here is one sentence",
    ),
    "three": (more(b"a\tb\tc\n"), "more.txt:1 has 2 tabs"),
    "no UTF-8": (more(b"caf\xe9\tb"), "more.txt cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_made_is_refused(
    start: Path, teacher: MakeTeacher, glue: Path, what: str
) -> None:
    spoil, said = REFUSED[what]
    spoil(start)
    with pytest.raises(UserError, match=said):
        finetune(recipe(start, teacher()), glue)
    assert not (start.parent / "run").exists()


@pytest.mark.parametrize("key", ["augment", "unlabelled"])
def test_without_a_teacher_nobody_could_label_them(start: Path, glue: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"distillation.{key} needs a teacher"):
        prepared(
            recipe(start, **({"augment": 0} if key == "unlabelled" else {"unlabelled": None})), glue
        )


DAMAGED: dict[str, tuple[str, str]] = {
    "torn": ('["a", "b"]\n["a", "', "has 1 line, not 72"),
    "no JSON": ("a\n" * 72, "cannot be read"),
    "one text": ('["a"]\n' * 72, "cannot be read"),
    "no second": ('["a", null]\n' * 72, "lines that are not the texts of an example"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_texts_that_were_damaged_are_named(
    start: Path, teacher: MakeTeacher, glue: Path, what: str
) -> None:
    content, said = DAMAGED[what]
    wanted = recipe(start, teacher(), unlabelled=None)
    prepared(wanted, glue)
    (path,) = made(start.parent / "cache")
    path.write_text(content)
    with pytest.raises(
        UserError,
        match=f"The folder {path.parent} holds damaged texts: .*{said}.*Remove the folder",
    ):
        finetune(wanted, glue)
