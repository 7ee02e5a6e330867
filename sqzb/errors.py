"""The one kind of error that a user meets: what is wrong, where, and what to do next."""


class UserError(Exception):
    """Something the user can mend; the command line shows it as one paragraph without a traceback."""

    exit_code = 1


class RecipeError(UserError):
    """The recipe or its overrides cannot be used; every problem is listed in one message."""

    exit_code = 2
