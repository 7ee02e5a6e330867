"""scripts/launch_slurm.sh between stand-ins for Slurm's commands."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "launch_slurm.sh"
COMMANDS = {
    # A step that works until it is told to stop, then saves, or ends at once with the code that
    # $CODE holds.
    "srun": """echo $$ > pid; echo "$@" > srun
        trap 'sleep 0.3; echo saved >> happened; exit 1' TERM
        [[ -n ${CODE:-} ]] && exit "$CODE"
        while true; do sleep 0.05; done""",
    "scancel": """echo "scancel $@" >> happened; kill -TERM "$(cat pid)" """,
    "scontrol": """if [[ $1 == show ]]; then printf 'one\\ntwo\\n'
        else echo "scontrol $@" >> happened; fi""",
}


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    for name, lines in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "nodes",
        "SLURM_GPUS_ON_NODE": "8",
    }
    return os.environ | job | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_the_job_is_saved_before_it_queues_again(tmp_path: Path, cluster: dict[str, str]) -> None:
    job = subprocess.Popen([SCRIPT, "recipe.yaml", "steps=9"], cwd=tmp_path, env=cluster)
    while not (tmp_path / "srun").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 0
    happened = (tmp_path / "happened").read_text().splitlines()
    assert happened == ["scancel --signal=TERM 7", "saved", "scontrol requeue 7"]
    command = (tmp_path / "srun").read_text()
    assert "--rdzv-endpoint one:29500" in command and "--nnodes 2 --nproc-per-node 8" in command
    assert command.endswith("-m sqzb pretrain recipe.yaml steps=9 --resume auto\n")


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_that_ends_by_itself_is_not_queued_again(
    tmp_path: Path, cluster: dict[str, str], code: int
) -> None:
    job = subprocess.run(
        [SCRIPT, "recipe.yaml"], cwd=tmp_path, env=cluster | {"CODE": str(code)}, timeout=20
    )
    assert job.returncode == code and not (tmp_path / "happened").exists()


def test_a_job_needs_a_recipe(tmp_path: Path, cluster: dict[str, str]) -> None:
    job = subprocess.run(
        [SCRIPT], cwd=tmp_path, env=cluster, capture_output=True, text=True, timeout=20
    )
    assert job.returncode != 0 and "give a recipe" in job.stderr
