"""How work ends before its time. Long steps are handed the event that says so, and raise this once it is set."""


class Stopped(Exception):
    """The boot, or a command, is being stopped; what is safe on the volume stays there for the next worker."""
