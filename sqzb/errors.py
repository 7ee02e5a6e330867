"""The errors that users see: what is wrong, where, and what to do next."""

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
