"""What a command prints, where whoever reads it ends early or its disk is full."""

import os
import subprocess
from pathlib import Path
from typing import IO

import pytest

from tests.boot.program import Ended, Site
from tests.testbed.content import read_all, safetensors

FULL = Path("/dev/full")
COMMANDS = [("--help",), ("--version",), ("plan", "--json"), ("status",)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def run_into(site: Site, stdout: IO[bytes], *arguments: str) -> Ended:
    """Runs a command to its end, which prints to ``stdout``."""
    done = subprocess.run(
        site.command(*arguments),
        env=site.env(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, "", done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_gone_ends_the_command_without_a_word(
    site: Site, command: tuple[str, ...]
) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with os.fdopen(write_fd, "wb") as pipe:
        ended = run_into(site, pipe, *command)

    assert (ended.code, ended.err) == (141, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_behind_stdout_is_74_in_one_line(site: Site, command: tuple[str, ...]) -> None:
    with FULL.open("wb") as full:
        ended = run_into(site, full, *command)

    assert ended.code == 74
    [error] = ended.err.splitlines()
    assert "stdout: it can't be written (no space left on device); make room" in error


def test_verify_does_not_take_its_own_stdout_for_the_volume(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(read_all(safetensors(1000)))
    url = (tmp_path / "a").as_uri()
    site.models = f"version: 1\nmodels:\n  - {{path: loras/a.safetensors, url: '{url}'}}\n"
    assert site.run("fill").code == 0

    with FULL.open("wb") as full:
        ended = run_into(site, full, "verify")

    assert ended.code == 74
    assert "volume" not in ended.err
    assert "stdout: it can't be written" in ended.err
