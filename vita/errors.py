"""Errors that are read by people: one line, what was given, what was expected, what to do now."""


class VitaError(Exception):
    """Base of every error this project raises on purpose.

    The message is one line and complete: command line and web page print it as it is.
    """


class AudioError(VitaError):
    """The given audio cannot be used (broken, empty, too long, not finite, not audio at all)."""


class TextInputError(VitaError):
    """The given text cannot be used (empty or absurdly long)."""


class ModeError(VitaError):
    """The decoding mode is neither a known name nor a valid schedule list."""


class CheckpointError(VitaError):
    """A model or one of its files is unknown, missing, truncated or does not fit."""
