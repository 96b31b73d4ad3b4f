"""How an environment variable's value is read: by one rule in the boot and in the file server."""

from morpheus_boot.errors import UsageError


def parse_port(name: str, value: str) -> int:
    """``value`` of the variable ``name`` as a TCP port. Raises UsageError."""
    if not value.isdecimal() or not 1 <= int(value) <= 65535:
        raise UsageError(name, f"'{value}' is not a port", "give a number from 1 to 65535")
    return int(value)


def parse_positive(name: str, value: str) -> float:
    """``value`` of the variable ``name`` as a finite number above 0. Raises UsageError."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise UsageError(name, f"'{value}' is not a number above 0", "give one, or unset it")
    return number


def parse_positive_whole(name: str, value: str) -> int:
    """``value`` of the variable ``name`` as a whole number above 0. Raises UsageError."""
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(name, f"'{value}' is not a whole number above 0", "give one, or unset it")
    return int(value)
