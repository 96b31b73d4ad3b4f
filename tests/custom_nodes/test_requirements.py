"""requirements.txt as nodes write it, held against what ComfyUI's Python holds."""

import codecs
from pathlib import Path

import pytest

from morpheus_boot.comfyui.custom_nodes.interpreter import Interpreter
from morpheus_boot.comfyui.custom_nodes.packages import site_key
from morpheus_boot.comfyui.custom_nodes.requirements import (
    Asked,
    Needs,
    constraints_of,
    needs_of,
    read_asked,
)

HELD = {"numpy": "2.4.6", "torch": "2.14.1+cu128", "opencv-python": "4.14.0", "old": "1.0-custom"}
PYTHON = Interpreter(
    Path("/opt/venv/bin/python"),
    ("cpython-312", "3.12.3", "linux-x86_64", "glibc 2.39"),
    HELD,
    {
        "implementation_name": "cpython",
        "implementation_version": "3.12.3",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "6",
        "platform_system": "Linux",
        "platform_version": "1",
        "python_full_version": "3.12.3",
        "python_version": "3.12",
        "sys_platform": "linux",
    },
)


def needs(*lines: str) -> Needs:
    return needs_of(Asked("a", required=True, lines=lines), PYTHON)


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "NumPy>=1.25",
        "torch>=2.0",
        "torch==2.14.1",
        "opencv_python",
        "old>=3",
        "pywin32; sys_platform == 'win32'",
        "tomli ; python_version < '3.11'",
        "numpy --hash=sha256:00",
        "torch @ https://host.test/torch-2.whl",
        "git+https://host.test/numpy.git#egg=numpy",
    ],
)
def test_what_comfyuis_python_meets_is_not_asked_for(line: str) -> None:
    assert needs(line) == Needs("a")


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("segment_anything", "segment_anything"),
        ("numba >= 0.57 , < 1", "numba<1,>=0.57"),
        ("torch[optree]", "torch[optree]"),
        ("git+https://host.test/a/b.git@v1", "git+https://host.test/a/b.git@v1"),
        ("https://host.test/x-1-py3-none-any.whl", "https://host.test/x-1-py3-none-any.whl"),
    ],
)
def test_what_it_does_not_hold_is_missing(line: str, missing: str) -> None:
    assert needs(line) == Needs("a", missing=(missing,))


def test_another_version_than_it_holds_is_a_conflict_that_names_both() -> None:
    assert needs("numpy<2", "numba").conflicts == (
        "it asks for numpy<2, ComfyUI's Python holds numpy 2.4.6",
    )


def test_places_to_look_in_are_kept_and_what_would_change_the_others_is_not_taken() -> None:
    found = needs(
        "--extra-index-url https://download.test/whl",
        "-i https://mirror.test/simple",
        "-e .",
        "./wheels/x.whl",
    )

    assert found.sources == ("--extra-index-url https://download.test/whl",)
    assert found.ignored == (
        "requirements.txt: '-i https://mirror.test/simple' is not taken",
        "requirements.txt: '-e .' is not taken",
        "requirements.txt: './wheels/x.whl' is not taken",
    )


def test_files_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(
        codecs.BOM_UTF8
        + b"# a comment\r\nfoo>=1  # why\r\n\r\nbar>=1,\\\r\n<2\r\n-r more/r.txt\r\n"
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "r.txt").write_text(
        "baz\ngit+https://a.test/b#egg=b\n-r ../requirements.txt\n-r /etc/hostname\n"
    )

    asked = read_asked("a", tmp_path, required=False)

    assert asked.lines == ("foo>=1", "bar>=1, <2", "baz", "git+https://a.test/b#egg=b")
    (tmp_path / "requirements.txt").write_bytes("foo\n".encode("utf-16"))
    assert read_asked("a", tmp_path, required=False).lines == ("foo",)


def test_a_node_without_requirements_asks_for_nothing(tmp_path: Path) -> None:
    assert read_asked("a", tmp_path, required=True).lines == ()


def test_constraints_leave_out_what_is_no_version() -> None:
    assert constraints_of(HELD) == "numpy==2.4.6\nopencv-python==4.14.0\ntorch==2.14.1+cu128\n"


def test_packages_are_kept_for_one_interpreter_one_content_and_one_precedence() -> None:
    asked = [Asked("a", required=True, lines=("foo",))]
    others = [
        site_key([Asked("a", required=False, lines=("foo",))], PYTHON),
        site_key([Asked("a", required=True, lines=("foo>1",))], PYTHON),
        site_key(asked, Interpreter(PYTHON.python, ("cpython-311",), HELD, PYTHON.markers)),
        site_key(asked, Interpreter(PYTHON.python, PYTHON.identity, {}, PYTHON.markers)),
    ]

    key = site_key(asked, PYTHON)

    assert key == site_key(asked, Interpreter(Path("/elsewhere"), PYTHON.identity, HELD, {}))
    assert len({key, *others}) == 5
