"""The errors that a user meets: what is wrong, where, and what to do next."""

# A value that cannot be used: its key, and what is wrong with it ("hidden_size", "12 does not
# divide 100").
Problem = tuple[str, str]


class UserError(Exception):
    """Something the user can mend; the command line shows it as one paragraph without a traceback."""

    exit_code = 1


class RecipeError(UserError):
    """The recipe or its overrides cannot be used; every problem is listed in one message."""

    exit_code = 2


class Diverged(UserError):
    """Too many steps in a row were not finite."""

    exit_code = 3


class Stopped(UserError):
    """The run was asked to stop, and has saved itself."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class PeerLost(UserError):
    """Another process of the run has ended, so that this one cannot go on."""

    exit_code = 4
