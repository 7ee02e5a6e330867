"""Programs of the fork server are processes like those of a Python that is started for each."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fork_server

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
BOUND = 60.0  # seconds in which all that happens here has happened
SLEEP = "import time; print('ready', flush=True); time.sleep(600)"


def both(*arguments: str, **how: Any) -> list[subprocess.CompletedProcess[str]]:
    """What comes of a program in a Python of its own, and from the fork server."""
    command = [sys.executable, *arguments]
    told = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=BOUND, **how
    )
    return [told, fork_server.run(command, env=ENVIRONMENT, timeout=BOUND, **how)]


def begun(program: str, **how: Any) -> fork_server.Popen:
    """The program, once it has said a line."""
    command = [sys.executable, "-c", program]
    process = fork_server.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


PROGRAMS = {
    "print('out'); import sys; print('err', file=sys.stderr)": 0,
    "import sys; print(end='not a whole line'); sys.exit(7)": 7,
    "import sys; sys.exit('why')": 1,
    "import os; print('lost'); os._exit(9)": 9,
    "import os; os.kill(os.getpid(), 9)": -9,
    "import os; os.kill(os.getpid(), 15)": -15,
    "import atexit; atexit.register(print, 'at the end'); print('first')": 0,
    "import threading; threading.Timer(0.1, print, ['later']).start()": 0,
    "import signal; print(*map(signal.getsignal, (2, 15, 13, signal.SIGCHLD)))": 0,
    "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))": 0,
    "import sys, os; print(sys.argv, sys.path[0], __name__, os.getcwd(), sys.stdin.read())": 0,
    "import os; print(os.umask(0), os.environ['OMP_NUM_THREADS'], 'RANK' in os.environ)": 0,
    "import os; print(os.listdir('/dev/fd'))": 0,
    "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))": 0,
    "import torch; print(torch.get_num_threads())": 0,
}


@pytest.mark.parametrize(("program", "code"), PROGRAMS.items())
def test_a_program_ends_and_says_the_same(program: str, code: int, tmp_path: Path) -> None:
    true, ours = (
        (ended.returncode, ended.stdout, ended.stderr)
        for ended in both("-c", program, "an argument", "--another", cwd=tmp_path)
    )
    assert ours == true and ours[0] == code


def test_each_draws_from_a_seed_of_its_own() -> None:
    program = (
        "import random, numpy, torch; "
        "print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    )
    draws = [
        fork_server.run([sys.executable, "-c", program], env=ENVIRONMENT, timeout=BOUND).stdout
        for _ in "ab"
    ]
    assert not {*draws[0].split()} & {*draws[1].split()}


def test_an_error_ends_with_its_traceback() -> None:
    true, ours = both("-c", "def f():\n    raise ValueError('why')\nf()")
    assert ours.returncode == true.returncode == 1
    assert (
        ours.stderr.splitlines()[-1] == "ValueError: why"
        and 'File "<string>", line 2, in f' in ours.stderr
    )


def test_a_module_and_a_script_are_run_as_python_runs_them(tmp_path: Path) -> None:
    show = (
        "import sys; print(sys.argv, sys.path[0], __name__, "
        "sys.modules['__main__'].__dict__ is globals())\n"
    )
    (tmp_path / "shown.py").write_text(show + "print(__spec__ and __spec__.name)\n")
    for arguments in (["-m", "shown", "1"], ["shown.py", "2"]):
        true, ours = both(*arguments, cwd=tmp_path)
        assert ours.stdout == true.stdout != ""
    true, ours = both("-m", "sqzb", "--help", cwd=tmp_path)
    assert ours.stdout == true.stdout and "pretrain" in ours.stdout


def test_a_program_may_spawn_workers(tmp_path: Path) -> None:
    (tmp_path / "spawned.py").write_text(
        "import multiprocessing, os\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        print(pool.map(os.path.basename, ['a/b', 'c/d']))\n"
    )
    assert [ended.stdout for ended in both("-m", "spawned", cwd=tmp_path)] == ["['b', 'd']\n"] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_ends_it(number: signal.Signals) -> None:
    process = begun(SLEEP)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(number)
    assert process.wait(BOUND) == process.poll() == -number
    process.kill()  # of no effect: its pid may be another's by now
    assert ("KeyboardInterrupt" in process.communicate()[1]) == (number == signal.SIGINT)


def test_it_can_lead_a_group_of_its_own() -> None:
    program = "import os, time; _ = os.fork() and os.write(1, b'ready\\n'); time.sleep(600)"
    process = begun(program, start_new_session=True)
    assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid != os.getpgid(0)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(BOUND)  # both have closed the pipes
    assert process.returncode == -signal.SIGKILL


def test_many_run_at_once_and_each_has_its_own_end() -> None:
    processes = [
        begun(f"import sys; print('ready', flush=True); sys.exit({code})") for code in range(20)
    ]
    assert [process.wait(BOUND) for process in processes] == list(range(20))


def test_more_than_a_pipe_holds_is_said_whole() -> None:
    ended = fork_server.run(
        [
            sys.executable,
            "-c",
            "import sys; print('o' * 10**6); print('e' * 10**6, file=sys.stderr)",
        ],
        env=ENVIRONMENT,
        timeout=BOUND,
    )
    assert (ended.stdout, ended.stderr) == ("o" * 10**6 + "\n", "e" * 10**6 + "\n")


def test_what_it_captures_can_be_a_file(tmp_path: Path) -> None:
    with (tmp_path / "said").open("wb") as said:
        command = [
            sys.executable,
            "-c",
            "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)",
        ]
        assert (
            fork_server.Popen(command, env=ENVIRONMENT, stdout=said, stderr=said).wait(BOUND) == 0
        )
    assert (tmp_path / "said").read_text() == "out\nerr\n"


def test_it_can_ask_for_further_ones_which_outlive_it(tmp_path: Path) -> None:
    """As a sweep that is killed leaves its runs at work."""
    inner = f"import time; time.sleep(0.5); open({str(tmp_path / 'late')!r}, 'w').close()"
    outer = (
        f"import fork_server, sys; fork_server.Popen([sys.executable, '-c', {inner!r}]); {SLEEP}"
    )
    process = begun(outer)
    process.kill()
    assert process.wait(BOUND) == -signal.SIGKILL and not (tmp_path / "late").exists()
    limit = time.monotonic() + BOUND
    while not (tmp_path / "late").exists():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_what_a_library_may_have_read_is_no_other() -> None:
    with pytest.raises(ValueError, match="other values of HF_HOME, OMP_NUM_THREADS"):
        fork_server.run(
            [sys.executable, "-c", ""],
            env=ENVIRONMENT | {"OMP_NUM_THREADS": "2", "HF_HOME": "x"},
            timeout=9,
        )
    world = ENVIRONMENT | {"RANK": "3"}
    ended = fork_server.run(
        [sys.executable, "-c", "import os; print(os.environ['RANK'])"], env=world, timeout=BOUND
    )
    assert ended.stdout == "3\n"


def ended(pid: str) -> bool:
    told = subprocess.run(
        ["ps", "-o", "stat=", "-p", pid], stdout=subprocess.PIPE, text=True
    ).stdout
    return told.strip() == "" or told.startswith("Z")


def test_it_ends_with_who_started_it_and_so_do_its_children(tmp_path: Path) -> None:
    """However that ends: here it is killed."""
    program = (
        "import os, sys, fork_server\n"
        "fork_server.IMPORTS = ('torch',)  # a server of seconds less\n"
        "process = fork_server.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(process.pid, os.getpgid(process.pid), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop(fork_server.ADDRESS, None)
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ).stdout
    limit = time.monotonic() + BOUND
    for pid in told.split():  # of the child, and of the server, which heads their group
        while not ended(pid):
            assert time.monotonic() < limit
            time.sleep(0.01)
