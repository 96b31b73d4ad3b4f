"""What a user reads where a boot can't be: one line with the cause and the mend, a code, and time to read it."""

import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.boot.program import Site
from tests.testbed.mounts import fill_up, mounted
from tests.wait import wait_until

EMPTY = "version: 1\nmodels: []\n"
MISSPELT = "version: 1\nmodles: []\n"
ARGS = {"COMFYUI_ARGS": "--port 1"}
UNREACHABLE = "version: 1\nmodels:\n" + "".join(
    f"  - {{path: loras/{name}.safetensors, url: 'http://127.0.0.1:9/x'}}\n" for name in "ab"
)


def no_comfyui(site: Site, _: ExitStack) -> None:
    site.comfyui = site.root / "nothing-here"


def comfyui_that_dies(site: Site, _: ExitStack) -> None:
    (site.comfyui / "main.py").write_text("print('no CUDA today')\nraise SystemExit(3)\n")


def no_custom_nodes(site: Site, _: ExitStack) -> None:
    site.environ = {"MORPHEUS_TOKEN": "x" * 20, "COMFYUI_ARGS": "--disable-all-custom-nodes"}


def own_disk(site: Site, _: ExitStack) -> None:
    site.environ = {"RUNPOD_POD_ID": "pod1", "MORPHEUS_HOLD_S": "0"}


def no_local_folder(site: Site, _: ExitStack) -> None:
    site.local.write_text("in the way")


def no_input_folder(site: Site, _: ExitStack) -> None:
    (site.local / "comfyui").mkdir(parents=True)
    (site.local / "comfyui" / "input").write_text("in the way")


def full_local_disk(site: Site, stack: ExitStack) -> None:
    fill_up(stack.enter_context(mounted(site.local, "size=1m")))


def fileserver_port_taken(site: Site, stack: ExitStack) -> None:
    stack.enter_context(socket.create_server(("127.0.0.1", site.fileserver_port)))


def comfyui_port_taken(site: Site, stack: ExitStack) -> None:
    stack.enter_context(socket.create_server(("127.0.0.1", site.comfyui_port)))


@pytest.mark.parametrize(
    ("spoil", "command", "code", "words"),
    [
        (no_comfyui, "up", 78, ["{site.root}/nothing-here"]),
        (comfyui_that_dies, "up", 69, 3 * ["comfyui    no CUDA today"] + ["exit code 3"]),
        (no_custom_nodes, "up", 78, ["--disable-all-custom-nodes"]),
        (own_disk, "fill", 78, ["vanish"]),
        (no_local_folder, "up", 74, ["{site.local} can't be written (File exists)", "LOCAL_DIR"]),
        (no_local_folder, "files", 74, ["{site.local} can't be written (File exists)"]),
        (no_input_folder, "up", 74, ["{site.local}/comfyui/input can't be written", "LOCAL_DIR"]),
        (full_local_disk, "up", 74, ["set MORPHEUS_LOCAL_DIR"]),
        (fileserver_port_taken, "up", 78, ["port {site.fileserver_port}:", "process {pid} ("]),
        (comfyui_port_taken, "up", 78, ["port {site.comfyui_port}:", "process {pid} ("]),
    ],
)
def test_what_is_wrong_ends_it_with_its_code_and_is_named(
    site: Site,
    spoil: Callable[[Site, ExitStack], None],
    command: str,
    code: int,
    words: list[str],
) -> None:
    with ExitStack() as stack:
        spoil(site, stack)
        ended = site.run(command)

    assert ended.code == code
    assert "Traceback" not in ended.err
    assert f"(exit {code})" in ended.err.splitlines()[-1]
    for word in words:
        assert ended.err.count(word.format(site=site, pid=os.getpid())) >= words.count(word)


@pytest.mark.parametrize(
    ("models", "variables", "arguments", "code", "errors"),
    [
        (MISSPELT, {}, "", 65, ["line 2"]),
        (UNREACHABLE, {}, "--retry-for 0.2", 69, [f"loras/{n}.safetensors: " for n in "ab"]),
        (
            EMPTY,
            {"MORPHEUS_JOB_TTL_HOURS": "0", **ARGS},
            "",
            64,
            ["MORPHEUS_JOB_TTL_HOURS: ", "COMFYUI_ARGS: "],
        ),
        (EMPTY, {"PORT": "{port}"}, "", 78, ["PORT: "]),
        (EMPTY, {"MORPHEUS_TOKEN": "{{{{ RUNPOD_SECRET_X }}}}"}, "", 64, ["MORPHEUS_TOKEN: "]),
        (EMPTY, {}, "--nonsense", 64, ["command line: "]),
    ],
)
def test_a_boot_that_gives_up_stays_reachable_and_says_why_until_it_is_told_to_end(
    site: Site,
    *,
    models: str,
    variables: dict[str, str],
    arguments: str,
    code: int,
    errors: list[str],
) -> None:
    site.models = models
    given = {name: value.format(port=site.comfyui_port) for name, value in variables.items()}
    site.environ = {"MORPHEUS_HOLD_S": "60", **given}

    with site.start("up", *arguments.split()) as up:
        wait_until(lambda: up.ping() == 503, timeout_s=20)
        status = up.get("/status").json()
        assert all(error in status["error"] for error in errors)
        assert status["exit_code"] == code
        assert up.stop() == code

    assert up.log.count("ERROR: giving up in 60 s: ") == len(errors)
    assert not [line for line in up.log.splitlines() if not line.startswith("20")]


@pytest.mark.parametrize(
    ("models", "variables", "arguments", "code"),
    [
        (MISSPELT, {}, "--log-format json", 65),
        (EMPTY, {"MORPHEUS_LOG": "json"}, "--lock-timeout x", 64),
        (EMPTY, {}, "--nonsense --log-format=json", 64),
        (EMPTY, {"MORPHEUS_LOG": "json", **ARGS}, "", 64),
    ],
)
def test_what_is_wrong_is_told_in_json_where_the_log_is_json(
    site: Site, models: str, variables: dict[str, str], arguments: str, code: int
) -> None:
    site.models = models
    site.environ = variables

    ended = site.run("up", *arguments.split())

    assert ended.code == code
    assert [json.loads(line)["level"] for line in ended.err.splitlines()][-1] == "error"


def test_an_error_of_comfyuis_is_one_in_our_log(site: Site) -> None:
    (site.comfyui / "main.py").write_text(
        "print('\\x1b[31m[ERROR] no database\\x1b[0m')\nprint('usage')\nraise SystemExit(3)\n"
    )

    ended = site.run("up", "--log-format", "json")

    said = [json.loads(line) for line in ended.err.splitlines()]
    levels = {entry["message"]: entry["level"] for entry in said if entry["source"] == "comfyui"}
    assert levels == {"no database": "error", "usage": "info"}
