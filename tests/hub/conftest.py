"""A hub on this machine with small repositories laid out as the Hub's, and commands that know no
other.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[2]
HUB_PYTHON = ROOT / ".venv-hub" / "bin" / "python"  # what olah needs stands in nobody's way there
WIKIPEDIA, BOOKS, GLUE = (
    "datasets/wikimedia/wikipedia",
    "datasets/rojagtap/bookcorpus",
    "datasets/nyu-mll/glue",
)
MODEL = "models/squeezebert/squeezebert-uncased"
SHARDS = 3  # of Wikipedia
WORDS = "river stone winter light garden engine letter copper window morning silver"
GLUE_ROWS = {"train": 48, "validation": 16, "test": 8}


class Hub:
    """Git repositories in a folder, and the server that gives them out, on one port for its whole
    life.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str) -> None:
        arguments = [
            str(Path(__file__).with_name("serve.py")),
            str(self.folder),
            str(self.port),
            *options,
        ]
        log = self.folder.with_suffix(".log")
        with log.open("a") as to:
            self.server = subprocess.Popen([HUB_PYTHON, *arguments], stdout=to, stderr=to)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(300):
            assert self.server.poll() is None, log.read_text()
            try:
                opener.open(f"{self.url}/api/{MODEL}")
                return
            except OSError:
                time.sleep(0.1)
        pytest.fail(log.read_text())

    def stop(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()

    def head(self, name: str) -> str:
        return git(self.folder / name, "rev-parse", "HEAD")

    def publish(self, name: str, write: Callable[[Path], Any]) -> str:
        """What `write` puts into an empty folder becomes the newest commit; its id."""
        repository = self.folder / name
        repository.mkdir(parents=True, exist_ok=True)
        git(repository, "init", "-q", "-b", "main")
        git(repository, "rm", "-rq", "--ignore-unmatch", ".")
        write(repository)
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "--allow-empty", "-m", "new files")
        return self.head(name)


def git(repository: Path, *arguments: str) -> str:
    who = ["-c", "user.name=sqzb", "-c", "user.email=sqzb@localhost", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(repository), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# The repositories


def write_data_set(
    folder: Path, configs: dict[str, dict[str, list[pa.Table]]], features: list[dict[str, Any]]
) -> None:
    """Parquet shards by configuration and split, and a README.md that lists them, as push_to_hub
    leaves both.
    """
    about: list[dict[str, Any]] = []
    infos: list[dict[str, Any]] = []
    for config, splits in configs.items():
        inside = "data" if config == "default" else config
        (folder / inside).mkdir()
        for split, tables in splits.items():
            for number, table in enumerate(tables):
                pq.write_table(
                    table, folder / inside / f"{split}-{number:05d}-of-{len(tables):05d}.parquet"
                )
        files = [{"split": split, "path": f"{inside}/{split}-*"} for split in splits]
        about.append({"config_name": config, "data_files": files})
        sizes = [
            {
                "name": split,
                "num_bytes": sum(t.nbytes for t in tables),
                "num_examples": sum(t.num_rows for t in tables),
            }
            for split, tables in splits.items()
        ]
        infos.append({"config_name": config, "features": features, "splits": sizes})
    head = yaml.safe_dump({"dataset_info": infos, "configs": about}, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{head}---\n# A small copy\n", encoding="utf-8")


def feature(name: str, dtype: Any = "string") -> dict[str, Any]:
    return {"name": name, "dtype": dtype}


def write_wikipedia(folder: Path, texts: list[str]) -> None:
    rows = [
        {"id": str(n), "url": f"https://en/{n}", "title": f"T {n}", "text": text}
        for n, text in enumerate(texts)
    ]
    shards = [pa.Table.from_pylist(rows[number::SHARDS]) for number in range(SHARDS)]
    configs = {"20231101.ab": {"train": shards[:1]}, "20231101.en": {"train": shards}}
    write_data_set(folder, configs, [feature(name) for name in ("id", "url", "title", "text")])


def write_books(folder: Path, texts: list[str]) -> None:
    sentences = [sentence.lower() for text in texts for sentence in re.split(r"(?<=\.)\s+", text)]
    write_data_set(
        folder, {"default": {"train": [pa.table({"text": sentences})]}}, [feature("text")]
    )


def write_glue(folder: Path) -> None:
    """MRPC and RTE, whose labels have other names."""
    pair = [feature("sentence1"), feature("sentence2")]
    configs = {
        name: {split: [pairs(n)] for split, n in GLUE_ROWS.items()} for name in ("mrpc", "rte")
    }
    names = {"0": "not_equivalent", "1": "equivalent"}
    write_data_set(
        folder,
        configs,
        [*pair, feature("label", {"class_label": {"names": names}}), feature("idx", "int32")],
    )


def pairs(n: int) -> pa.Table:
    words = WORDS.split()
    first = [" ".join(words[k % 7 : k % 7 + 5]) for k in range(n)]
    second = [text if k % 2 else " ".join(words[-3:]) for k, text in enumerate(first)]
    columns = {"sentence1": first, "sentence2": second, "label": [k % 2 for k in range(n)]}
    return pa.table(columns | {"idx": pa.array(range(n), pa.int32())})


@pytest.fixture(scope="session")
def write_model(vocabulary: Path) -> Callable[[Path, str], None]:
    """Write a SqueezeBERT with random weights, as transformers makes it, in the format that is
    named.
    """

    def write(folder: Path, weights: str) -> None:
        import torch
        from transformers import SqueezeBertConfig, SqueezeBertForMaskedLM

        sizes: dict[str, Any] = {
            "hidden_size": 32,
            "embedding_size": 32,
            "num_hidden_layers": 2,
            "intermediate_size": 64,
        }
        torch.manual_seed(0)
        config = SqueezeBertConfig(
            vocab_size=150, num_attention_heads=4, max_position_embeddings=128, **sizes
        )
        model = SqueezeBertForMaskedLM(config)
        model.save_pretrained(folder)
        if weights == "pytorch_model.bin":
            (folder / "model.safetensors").unlink()
            torch.save(model.half().state_dict(), folder / weights)
        for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((vocabulary / name).read_bytes())

    return write


@pytest.fixture(scope="session")
def hub(
    tmp_path_factory: pytest.TempPathFactory,
    write_prose: Callable[[Path, int, int], list[str]],
    write_model: Callable[[Path, str], None],
) -> Iterator[Hub]:
    """A hub with the repositories that the shipped recipes name, the model as the Hub has it."""
    folder = tmp_path_factory.mktemp("hub")
    made = Hub(folder / "repositories")
    texts = write_prose(folder / "prose.jsonl", 100, 0)
    made.publish(WIKIPEDIA, lambda into: write_wikipedia(into, texts[:75]))
    made.publish(BOOKS, lambda into: write_books(into, texts[75:]))
    made.publish(GLUE, write_glue)
    made.publish(MODEL, lambda into: write_model(into, "pytorch_model.bin"))
    made.start()
    yield made
    made.stop()


# Commands


class Person:
    """Somebody at a terminal whose network is the hub."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub

    def runs(
        self, *arguments: str, code: int = 0, timeout: float = 60, **environment: str
    ) -> SimpleNamespace:
        """What the command printed (out, err); it must end with `code`."""
        ours = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_OFFLINE": "0",
        }
        ours |= {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
        ended = subprocess.run(
            [sys.executable, "-m", "sqzb", *arguments],
            cwd=self.folder,
            env=os.environ | ours | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return SimpleNamespace(out=ended.stdout, err=ended.stderr)

    def prepares(self, output: str, *overrides: str, code: int = 0, **how: Any) -> SimpleNamespace:
        """prepare-corpus with the shipped recipe, in small."""
        small = ["sequence_lengths=[16,32]", "heldout=0.2", "min_characters=100"]
        if not any(override.startswith("vocabulary.path=") for override in overrides):
            small.append("vocabulary.size=150")
        arguments = [str(ROOT / "recipes" / "corpus.yaml"), *small, *overrides, "--output", output]
        return self.runs("prepare-corpus", *arguments, code=code, **how)


@pytest.fixture
def person(tmp_path: Path, hub: Hub) -> Person:
    return Person(tmp_path, hub)


@pytest.fixture
def mortal(tmp_path: Path, hub: Hub) -> Iterator[Person]:
    """A person whose hub is a copy that nobody else uses, and is not started yet."""
    shutil.copytree(hub.folder, tmp_path / "hub")
    copy = Hub(tmp_path / "hub")
    yield Person(tmp_path, copy)
    copy.stop()
