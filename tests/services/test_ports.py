"""A port that is taken is an error at once, and says who has it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from morpheus_boot.errors import Exit, NotSetUp
from morpheus_boot.services.ports import require_free

_LISTEN = (
    "import socket, sys\n"
    "v6 = ':' in sys.argv[1]\n"
    "family = socket.AF_INET6 if v6 else socket.AF_INET\n"
    "server = socket.create_server((sys.argv[1], 0), family=family, dualstack_ipv6=v6)\n"
    "print(server.getsockname()[1], flush=True)\n"
    "server.accept()\n"
)


@pytest.fixture(params=["0.0.0.0", "127.0.0.1", "::"])
def listener(request: pytest.FixtureRequest) -> "Iterator[tuple[int, int]]":
    """The pid and port of another process that listens, on each kind of address."""
    command = [sys.executable, "-I", "-S", "-c", _LISTEN, request.param, "--made-up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            pytest.skip(f"nobody can listen on {request.param} here")
        yield process.pid, int(port)
        process.kill()


def test_a_taken_port_is_an_error_that_names_who_has_it(listener: tuple[int, int]) -> None:
    pid, port = listener

    with pytest.raises(NotSetUp) as raised:
        require_free(port, "ComfyUI", "COMFYUI_PORT")

    assert raised.value.exit_code is Exit.SETUP
    text = str(raised.value)
    assert text.startswith(f"port {port}: ComfyUI needs it, but process {pid} ({sys.executable} ")
    assert text.endswith("stop that process, or set COMFYUI_PORT to another port")
    assert len(text.splitlines()) == 1


def test_a_port_that_is_free_again_is_free_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()  # our side closes first and lingers in TIME_WAIT

    require_free(port, "ComfyUI", "COMFYUI_PORT")


def test_our_own_port_is_named_as_ours() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(NotSetUp, match=f"process {os.getpid()} "):
            require_free(port, "the file server", "FILESERVER_PORT")


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's rights for a while."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_process_that_cannot_be_seen_is_said_to_be_so(listener: tuple[int, int]) -> None:
    with nobody(), pytest.raises(NotSetUp, match="a process that can't be seen from here"):
        require_free(listener[1], "ComfyUI", "COMFYUI_PORT")


def test_a_port_that_only_root_may_have_is_an_error() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first < 2:
        pytest.skip("every port is for everybody here")

    with nobody(), pytest.raises(NotSetUp, match=r"may not listen there \(permission denied\)"):
        require_free(first - 1, "ComfyUI", "COMFYUI_PORT")
