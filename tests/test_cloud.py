"""docs/cloud.md, the SkyPilot pipeline and the Dockerfile: what can be checked without a cloud.

tests/test_docs.py parses the pipeline's sqzb commands.
"""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
WRITER = ROOT / "scripts" / "write_cloud.py"
PIPELINE = ROOT / "cloud" / "pretrain.sky.yaml"
BUCKET = "/bucket"
# Of SkyPilot's fields (docs.skypilot.co, SkyPilot YAML), those that the pipeline uses.
FIELDS = {"name", "resources", "envs", "workdir", "file_mounts", "setup", "run"}
RESOURCES = {"cpus", "memory", "disk_size", "use_spot", "job_recovery", "any_of", "infra"}
RESOURCES |= {"accelerators"}


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def jobs() -> list[dict[str, Any]]:
    """Return the tasks of the pipeline, without its name."""
    header, *tasks = yaml.safe_load_all(PIPELINE.read_text(encoding="utf-8"))
    assert header == {"name": "sqzb"}
    return tasks


def test_the_table_is_that_of_the_plan() -> None:
    specification = importlib.util.spec_from_file_location("write_cloud", WRITER)
    assert specification is not None and specification.loader is not None
    writer = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(writer)
    text = (ROOT / "docs" / "cloud.md").read_text(encoding="utf-8")
    assert text == writer.page(text), "run python scripts/write_cloud.py"
    for cloud in ("AWS EC2", "Google Compute Engine", "Azure"):
        assert f"| phase1_128 | {cloud}" in text


def test_the_base_image_is_pinned() -> None:
    ((_, image),) = [one for one in instructions() if one[0] == "FROM"]
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu\d\d\.04", image)


def test_the_image_runs_sqzb_and_not_as_root() -> None:
    names = [name for name, _ in instructions()]
    arguments = dict(instructions())
    assert arguments["ENTRYPOINT"] == '["sqzb"]'
    assert names.count("USER") == 1 and arguments["USER"] not in ("root", "0")
    assert "RUN" not in names[names.index("USER") :]


def test_copied_files_exist_and_reach_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied: set[str] = set()
    for name, argument in instructions():
        if name == "COPY":
            *sources, _ = shlex.split(argument)
            copied.update(sources)
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    # The package cannot be built without these.
    assert {"pyproject.toml", "README.md", "LICENSE", "recipes", "sqzb"} <= copied


def test_each_task_has_a_bucket_and_survives_a_preemption() -> None:
    for job in jobs():
        assert set(job) == FIELDS
        resources = job["resources"]
        assert set(resources).union(*resources.get("any_of", [])) <= RESOURCES
        assert resources["use_spot"] is True
        assert resources["job_recovery"]["max_restarts_on_errors"] > 0
        # A plain mount can neither append to a file nor rename a folder.
        assert job["file_mounts"] == {BUCKET: {"name": "${BUCKET}", "mode": "MOUNT_CACHED"}}
        assert job["envs"] == {"BUCKET": None}
        assert "-c constraints.txt" in job["setup"]
    commands = "".join(job["run"] for job in jobs()).splitlines()
    trained = [line for line in commands if re.search(r"sqzb (pretrain|finetune)", line)]
    assert len(trained) == 3 and all("--resume auto" in line for line in trained)


def test_a_task_reads_what_one_before_it_wrote() -> None:
    written: set[str] = set()
    for line in "".join(job["run"] for job in jobs()).splitlines():
        outputs = set(re.findall(rf"(?:--output|--json) ({BUCKET}/\S+)", line))
        inputs = set(re.findall(rf"{BUCKET}/[\w./-]+", line)) - outputs
        assert inputs <= written, line
        written |= outputs
    assert len(written) == 5
