"""Python programs as processes of their own, without the seconds in which each would import torch
again.

A server has imported torch and the trainers, and has done nothing else. Asked for a program, it
forks: the child takes its files, folder, environment and arguments, and is the program. It has a
pid, a process group, signals and an exit code like any other process, and may itself ask the server
for further ones. One server serves one pytest, with all its workers, and ends with it, however that
ends, and its children with it.

What a library reads while it is imported is the server's: other values in the environment of a
program are refused. Nor is it a place for tests of what is imported, or of different seeds of
Python's hashes. Such tests start a Python.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple

ADDRESS = "SQZB_FORK_SERVER"  # the variable with the path of the server's socket
IMPORTS = (
    "torch._dynamo",  # which the first optimizer would import
    "torch.distributed",
    "accelerate",
    "huggingface_hub.repocard",  # which the first model card would import
    "rich.markdown",
    "typer._adapters",
    "sqzb.cli",
    "sqzb.corpus.build",
    "sqzb.embed",
    "sqzb.evaluate",
    "sqzb.finetuning.sweep.run",
    "sqzb.finetuning.job",
    "sqzb.fill_mask",
    "sqzb.predict",
    "sqzb.pretraining.inspection",
    "sqzb.pretraining.job",
)
# The environment of the server: Arrow's allocator would start a thread, and torch as many as there
# are cores.
SETTINGS = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# How the names of variables begin which libraries read while they are imported.
READ = (
    "OMP_",
    "MKL_",
    "HF_",
    "TRITON_",
    "NO_COLOR",
    "COLUMNS",
    "TERM",
    "PYTHONHASHSEED",
    "PYTHONPATH",
    "PYTHONUTF8",
)
LARGEST = 1 << 16  # signals that wake the server at once
_TruePopen = subprocess.Popen  # where a test puts this module's in its place


# The side of the tests


class Popen:
    """A program that the server runs, with the arguments, attributes and methods of
    `subprocess.Popen`.

    `command` begins with `sys.executable`, as for a true Python. What is captured is text.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        start_new_session: bool = False,
    ) -> None:
        assert command[0] == sys.executable
        request = {
            "arguments": command[1:],
            "cwd": str(Path(cwd or ".").absolute()),
            "environment": dict(os.environ if env is None else env),
            "new_session": start_new_session,
        }
        self.args = command
        self.returncode: int | None = None
        opened: list[int] = []  # for the child alone
        self.stdout, output = _file(stdout, 1, opened)
        self.stderr, errors = _file(stderr, 2, opened)
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.connect(address())
        socket.send_fds(self._connection, [b"\n"], [_file(stdin, 0, opened)[1], output, errors])
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        for descriptor in opened:
            os.close(descriptor)
        self.pid = self._told()

    def poll(self) -> int | None:
        """The exit code, negative for the signal that killed it; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it says to its pipes, until it and its children have closed them and it has
        ended.
        """
        said = {"stdout": "", "stderr": ""}

        def read(name: str, pipe: IO[str]) -> None:
            said[name] = pipe.read()

        pipes = [(name, pipe) for name in said if (pipe := getattr(self, name)) is not None]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in pipes]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        for _, pipe in pipes:
            pipe.close()
        return said["stdout"], said["stderr"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if selector.select(timeout):
                    self.returncode = self._told()
                    self._connection.close()
        return self.returncode

    def _told(self) -> int:
        """The pid, as the first that the server says, or the exit code as the last."""
        said: dict[str, Any] = json.loads(
            _line(self._connection) or '{"error": "the fork server has ended"}'
        )
        if "error" in said:
            raise ValueError(said["error"])
        return int(said["told"])


def run(
    command: Sequence[str],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """A program that the server runs to its end, as by `subprocess.run`, and what it printed."""
    process = Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        told, said = process.communicate(timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(command, process.wait(), told, said)


def _file(
    given: int | IO[Any] | None, standard: int, opened: list[int]
) -> tuple[IO[str] | None, int]:
    """The end of a pipe to read, if one is asked for, and what the child shall write to."""
    if given == subprocess.PIPE:
        ours, theirs = os.pipe()
        opened.append(theirs)
        return open(ours, encoding="utf-8"), theirs
    if given == subprocess.DEVNULL:
        opened.append(os.open(os.devnull, os.O_RDWR))
        return None, opened[-1]
    if given is None:
        return None, standard
    return None, given if isinstance(given, int) else given.fileno()


def begin() -> IO[bytes]:
    """Start a server that ends with this process; what it says.

    The server is the one of all processes that are started from now on, too.
    """
    folder = tempfile.TemporaryDirectory()
    path = f"{folder.name}/socket"
    server = _TruePopen(
        [sys.executable, __file__, path, *IMPORTS],
        env=os.environ | SETTINGS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C at pytest's terminal is for pytest
    )
    assert server.stdout is not None

    def end() -> None:
        server.communicate()  # its input ends
        folder.cleanup()

    atexit.register(end)
    os.environ[ADDRESS] = path
    return server.stdout


@functools.cache
def address() -> str:
    """The path of the socket of the server, which the first call starts or waits for."""
    if ADDRESS not in os.environ:
        assert begin().readline() == b"ready\n"
    path = os.environ[ADDRESS]
    limit = time.monotonic() + 120
    while not os.path.exists(path):
        assert time.monotonic() < limit, "the fork server has not begun"
        time.sleep(0.05)
    return path


def _line(connection: socket.socket) -> bytes:
    """The next line that comes, and not a byte more, for which `select` would not wake."""
    with connection.makefile("rb", buffering=0) as read:
        return bytes(read.readline())


# The side of the server


class Request(NamedTuple):
    """A program to run, and its standard input, output and errors."""

    arguments: list[str]
    cwd: str
    environment: dict[str, str]
    new_session: bool
    files: list[int]


class Server:
    """Who forks: its socket, the environment at its start, the children, and who wants to know of
    their end.
    """

    def __init__(self, path: str, environment: dict[str, str]) -> None:
        self.environment = environment
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(f"{path}.new")
        self.listening.listen(100)
        os.rename(f"{path}.new", path)  # who finds it can connect
        self.woken, self.wake = socket.socketpair()
        self.wake.setblocking(False)
        self.running: dict[int, socket.socket] = {}

    def serve(self) -> Request:
        """Answer requests until standard input ends. This returns in children alone, with what each
        shall run.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake.fileno())
        with selectors.DefaultSelector() as selector:
            for readable in (sys.stdin, self.listening, self.woken):
                selector.register(readable, selectors.EVENT_READ)
            print("ready", flush=True)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if sys.stdin in ready:
                    for pid in self.running:
                        os.kill(pid, signal.SIGKILL)
                    sys.exit()
                if self.woken in ready:
                    self.woken.recv(LARGEST)
                    self._tell_of_the_ended()
                if self.listening in ready:
                    connection, _ = self.listening.accept()
                    request = self._request(connection)
                    if request is not None and self._fork(connection, request) == 0:
                        return request

    def _request(self, connection: socket.socket) -> Request | None:
        """What a client asks for; None where it is refused, which the client is told."""
        _, files, *_ = socket.recv_fds(connection, 1, 3)
        try:
            request = Request(**json.loads(_line(connection)), files=files)
            _check_environment(request.environment, self.environment)
            return request
        except ValueError as error:
            self._tell(connection, error=str(error))
            connection.close()
            for descriptor in files:
                os.close(descriptor)
            return None

    def _fork(self, connection: socket.socket, request: Request) -> int:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for unused in (
                self.listening,
                self.woken,
                self.wake,
                connection,
                *self.running.values(),
            ):
                unused.close()
            return 0
        for descriptor in request.files:
            os.close(descriptor)
        self.running[pid] = connection
        self._tell(connection, told=pid)
        return pid

    def _tell_of_the_ended(self) -> None:
        while self.running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self.running.pop(pid) as connection:
                self._tell(connection, told=os.waitstatus_to_exitcode(status))

    def _tell(self, connection: socket.socket, **what: int | str) -> None:
        with contextlib.suppress(OSError):  # where who asked has ended
            connection.sendall(json.dumps(what).encode() + b"\n")


def _check_environment(wanted: Mapping[str, str], had: Mapping[str, str]) -> None:
    """ValueError for a value that a library may have read otherwise while the server imported it.

    had: what the server began with. Libraries have put more into its environment, which a child's
    child has too.
    """
    keys = {key for key in had.keys() | wanted.keys() if key.startswith(READ)}
    differing = [
        key for key in sorted(keys) if wanted.get(key) not in (had.get(key), os.environ.get(key))
    ]
    if differing:
        raise ValueError(
            f"The fork server has other values of {', '.join(differing)}. Start a Python for it."
        )


def know_all_that_stays() -> None:
    """Find out once for all programs what each would find out anew: the peak of this machine, the
    table of hardware, the versions of the libraries, the commit of the package.
    """
    if "sqzb.pretraining.job" not in sys.modules:
        return
    from sqzb.plan import hardware
    from sqzb.training import run_folder, throughput

    throughput.peak_flops(sys.modules["torch"].device("cpu"), "fp32")
    hardware.devices()
    run_folder._versions()
    git_state = functools.cache(run_folder.git_state)
    git_state(run_folder.PACKAGE)
    setattr(run_folder, "git_state", git_state)  # noqa: B010


def become(request: Request, added: dict[str, str]) -> None:
    """Be the program, as `python ARGUMENTS` would be.

    added: what the libraries have put into the environment when they were imported, and the
    server's address.
    """
    if request.new_session:
        os.setsid()
    for number, descriptor in enumerate(request.files):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.environment | added)
    numpy, torch = sys.modules["numpy"], sys.modules["torch"]
    for draws in (numpy.random, torch.default_generator):  # each Python has a seed of its own
        draws.seed()
    sys.modules["fork_server"] = sys.modules["__main__"]  # for a program that asks for further ones
    first, *rest = request.arguments
    if first == "-m":
        sys.argv, sys.path[0] = rest[:], request.cwd
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv, sys.path[0] = request.arguments, str(Path(first).absolute().parent)
        runpy.run_path(first, run_name="__main__")


class End:
    """The end of a process behind all that Python does at its exit but to take its modules apart.

    That would copy most of the server's memory first. A process is told of it when it is made,
    before any library can ask to be called at the exit, so that all of these are called before it.
    """

    def __init__(self) -> None:
        self.code: int | None = 0
        atexit.register(self.now)

    def of(self, program: Callable[[], None]) -> None:
        """Run the program, and note the exit code that Python will end with."""
        try:
            program()
        except SystemExit as ended:
            self.code = int(ended.code or 0) if isinstance(ended.code, int | None) else 1
            raise
        except KeyboardInterrupt:
            self.code = None
            raise
        except BaseException:
            self.code = 1
            raise

    def now(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if self.code is None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit((self.code or 0) & 0xFF)


if __name__ == "__main__":
    end, path, at_start = End(), sys.argv[1], dict(os.environ)
    for name in sys.argv[2:]:
        import_module(name)
    os.fsync = lambda fd: None  # a program may be killed, but the power stays
    know_all_that_stays()
    assert threading.active_count() == 1  # a child would have no copy of another
    gc.freeze()
    added = {key: value for key, value in os.environ.items() if key not in at_start}
    request = Server(path, at_start).serve()
    end.of(lambda: become(request, added | {ADDRESS: path}))
