"""Resumable uploads on a real MooseFS: two hosts in turns, and a quota."""

import os
from collections.abc import Callable

from tests.fileserver.serving import MIB, FileServer
from tests.fileserver.tus import ask, create, files_of, offset_of, patch
from tests.testbed.moosefs import MooseFS
from tests.wait import wait_until


def test_two_hosts_take_turns_and_each_knows_at_once_where_the_other_ended(
    start: Callable[..., FileServer], moosefs: MooseFS
) -> None:
    name = moosefs.fresh()
    here, there = start(volume=moosefs.a / name), start(volume=moosefs.b / name)
    content = os.urandom(12 * MIB)
    path = create(here, len(content), worker_job_id="j")
    for at in range(0, len(content), MIB):
        one, other = (here, there) if at // MIB % 2 else (there, here)
        assert patch(one, path, at, content[at : at + MIB]).status_code == 204
        assert offset_of(other, path) == at + MIB
    # Once more after the end, by the host that did not end it.
    assert patch(there, path, len(content) - MIB, content[-MIB:]).status_code == 409
    for server in (here, there):
        wait_until((server.input_of("j") / "a.bin").exists)
        assert (server.input_of("j") / "a.bin").read_bytes() == content
        assert files_of(server) == [".journal"]


def test_a_full_quota_is_507_and_the_offset_names_only_what_the_volume_kept(
    start: Callable[..., FileServer], moosefs: MooseFS
) -> None:
    name = moosefs.fresh()
    moosefs.quota(name, 20 * MIB)
    server = start(volume=moosefs.a / name)
    content = os.urandom(30 * MIB)
    path = create(server, len(content), worker_job_id="j")
    assert patch(server, path, 0, content[: 8 * MIB]).status_code == 204
    assert patch(server, path, 8 * MIB, content[8 * MIB :]).status_code == 507
    at = offset_of(server, path)
    assert 8 * MIB <= at <= 20 * MIB
    (part,) = (server.volume / ".morpheus/tus").glob("*.part")
    with part.open("rb") as kept:
        assert kept.read(at) == content[:at]
    # The room is free again at once.
    assert ask(server, "DELETE", path).status_code == 204
    again = create(server, 15 * MIB, worker_job_id="j")
    assert patch(server, again, 0, content[: 15 * MIB]).status_code == 204
