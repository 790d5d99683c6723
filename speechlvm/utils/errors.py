"""Errors that a user can cause, each with its exit status."""


class UserError(Exception):
    """Something in the user's files or environment is wrong.

    The message is one line: ``file:line: utterance: what was found; what was expected; what to do``.
    """

    exit_status = 1


class ConfigError(UserError):
    """Wrong usage: an option, a configuration key or a value."""

    exit_status = 2


class Interrupted(UserError):
    """Stopped from outside before the work was complete; the same command, run again, finishes it."""

    exit_status = 75
