"""What smoke's steps make of the errors in them."""

import pytest

from morpheus_boot.errors import MorpheusError, NotSetUp, WaitedTooLong, all_of
from morpheus_boot.smoke.steps import Steps

SILENT = WaitedTooLong("up", "it was not ready", "wait")
TAKEN = NotSetUp("port 1", "it is taken", "free it")


@pytest.mark.parametrize("errors", [[SILENT], [SILENT, TAKEN]])
def test_an_error_names_its_step_also_where_it_is_several(
    errors: list[MorpheusError],
) -> None:
    steps = Steps()

    with pytest.raises(MorpheusError) as raised, steps.step("cold boot"):
        raise all_of(errors)

    assert str(raised.value).splitlines() == [f"smoke: cold boot: {error}" for error in errors]
    assert steps.done == ()
