"""A volume whose link is cut hangs whoever touches it, beyond any signal: what must answer all the same, and end."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.boot.program import Program, Site
from tests.testbed.content import safetensors
from tests.testbed.moosefs import MooseFS
from tests.testbed.origin import Origin
from tests.wait import wait_until


@dataclass
class MountedSite(Site):
    """A container whose volume is a folder of MooseFS."""

    mount: Path = Path("/proc/you-forgot-to-choose-a-volume")

    @property
    def volume(self) -> Path:
        return self.mount


@pytest.fixture
def site(moosefs: MooseFS, tmp_path: Path) -> Site:
    return MountedSite(tmp_path, mount=moosefs.a / moosefs.fresh())


@contextmanager
def cut_off(moosefs: MooseFS) -> Iterator[None]:
    moosefs.cut("a")
    try:
        yield
    finally:
        moosefs.restore("a")


def status_of(program: Program) -> dict[str, Any]:
    document: dict[str, Any] = program.get("/status").json()
    return document


def hangs(pid: int) -> bool:
    """Whether a thread of this process waits for an answer of the file system, which not even SIGKILL ends."""
    return any(
        wchan.read_text() == "request_wait_answer"
        for wchan in Path(f"/proc/{pid}/task").glob("*/wchan")
    )


def assert_answers(program: Program) -> None:
    assert program.ping() == 200
    assert program.get("/health").status_code == 200
    assert program.get("/status").json()["readiness"] == "ready"
    assert program.get("/").status_code == 200


def test_files_answers_and_ends_in_order_while_the_link_is_cut(
    moosefs: MooseFS, site: Site
) -> None:
    with site.start("files") as files:
        files.wait_until_ready()

        with cut_off(moosefs):
            assert_answers(files)
            assert files.stop() == 0


def test_files_answers_and_ends_while_an_upload_hangs_with_the_link(
    moosefs: MooseFS, site: Site
) -> None:
    url = f"http://127.0.0.1:{site.fileserver_port}/upload"

    def upload() -> None:
        with pytest.raises(requests.RequestException):
            requests.post(url, files={"file": ("x.png", b"data")}, timeout=30)

    uploading = threading.Thread(target=upload)
    with site.start("files") as files:
        files.wait_until_ready()
        status = status_of(files)
        (server,) = status["services"]

        with cut_off(moosefs):
            uploading.start()
            wait_until(lambda: hangs(server["pid"]))
            assert_answers(files)
            os.kill(status["pid"], signal.SIGTERM)
            # The server can't be killed; the boot says so, leaves it behind and ends.
            assert files.wait(10) == 0
            assert f"pid {server['pid']} does not end, not even by SIGKILL" in files.log
            assert hangs(server["pid"])
        uploading.join()
        wait_until(lambda: not Path(f"/proc/{server['pid']}/task").exists())


def test_up_answers_and_stops_everything_while_the_link_is_cut(
    moosefs: MooseFS, site: Site, origin: Origin
) -> None:
    url = origin.serve("/a.safetensors", safetensors(300_000))
    site.models = f"version: 1\nmodels:\n  - {{path: loras/a.safetensors, url: '{url}'}}\n"
    with site.start("up") as up:
        up.wait_until_ready()
        status = status_of(up)

        with cut_off(moosefs):
            assert_answers(up)
            os.kill(status["pid"], signal.SIGTERM)
            wait_until(lambda: "stopped in order" in up.log)
            for service in status["services"]:
                assert not Path(f"/proc/{service['pid']}/task").exists()
            # Its heartbeat hangs in the kernel, and so the process stays until the link is back, dead as it is.
            wait_until(lambda: hangs(status["pid"]))
        assert up.wait(10) == 0
