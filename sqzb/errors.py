"""The errors that users see: what is wrong, where, and what to do next."""

import errno
import os

# A value that cannot be used: its key and the reason ("hidden_size", "12 does not divide 100").
Problem = tuple[str, str]


class UserError(Exception):
    """A problem that the user can fix.

    The command line prints it as one paragraph, without a traceback.
    """

    exit_code = 1


class RecipeError(UserError):
    """A recipe or its overrides cannot be used; the message lists every problem."""

    exit_code = 2


class WrongArgument(UserError):
    """An argument of the command line cannot be used."""

    exit_code = 2


class Diverged(UserError):
    """Too many consecutive steps had a loss or gradient that was not finite."""

    exit_code = 3


class Stopped(UserError):
    """The run was asked to stop and has saved a checkpoint.

    signal: number of the signal that asked; the exit code is 128 + `signal`, as in a shell.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class PeerLost(UserError):
    """Another process of the run has ended, so this process cannot continue."""

    exit_code = 4


# Errors of the operating system that only writing has.
WRITING = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The reason and the advice for errors of the operating system.
_OF_SYSTEM = {
    errno.EACCES: (
        "permission is denied",
        "Change the permissions of the file or its folder, or give another path.",
    ),
    errno.EROFS: ("its file system is read-only", "Give a path on another file system."),
    errno.ENOSPC: ("its disk is full", "Free some space, then run the command again."),
    errno.EDQUOT: (
        "your disk quota is used up",
        "Free some space or give a path on another disk, then run the command again.",
    ),
    errno.EFBIG: (
        "the file is over the largest size that this shell or file system permits",
        "Raise the limit (ulimit -f), or give a path on another file system.",
    ),
    errno.ENOENT: (
        "there is no such file or folder",
        "Check the path, and where links on it point.",
    ),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "Give another path."),
    errno.EISDIR: ("it is a folder, where a file is needed", "Give the path of a file."),
    errno.EEXIST: (
        "a file or a broken link is there, where a folder is needed",
        "Remove it, or give another path.",
    ),
    errno.ENOTEMPTY: ("the folder is not empty", "Remove its files, or give another path."),
    errno.ELOOP: ("its links lead in a circle", "Correct the links, or give another path."),
    errno.ENAMETOOLONG: ("the name is too long", "Give a shorter one."),
    errno.EAGAIN: ("another process is writing it", "Wait for it, or give another path."),
    errno.EMFILE: ("too many files are open", "Raise the limit (ulimit -n)."),
    errno.EIO: ("its disk reports an error", "Check the disk, then run the command again."),
}
_OF_SYSTEM[errno.EPERM] = _OF_SYSTEM[errno.EACCES]


def explain(error: OSError) -> str:
    """Return an error of the operating system as a message: the path, the reason and advice."""
    if error.errno is None:  # a library's own error, with its own text
        return str(error) or type(error).__name__
    if error.errno == errno.ENOENT and _working_folder_is_gone():
        return (
            "The working folder has been removed. Change to another folder (cd), then run the "
            "command again."
        )
    reason, advice = _OF_SYSTEM.get(
        error.errno, (error.strerror or os.strerror(error.errno), "Check the path and its disk.")
    )
    path = error.filename if error.filename2 is None else error.filename2
    subject = "A file or folder" if path is None else os.fsdecode(path)
    verb = "written" if error.errno in WRITING else "used"
    return f"{subject} cannot be {verb}: {reason}. {advice}"


def _working_folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
