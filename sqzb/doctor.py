"""What sqzb finds on this machine, and what each fact means for the user.

Nothing here imports torch: a torch that is broken may end the process that imports it.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from sqzb import __version__, console

LIBRARIES = (
    *("torch", "accelerate", "datasets", "huggingface_hub", "tokenizers", "torch-optimizer"),
    *("typer", "rich"),
    *("pyyaml", "pydantic", "safetensors", "sentencex", "numpy"),
)
EXTRAS = {  # extra: its package, and what needs it
    "hf": ("transformers", "models other than SqueezeBERT"),
    "ray": ("ray", "prepare-corpus --executor ray"),
    "dedup": ("rensa", "near_duplicates in a corpus"),
    "report": ("matplotlib", "the pictures of sqzb report"),
    "tensorboard": ("tensorboard", "trackers: [tensorboard]"),
    "trackio": ("trackio", "trackers: [trackio]"),
    "onnx": ("onnxruntime", "sqzb export --format onnx"),
    "openvino": ("openvino", "sqzb export --format openvino"),
    "executorch": ("executorch", "sqzb export --format executorch"),
}
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # of a CPU, as /proc/cpuinfo has them
VARIABLES = (
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
)
HUB_SECONDS, PROBE_SECONDS = 3.0, 120.0
LITTLE_DISK = 5 * 10**9  # bytes

# Runs in a process of its own and prints JSON.
PROBE = """
import json, torch
gpus = []
if torch.cuda.is_available():
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        gpus.append({"name": about.name, "memory": about.total_memory,
                     "capability": f"{about.major}.{about.minor}"})
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "threads": torch.get_num_threads(),
    "instructions": torch.backends.cpu.get_cpu_capability(),
    "gpus": gpus,
}))
"""


class Fact(NamedTuple):
    """A fact about the machine.

    meaning: a consequence for the user; empty if there is nothing to do.
    """

    name: str
    value: str
    meaning: str = ""


def examine() -> list[Fact]:
    """Return all facts; the Hub gets one request."""
    torch = probe_torch()
    return [
        Fact("sqzb", f"{__version__} in {Path(__file__).parent}"),
        _python(),
        *_processor(),
        _memory(),
        *_torch(torch),
        *_gpus(torch),
        _libraries(),
        *_extras(),
        *_folders(),
        _hub(),
        *_variables(),
    ]


def as_json(facts: list[Fact]) -> dict[str, Any]:
    """Return the facts by name."""
    return {fact.name: {"value": fact.value, "meaning": fact.meaning} for fact in facts}


def print_facts(facts: list[Fact]) -> None:
    """Print the facts, each with its meaning."""
    console.facts([(name, f"{value}. {meaning}".strip()) for name, value, meaning in facts])
    console.out.print("For a bug report, copy all of the above. It has no token.")


def _python() -> Fact:
    where = "an environment" if sys.prefix != sys.base_prefix else "no environment"
    return Fact("Python", f"{platform.python_version()} at {sys.executable} ({where})")


# The processor


def _processor() -> Iterator[Fact]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores, quota = cores or 1, _cpu_quota()
    text = _content(Path("/proc/cpuinfo"))
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    limit = f", of which this container may use {quota:g}" if quota and quota < cores else ""
    meaning = ""
    if limit:
        meaning = (
            f"Set OMP_NUM_THREADS={max(1, int(quota or 1))}: more threads wait for each other."
        )
    processor = name[1] if name else platform.machine()
    yield Fact("Processor", f"{processor}, {console.counted(cores, 'core')}{limit}", meaning)

    listed = re.search(r"^flags\s*:\s*(.+)$", text, re.M)
    flags = [flag for flag in FLAGS if listed and flag in listed[1].split()]
    has_bf16 = "amx_bf16" in flags or "avx512_bf16" in flags
    yield Fact(
        "Instructions",
        ", ".join(flags) or "none of " + ", ".join(FLAGS),
        "" if has_bf16 else "On this CPU, precision=bf16 is slow: keep fp32.",
    )
    load = os.getloadavg()[0]
    if load > 0.5 * cores:
        yield Fact("Load", f"{load:.1f}", "Other processes use the cores: a run here is slower.")


def _cpu_quota() -> float | None:
    """Return the number of cores that a container may use; None without a limit."""
    quota, _, period = _content(Path("/sys/fs/cgroup/cpu.max")).strip().partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _memory() -> Fact:
    text = _content(Path("/proc/meminfo"))
    sizes = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", text, re.M))
    if len(sizes) < 2:
        return Fact("Memory", "unknown on this system")
    total, free = (int(sizes[key]) * 1024 for key in ("MemTotal", "MemAvailable"))
    limit = _content(Path("/sys/fs/cgroup/memory.max")).strip()
    capped = ""
    if limit.isdecimal() and int(limit) < total:
        capped = f", of which this container may use {console.size(int(limit))}"
    return Fact("Memory", f"{console.size(total)}, {console.size(free)} free{capped}")


# torch and GPUs


def probe_torch() -> dict[str, Any]:
    """Return what torch finds, or {"error": the reason why it cannot be used}."""
    try:
        ended = subprocess.run(
            [sys.executable, "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"its import took more than {PROBE_SECONDS:.0f} seconds"}
    except OSError as error:
        return {"error": str(error)}
    try:
        facts: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return facts
    except (ValueError, IndexError, RecursionError):
        said = ended.stderr.strip().splitlines()
        return {"error": said[-1] if said else f"its import ended with code {ended.returncode}"}


def _torch(torch: dict[str, Any]) -> Iterator[Fact]:
    if "error" in torch:
        meaning = (
            "Nothing can be trained or used before torch is installed anew: pip install torch."
        )
        yield Fact("torch", f"cannot be used: {torch['error']}", meaning)
        return
    built = f"built for CUDA {torch['cuda']}" if torch["cuda"] else "built for CPUs"
    threads = console.counted(torch["threads"], "thread")
    yield Fact("torch", f"{torch['version']}, {built}, {threads}, {torch['instructions']}")


def _gpus(torch: dict[str, Any]) -> Iterator[Fact]:
    listed = _nvidia_smi()
    driver = f", driver {listed[0][1]}" if listed else ""
    for number, gpu in enumerate(torch.get("gpus", ())):
        memory, capability = console.size(gpu["memory"]), gpu["capability"]
        value = f"{gpu['name']}, {memory}, compute capability {capability}{driver}"
        meaning = ""
        if float(capability) < 8:
            meaning = "It has no bf16 units: set precision=fp32."
        yield Fact(f"GPU {number}", value, meaning)
    if torch.get("gpus"):
        return
    if not listed:
        yield Fact("GPU", "none", "Training runs on the CPU: choose small models and data.")
        return
    names = ", ".join(name for name, _ in listed)
    reason = "torch cannot be used"
    if "error" not in torch:
        reason = "torch does not see it: CUDA_VISIBLE_DEVICES hides it, or its driver is too old"
        if not torch["cuda"]:
            reason = "this torch is built for CPUs: install one that is built for CUDA"
    yield Fact("GPU", f"{names}{driver}", f"Not used, because {reason}.")


def _nvidia_smi() -> list[tuple[str, str]]:
    """Return name and driver of each NVIDIA GPU; empty without the program or a driver."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rpartition(",") for line in ended.stdout.splitlines()]
    return [(name.strip(), driver.strip()) for name, _, driver in rows if name]


# Packages


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _libraries() -> Fact:
    versions = {name: _version(name) for name in LIBRARIES}
    missing = [name for name, installed in versions.items() if installed is None]
    value = ", ".join(f"{name} {installed or 'missing'}" for name, installed in versions.items())
    return Fact("Libraries", value, f"Install: {' '.join(missing)}." if missing else "")


def _extras() -> Iterator[Fact]:
    missing = []
    present = []
    for extra, (package, purpose) in EXTRAS.items():
        installed = _version(package)
        if installed is None:
            missing.append(f"{extra} ({purpose})")
        else:
            present.append(f"{package} {installed}")
    yield Fact("Extras", ", ".join(present) or "none")
    if missing:
        meaning = "Where you need one: pip install 'sqzb[EXTRA]'."
        yield Fact("Missing extras", "; ".join(missing), meaning)


# Disks and the Hub


def _folders() -> Iterator[Fact]:
    home = Path(os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"))
    models, data_sets = os.environ.get("HF_HUB_CACHE"), os.environ.get("HF_DATASETS_CACHE")
    yield _disk("Model cache", Path(models or home / "hub"), "Move it with HF_HOME.")
    yield _disk("Data cache", Path(data_sets or home / "datasets"), "Move it with HF_HOME.")
    yield _disk("Working folder", Path.cwd(), "Give an --output on another disk.")
    yield _disk("Temporary files", Path(tempfile.gettempdir()), "Move them with TMPDIR.")


def _disk(name: str, folder: Path, remedy: str) -> Fact:
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Fact(name, f"{folder}: {error.strerror}", remedy)
    problems = [] if os.access(existing, os.W_OK) else ["It cannot be written."]
    problems += ["Little space is left."] if free < LITTLE_DISK else []
    value = f"{folder}, {console.size(free)} free"
    return Fact(name, value, " ".join([*problems, remedy] if problems else []))


def _hub() -> Fact:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return Fact("Hub", f"offline, because {name} is set", "Only cached models are found.")
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    shown = re.sub(r"//[^/@]*@", "//", address)  # without a name and password
    answer = ["no answer within 3 seconds"]

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=HUB_SECONDS):
                answer[0] = ""
        except urllib.error.HTTPError:
            answer[0] = ""  # it has answered
        except (OSError, ValueError) as error:
            answer[0] = str(getattr(error, "reason", error))

    # In a thread, because looking up a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    if not answer[0]:
        return Fact("Hub", f"{shown} answers")
    meaning = (
        "Models and data come from folders and the cache only. Behind a proxy, set HTTPS_PROXY; "
        "without a network, set HF_HUB_OFFLINE=1."
    )
    return Fact("Hub", f"{shown} is not reachable: {answer[0].replace(address, shown)}", meaning)


def _variables() -> Iterator[Fact]:
    given = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    if given:
        yield Fact("Environment", " ".join(given))


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
