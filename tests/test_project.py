"""The project's own rules: the locks, the order of imports, and docs that have a row for everything."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import morpheus_boot
from morpheus_boot.cli import COMMANDS
from morpheus_boot.errors import Exit

REPOSITORY: Final = Path(__file__).resolve().parent.parent
PROJECT: Final[dict[str, Any]] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
RUNTIME_LOCK: Final = REPOSITORY / "morpheus_boot" / "requirements.txt"
TESTS_LOCK: Final = REPOSITORY / "tests" / "requirements.txt"
SERVERLESS_LOCK: Final = REPOSITORY / "morpheus_boot" / "queue" / "requirements.txt"
RUNTIME: Final[list[str]] = PROJECT["project"]["dependencies"]
DEVELOPMENT: Final[list[str]] = PROJECT["dependency-groups"]["dev"]

# From the ground up: a room imports itself and those before it.
ROOMS: Final = (
    "errors",
    "work",
    "volume",
    "config",
    "report",
    "start",
    "manifest",
    "cache",
    "services",
    "deployment",
    "comfyui",
    "jobs",
    "queue",
    "boot",
    "doctor",
    "smoke",
    "commands",
    "cli",
    "__main__",
)


def locked(lock: Path) -> dict[str, str]:
    """The lock's versions by canonical name."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize(
    ("lock", "dependency"),
    [*((RUNTIME_LOCK, one) for one in RUNTIME), *((TESTS_LOCK, one) for one in RUNTIME)]
    + [(TESTS_LOCK, one) for one in DEVELOPMENT],
)
def test_the_lock_pins_every_dependency_within_its_range(lock: Path, dependency: str) -> None:
    requirement = Requirement(dependency)

    version = locked(lock)[canonicalize_name(requirement.name)]

    assert requirement.specifier.contains(version)


def test_the_tests_run_on_the_versions_that_are_shipped() -> None:
    assert locked(RUNTIME_LOCK).items() <= locked(TESTS_LOCK).items()


def test_the_extra_and_its_lock_name_the_same_sdk() -> None:
    [extra] = PROJECT["project"]["optional-dependencies"]["serverless"]

    assert extra == f"runpod=={locked(SERVERLESS_LOCK)['runpod']}"


@pytest.mark.parametrize("lock", [RUNTIME_LOCK, TESTS_LOCK, SERVERLESS_LOCK])
def test_every_pin_has_hashes(lock: Path) -> None:
    pins = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]

    assert pins
    assert not [pin for pin in pins if "--hash=sha256:" not in pin]


def test_the_version_is_one() -> None:
    assert PROJECT["project"]["version"] == morpheus_boot.__version__


def modules(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def imports(module: Path) -> Iterator[str]:
    """The full names of what the module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: Path) -> str:
    return module.relative_to(REPOSITORY / "morpheus_boot").parts[0].removesuffix(".py")


def rank_of(room: str) -> int:
    return ROOMS.index(room) if room in ROOMS else -1


def imported_rooms(module: Path) -> Iterator[str]:
    for name in imports(module):
        package, _, rest = name.partition(".")
        if package == "morpheus_boot" and rank_of(rest.partition(".")[0]) >= 0:
            yield rest.partition(".")[0]


def test_every_module_has_its_room() -> None:
    rooms = {room_of(module) for module in modules("morpheus_boot")} - {"__init__"}

    assert rooms <= set(ROOMS)


@pytest.mark.parametrize(
    "module", modules("morpheus_boot"), ids=lambda module: str(module.relative_to(REPOSITORY))
)
def test_imports_go_only_downwards(module: Path) -> None:
    own = room_of(module)

    assert not [r for r in imported_rooms(module) if r != own and rank_of(r) >= rank_of(own)]


def test_the_program_never_imports_the_file_server() -> None:
    for module in modules("morpheus_boot"):
        assert not [name for name in imports(module) if name.split(".")[0] == "fileserver"], module


def test_the_file_server_imports_only_what_it_shares_with_the_boot() -> None:
    for module in modules("fileserver"):
        shared = {"errors", "config", "volume", "report", "jobs"}
        if "morpheus_boot.comfyui.guard.door.Door" in imports(module):  # both ports' door
            shared.add("comfyui")
        assert set(imported_rooms(module)) <= shared, module


def test_no_module_beside_the_queues_handler_hides_one_of_the_standard_library() -> None:
    # The handler is a script: Python 3.10 looks for every import beside it first, and has no -P.
    beside = (REPOSITORY / "morpheus_boot" / "queue").iterdir()

    assert not {path.stem for path in beside} & sys.stdlib_module_names


def first_cells() -> set[str]:
    """What stands in the first cells of the docs' tables, word by word."""
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    rows = [row for page in pages for row in page.read_text().splitlines() if row.startswith("|")]
    return {word for row in rows for word in re.findall(r"[A-Za-z0-9_]+", row.split("|")[1])}


def variables() -> list[str]:
    """The names of the variables that either program reads."""
    readers = (
        "morpheus_boot/config/settings.py",
        "morpheus_boot/config/variables.py",
        "fileserver/settings.py",
    )
    source = "".join((REPOSITORY / reader).read_text() for reader in readers)
    named = r'"((?:MORPHEUS|COMFYUI|FILESERVER|HF|CIVITAI)_[A-Z_]+|PORT|PORT_HEALTH)"'
    # The boot's word to its file server; no user sets it.
    return sorted(set(re.findall(named, source)) - {"MORPHEUS_WORKER"})


def test_the_variables_of_both_programs_are_seen() -> None:
    assert {"MORPHEUS_VOLUME", "HF_TOKEN", "PORT", "MORPHEUS_MAX_FORM_KB", "MORPHEUS_DOCS"} < set(
        variables()
    )


@pytest.mark.parametrize("name", variables())
def test_every_variable_has_its_row_in_the_docs(name: str) -> None:
    assert name in first_cells()


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_has_its_row_in_the_docs(code: Exit) -> None:
    assert str(code.value) in first_cells()


def test_every_room_stands_in_the_architectures_tree() -> None:
    tree = (REPOSITORY / "docs" / "architecture.md").read_text().split("```")[1]
    named = set(re.findall(r"\w+", tree))
    package = REPOSITORY / "morpheus_boot"
    there = {path.stem for path in package.glob("[a-z]*") if path.suffix in {"", ".py"}}

    assert there - named == set()


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_has_its_row_in_the_docs(name: str) -> None:
    assert name in first_cells()
