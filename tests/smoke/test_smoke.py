"""`smoke` as its user calls it: what it prints, what it ends with, and that it leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from morpheus_boot.errors import MorpheusError, NotSetUp, WaitedTooLong, all_of
from morpheus_boot.smoke.inner import free_ports
from morpheus_boot.smoke.steps import Steps
from morpheus_boot.smoke.target import remove_links
from tests.guard.served import STAND_IN
from tests.wait import wait_until

_STEPS = [
    *("cold boot", "models fetched", "models listed", "upload", "job", "job by name"),
    *("download", "cleanup", "stop", "warm boot", "models listed", "stop"),
]
_NO_COMFYUI = "/proc/no-comfyui-here"

_SILENT = WaitedTooLong("up", "it was not ready", "wait")
_TAKEN = NotSetUp("port 1", "it is taken", "free it")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Where smoke makes its temporary folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def _start(
    workplace: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "morpheus_boot", "smoke", *arguments],
        env={**os.environ, "TMPDIR": str(workplace), **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _smoke(
    workplace: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> tuple[int, str, list[str]]:
    """Exit code, stdout, and the lines of stderr."""
    with _start(workplace, *arguments, variables=variables) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err.splitlines()


def _assert_nothing_is_left(workplace: Path) -> None:
    assert list(workplace.iterdir()) == []
    assert _processes_that_know(workplace) == []


def _processes_that_know(folder: Path) -> list[str]:
    """The command lines of those processes that have ``folder`` in their arguments or environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            arguments, environ = ((process / n).read_bytes() for n in ("cmdline", "environ"))
        except OSError:
            continue  # no process, or one that has ended
        if bytes(folder) in arguments + environ:
            found.append(arguments.decode(errors="replace"))
    return found


def _as_real(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A ComfyUI outside smoke's own folder, and the variables that name it."""
    comfyui = tmp_path / "installed" / "ComfyUI"
    shutil.copytree(STAND_IN, comfyui, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("custom_nodes", "models/checkpoints"):
        (comfyui / name).mkdir(parents=True)
    return comfyui, {"COMFYUI_DIR": str(comfyui), "COMFYUI_PYTHON": sys.executable}


def test_smoke_passes_in_a_container_whose_own_variables_would_not_let_it(workplace: Path) -> None:
    ports = [str(port) for port in free_ports(2)]
    variables = {
        "RUNPOD_POD_ID": "a-pod-without-a-volume",
        "RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1:9/job",
        "PORT": ports[0],
        "PORT_HEALTH": ports[1],
        "MORPHEUS_TOKEN": "sesame",
        "MORPHEUS_JOB_TTL_HOURS": "1",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "COMFYUI_ARGS": "--unknown-to-the-stand-in",
    }

    code, out, lines = _smoke(workplace, variables=variables)

    assert code == 0
    assert not [line for line in lines for port in ports if port in line]
    heading, *rows, verdict = out.splitlines()
    assert heading.split() == ["step", "seconds"]
    assert [re.split(r",|  ", row)[0] for row in rows] == _STEPS
    assert all(re.search(r" \d+\.\d\d( |$)", row) for row in rows)
    assert "the stand-in ComfyUI (no main.py in " in verdict
    _assert_nothing_is_left(workplace)


def test_an_installed_comfyui_is_used_and_gets_its_models_folder_back(
    tmp_path: Path, workplace: Path
) -> None:
    comfyui, variables = _as_real(tmp_path)
    own = comfyui / "models" / "checkpoints" / "own.safetensors"
    own.symlink_to("/elsewhere/own.safetensors")

    code, out, _ = _smoke(workplace, variables=variables)

    assert code == 0
    assert f"the real ComfyUI in {comfyui}" in out
    assert [path for path in comfyui.glob("models/**/*") if path.is_symlink()] == [own]
    _assert_nothing_is_left(workplace)


def test_a_comfyui_that_does_not_start_is_told_with_its_last_lines(
    tmp_path: Path, workplace: Path
) -> None:
    comfyui, variables = _as_real(tmp_path)
    (comfyui / "main.py").write_text("raise SystemExit('torch is broken')")

    code, out, lines = _smoke(workplace, variables=variables)

    assert code == 69
    assert out == ""
    assert "smoke: cold boot: up: ended with exit code 69" in lines[-1]
    assert "torch is broken" in lines[-1]
    assert not [path for path in comfyui.glob("models/**/*") if path.is_symlink()]
    _assert_nothing_is_left(workplace)


def test_a_picture_of_the_wrong_size_fails_the_download(tmp_path: Path, workplace: Path) -> None:
    comfyui, variables = _as_real(tmp_path)
    node = "import nodes\nnodes.NODE_CLASS_MAPPINGS['ImageScale'].upscale = lambda self, image, **_: (image,)\n"
    (comfyui / "custom_nodes" / "wrong.py").write_text(f"{node}NODE_CLASS_MAPPINGS = {{}}\n")

    code, _, lines = _smoke(workplace, variables=variables)

    assert code == 70
    assert "smoke: download:" in lines[-1]
    assert "instead of a PNG of (80, 60)" in lines[-1]
    _assert_nothing_is_left(workplace)


def test_a_folder_that_is_no_comfyui_is_an_error_and_not_replaced(workplace: Path) -> None:
    code, out, lines = _smoke(workplace, "--comfyui", _NO_COMFYUI)

    assert (code, out) == (78, "")
    assert f"no main.py in {_NO_COMFYUI}" in lines[-1]
    _assert_nothing_is_left(workplace)


def test_sigterm_ends_smoke_with_everything_it_started(workplace: Path) -> None:
    with _start(workplace) as process:
        wait_until(lambda: any("main.py" in line for line in _processes_that_know(workplace)))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (143, "")
    assert "smoke passed" not in err
    _assert_nothing_is_left(workplace)


@pytest.mark.parametrize("errors", [[_SILENT], [_SILENT, _TAKEN]])
def test_an_error_names_its_step_also_where_it_is_several(errors: list[MorpheusError]) -> None:
    with pytest.raises(MorpheusError) as raised, Steps().step("cold boot"):
        raise all_of(errors)

    assert str(raised.value).splitlines() == [f"smoke: cold boot: {error}" for error in errors]


def test_only_links_that_lead_to_this_smoke_s_volume_are_removed(tmp_path: Path) -> None:
    loras = tmp_path / "ComfyUI" / "models" / "loras"
    loras.mkdir(parents=True)
    volume = tmp_path / "volume"
    (loras / "ours.safetensors").symlink_to(volume / "model_cache" / "loras" / "ours.safetensors")
    (loras / "another.safetensors").symlink_to(tmp_path / "another" / "ours.safetensors")
    (loras / "file.safetensors").touch()

    names = ("ours", "another", "file", "missing")
    remove_links(tmp_path / "ComfyUI", [f"loras/{name}.safetensors" for name in names], volume)

    assert {path.name for path in loras.iterdir()} == {"another.safetensors", "file.safetensors"}
