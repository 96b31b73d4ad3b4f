"""Source distributions made to order, and an index page of several versions."""

import io
import zipfile
from collections.abc import Mapping

from tests.package_index import PackageIndex, zipped

_BACKEND = """
import os, zipfile

def _metadata(folder):
    os.makedirs(f"{folder}/NAME-1.0.dist-info")
    with open(f"{folder}/NAME-1.0.dist-info/METADATA", "w") as file:
        file.write("Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\n")
    return "NAME-1.0.dist-info"

def prepare_metadata_for_build_wheel(folder, settings=None):
    return _metadata(folder)

def build_wheel(folder, settings=None, metadata=None):
    FINISH

prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel
build_editable = build_wheel
"""
_FAIL = """raise SystemExit("error: command 'gcc' failed: No such file or directory")"""
_TELL = """
    seen = f"{os.environ.get('HF_TOKEN')} {os.environ.get('PIP_INDEX_PASSWORD')}"
    info = _metadata(folder)
    with zipfile.ZipFile(f"{folder}/NAME-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("NAME.py", f"SEEN = {seen!r}")
        wheel.write(f"{folder}/{info}/METADATA", f"{info}/METADATA")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return "NAME-1.0-py3-none-any.whl"
"""


def unbuildable(name: str) -> tuple[str, bytes]:
    """A source distribution, version 1.0, whose build needs a compiler that is not there."""
    return _source(name, _FAIL)


def telltale(name: str) -> tuple[str, bytes]:
    """A source distribution, version 1.0, whose SEEN is what its build has seen of two variables."""
    return _source(name, _TELL)


def _source(name: str, finish: str) -> tuple[str, bytes]:
    files = {
        **project(name, finish),
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    return f"{name}-1.0.zip", zipped({f"{name}-1.0/{path}": text for path, text in files.items()})


def project(name: str, finish: str = _TELL) -> dict[str, str]:
    """The files of a source tree of the distribution ``name``, version 1.0."""
    return {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": _BACKEND.replace("FINISH", finish).replace("NAME", name),
    }


def offer(index: PackageIndex, *files: tuple[str, bytes]) -> None:
    """Lets ``index`` serve ``files``, each on its project's page beside the others."""
    for name, content in files:
        project = name.partition("-")[0]
        index.files[f"/files/{name}"] = content
        page = f"/simple/{project}/"
        link = f'<a href="../../files/{name}">{name}</a>\n'
        index.files[page] = index.files.get(page, b"<!DOCTYPE html>\n") + link.encode()


def unzip(content: bytes) -> Mapping[str, bytes]:
    """The files of a wheel."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
