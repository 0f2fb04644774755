"""Errors a user can mend: each says who, what, where, both values, and the fix."""


class EquivError(Exception):
    """Base of every error that this package raises on purpose; its text is meant for the user."""


class CaseError(EquivError):
    """A case, a builder or a layer table that cannot be used as it stands."""


class NotRun(EquivError):
    """Something could not be run here, through no fault of the port: a library or device is missing."""


class PortError(EquivError):
    """A port that was built but cannot be traced, loaded or run."""
