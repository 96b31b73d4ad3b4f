"""Where the handler's SDK comes from: a Python of the image, else the volume, else the package index."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.config.settings import read_settings
from morpheus_boot.errors import StorageFailed
from morpheus_boot.queue import prepare_queue
from morpheus_boot.queue.sdk import Sdk, find_sdk, provide_sdk
from morpheus_boot.volume.archive import pack
from morpheus_boot.volume.layout import Layout
from tests.package_index import (
    SAMPLE_WHEEL,
    PackageIndex,
    package_index,
    sample_lock,
    sample_wheel,
)
from tests.pythons import run

PYTHON = Path(sys.executable)
NOTHING_LISTENS = "http://127.0.0.1:9/simple"


def runpod_below(folder: Path, version: str, stop: str = "") -> Path:
    """A folder for PYTHONPATH with what the boot looks at in RunPod's SDK."""
    modules = folder / "runpod" / "serverless" / "modules"
    modules.mkdir(parents=True)
    (folder / "runpod" / "__init__.py").write_text("from . import serverless\n")
    (folder / "runpod" / "serverless" / "__init__.py").write_text("start = progress_update = str\n")
    (modules / "rp_job.py").write_text(stop)
    info = folder / f"runpod-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: runpod\nVersion: {version}\n")
    return folder


def found(tmp_path: Path, *pythons: Path) -> Sdk | None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "site")}
    return find_sdk(pythons, environ=environ, folder=tmp_path, stopping=threading.Event())


def test_a_python_of_the_image_that_has_it_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runpod_below(tmp_path / "site", "1.12.0", "get_stop_signals = 1\n")

    assert found(tmp_path, tmp_path / "no-such-python", PYTHON) == Sdk(PYTHON)

    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_one_without_a_stop_channel_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runpod_below(tmp_path / "site", "1.7.9")

    assert found(tmp_path, PYTHON) == Sdk(PYTHON)

    assert "1.7.9 does not know the stop channel" in caplog.text


def test_one_that_can_not_be_imported_is_named_and_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runpod_below(tmp_path / "site", "1.12.0", "raise RuntimeError('no libcuda')\n")

    assert found(tmp_path, PYTHON) is None

    assert "no libcuda" in caplog.text


def test_a_python_without_it_is_left_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert found(tmp_path, PYTHON) is None

    assert not [record for record in caplog.records if record.levelname == "WARNING"]


class Volume:
    """A volume and a package index with a small package in the place of the SDK."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._monkeypatch = monkeypatch
        self.layout = Layout(root / "volume")
        self.turns: list[str] = []
        self._lock = root / "requirements.txt"
        self._lock.write_text(sample_lock())

    def provide(self, worker: str, index: str) -> Sdk:
        """As a fresh container does; returns what it runs the handler with."""
        self._monkeypatch.setenv("UV_DEFAULT_INDEX", index)

        @contextmanager
        def archive_lock(what: str) -> Iterator[None]:
            self.turns.append(what)
            yield

        return provide_sdk(
            layout=self.layout,
            local=self._root / worker,
            environ=os.environ,
            archive_lock=archive_lock,
            lock=self._lock,
        )

    @property
    def archives(self) -> list[Path]:
        return sorted((self.layout.archives / "serverless").glob("*.tar.gz"))


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(PYTHON.parent))  # uv, which is fast, lies there
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return Volume(tmp_path, monkeypatch)


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with package_index(lambda one: one.add("morpheus-sample", SAMPLE_WHEEL, sample_wheel())) as one:
        yield one


def test_a_local_disk_that_can_not_be_written_is_not_taken_for_the_volume(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    environ = {"MORPHEUS_LOCAL_DIR": str(tmp_path / "local"), "PATH": str(tmp_path)}
    layout = Layout(tmp_path / "volume")

    @contextmanager
    def archive_lock(what: str) -> Iterator[None]:
        pack(tmp_path / "local", layout.archives / f"{what}.tar.gz")  # another worker's
        (tmp_path / "local" / "queue").write_text("in the way")
        yield

    with pytest.raises(StorageFailed) as caught:
        prepare_queue(
            read_settings(environ=environ),
            layout,
            ComfyUI(tmp_path, PYTHON),
            archive_lock=archive_lock,
            stopping=threading.Event(),
        )

    assert f"{tmp_path}/local/queue can't be written" in caught.value.cause
    assert "MORPHEUS_LOCAL_DIR" in caught.value.mend
    assert "volume" not in caught.value.mend


def value(sdk: Sdk) -> str:
    ended = run(
        [sdk.python, "-c", "import morpheus_sample as s; print(s.VERSION, s.__file__)"],
        {"PYTHONPATH": str(sdk.site)},
    )
    return ended.stdout.strip() or ended.stderr


def test_the_first_worker_installs_it_and_the_second_needs_no_network(
    volume: Volume, index: PackageIndex
) -> None:
    first = volume.provide("one", index.url)
    second = volume.provide("two", NOTHING_LISTENS)

    for sdk in (first, second):
        assert value(sdk).startswith(f"1.0 {sdk.site}/")
    assert [path.stem.removesuffix(".tar") for path in volume.archives] == [
        what.removeprefix("serverless/") for what in volume.turns
    ]
    assert not list((volume.layout.root.parent / "one" / "queue").glob("venv-*"))


def test_a_start_again_in_the_same_container_reads_no_archive(
    volume: Volume, index: PackageIndex
) -> None:
    first = volume.provide("one", index.url)
    volume.archives[0].unlink()

    assert volume.provide("one", NOTHING_LISTENS) == first


def test_a_damaged_archive_is_made_again(volume: Volume, index: PackageIndex) -> None:
    volume.provide("one", index.url)
    volume.archives[0].write_bytes(b"damaged")

    assert value(volume.provide("two", index.url)).startswith("1.0")
    assert value(volume.provide("three", NOTHING_LISTENS)).startswith("1.0")


def test_a_volume_that_can_not_keep_it_is_a_warning(
    volume: Volume, index: PackageIndex, caplog: pytest.LogCaptureFixture
) -> None:
    volume.layout.archives.parent.mkdir(parents=True)
    volume.layout.archives.write_text("in the way")

    assert value(volume.provide("one", index.url)).startswith("1.0")
    assert "can't be kept on the volume" in caplog.text
