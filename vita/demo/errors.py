"""The demo's own errors."""

from vita.errors import VitaError


class StartError(VitaError):
    """The demo cannot start as asked (port taken, option out of range)."""
