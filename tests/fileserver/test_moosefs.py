"""On a real MooseFS: a full quota, a link that is cut, and another host's view."""

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.fileserver.impatient import IMPATIENT
from tests.fileserver.serving import MIB, FileServer
from tests.fileserver.tus import ask, create, files_of, offset_of, patch
from tests.testbed.moosefs import MooseFS
from tests.wait import wait_until

IMPATIENT_COMMAND = [sys.executable, "-m", "tests.fileserver.impatient"]


def test_on_a_full_moosefs_an_upload_is_507_and_the_room_is_free_again(
    start: Callable[..., FileServer], moosefs: MooseFS
) -> None:
    name = moosefs.fresh()
    moosefs.quota(name, 20 * MIB)
    server = start(volume=moosefs.a / name)
    with ThreadPoolExecutor(4) as pool:
        sizes = [12 * MIB, 12 * MIB, 15 * MIB, 30 * MIB]
        answers = list(
            pool.map(
                lambda size: upload_status(server, size, f"{size}-{time.monotonic_ns()}"), sizes
            )
        )
    assert set(answers) <= {200, 507}
    assert 507 in answers
    wait_until(lambda: server.parts == [])
    for path in (server.volume / "jobs").rglob("*.bin"):
        assert path.stat().st_size in sizes
    for found in (server.volume / "jobs").iterdir():
        assert server.post(f"/cleanup/{found.name}").status_code == 200
    assert server.upload(bytes(15 * MIB), worker_job_id="j").status_code == 200


def upload_status(server: FileServer, size_bytes: int, job: str) -> int:
    files = {"file": ("a.bin", bytes(size_bytes))}
    data = {"worker_job_id": job}
    return requests.post(f"{server.url}/upload", files=files, data=data, timeout=60).status_code


def test_a_cut_link_holds_up_transfers_but_not_health_and_they_end_right_after_it(
    start: Callable[..., FileServer], moosefs: MooseFS
) -> None:
    server = start(volume=moosefs.a / moosefs.fresh(), command=IMPATIENT_COMMAND)
    content = os.urandom(12 * MIB)
    server.output("j", "f", content)
    answers: dict[str, requests.Response] = {}

    def upload() -> None:
        files = {"file": ("a.bin", content)}
        data = {"worker_job_id": "j"}
        answers["upload"] = requests.post(
            f"{server.url}/upload", files=files, data=data, timeout=60
        )

    def download() -> None:
        answers["download"] = requests.get(f"{server.url}/download/j/f", timeout=60)

    moosefs.cut("a")
    try:
        clients = [threading.Thread(target=client) for client in (upload, download)]
        for client in clients:
            client.start()
        # Longer than the floor's window: what our own disk takes is not the client's fault.
        until = time.monotonic() + 2 * IMPATIENT.body_idle_s

        def stays_well() -> bool:
            for path in ("/health", "/ping", "/status"):
                begun = time.monotonic()
                assert server.get(path).status_code in {200, 204}
                assert time.monotonic() - begun < 1
            return time.monotonic() > until

        wait_until(stays_well)
        assert answers == {}
    finally:
        moosefs.restore("a")
    for client in clients:
        client.join()
    assert answers["upload"].status_code == 200
    assert (server.input_of("j") / "a.bin").read_bytes() == content
    assert answers["download"].content == content


def test_what_one_host_uploads_another_serves_and_cleans_up(
    start: Callable[..., FileServer], moosefs: MooseFS
) -> None:
    name = moosefs.fresh()
    here, there = start(volume=moosefs.a / name), start(volume=moosefs.b / name)
    content = os.urandom(3 * MIB)
    here.output("j", "made/here.png", content)
    wait_until(lambda: there.get("/download/j/made/here.png").content == content)
    there.upload(content, worker_job_id="j")
    wait_until((here.input_of("j") / "a.bin").exists)
    here.post("/cleanup/j")
    wait_until(lambda: there.get("/download/j/made/here.png").status_code == 404)


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


def test_a_resumable_upload_is_507_on_a_full_quota_and_the_offset_names_only_what_the_volume_kept(
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
