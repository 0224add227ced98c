"""The two kinds of errors that the command line tells without a traceback."""


class UserError(ValueError):
    """Wrong input or wrong use: says what was expected, what came and what to do. Exit code 2."""


class Failure(RuntimeError):
    """The use was right and it failed all the same: says what failed and why. Exit code 1."""
