"""What pip says, taken for what it means."""

import pytest

from morpheus_boot.errors import OriginUnavailable, StorageFailed
from morpheus_boot.start.pip_words import errors_in, is_new_enough, machine_error_in


@pytest.mark.parametrize(
    ("version", "enough"),
    [("24.2", True), ("26.3.1", True), ("24.10", True), ("24.1.2", False), ("9.0", False)],
)
def test_a_version_is_compared_number_by_number(version: str, enough: bool) -> None:
    assert is_new_enough(version, (24, 2)) is enough


def test_a_full_disk_is_the_machines_error() -> None:
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"

    error = machine_error_in(said, "custom nodes' packages")

    assert isinstance(error, StorageFailed)
    assert error.subject == "custom nodes' packages"


def test_a_broken_connection_is_the_cause_and_not_the_version_that_was_not_found() -> None:
    said = (
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'Refused()': /simple/x/\n"
        "ERROR: Could not find a version that satisfies the requirement x\n"
    )

    error = machine_error_in(said, "x")

    assert isinstance(error, OriginUnavailable)
    assert error.cause == "can't be reached ('Refused()': /simple/x/)"


def test_what_is_wrong_with_a_package_is_no_error_of_the_machine() -> None:
    said = "WARNING: old\nERROR: No matching\n  distribution\nERROR:   found   for x\n"

    assert machine_error_in(said, "x") is None
    assert errors_in(said) == ["No matching", "found for x"]
