"""The one error for what a user can put right."""


class UserError(ValueError):
    """Wrong input or wrong use: says what was expected, what came and what to do.

    The command line prints its message without a traceback and exits with code 2.
    """
