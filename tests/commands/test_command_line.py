"""The command line itself, before any command."""

from pathlib import Path

import pytest

from morpheus_boot import __version__
from tests.boot.program import Site


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (("help",), "usage: pod_start.sh [-h]"),
        (("help", "fill"), "usage: pod_start.sh fill [-h]"),
        (("fill", "--help"), "usage: pod_start.sh fill [-h]"),
    ],
)
def test_help_is_there_as_a_command_too(
    tmp_path: Path, arguments: tuple[str, ...], usage: str
) -> None:
    ended = Site(tmp_path).run(*arguments)

    assert ended.code == 0
    assert ended.out.startswith(usage)


def test_an_unknown_option_points_to_the_help_of_its_command(tmp_path: Path) -> None:
    ended = Site(tmp_path).run("fill", "--foo")

    assert ended.code == 64
    assert "unrecognized arguments: --foo; see pod_start.sh fill --help" in ended.err


def test_all_variables_that_are_wrong_are_named_at_once(tmp_path: Path) -> None:
    environ = {"HF_TOKEN": "{{ RUNPOD_SECRET_A }}", "CIVITAI_TOKEN": "a\nb", "MORPHEUS_LOG": "xml"}

    ended = Site(tmp_path, environ=environ).run("plan")

    assert ended.code == 64
    assert [line.partition("ERROR: ")[2].partition(":")[0] for line in ended.err.splitlines()] == [
        "HF_TOKEN",
        "CIVITAI_TOKEN",
        "MORPHEUS_LOG",
    ]


def test_fill_begins_with_its_version_and_who_it_is(tmp_path: Path) -> None:
    site = Site(tmp_path, environ={"RUNPOD_POD_ID": "pod1", "RUNPOD_ENDPOINT_ID": "e"})

    first, *_ = site.run("fill").err.splitlines()

    assert first.endswith(f"morpheus boot {__version__}, fill, worker pod1")
