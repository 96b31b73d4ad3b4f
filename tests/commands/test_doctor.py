"""``doctor`` looks at all that a boot needs, and names everything that is wrong at once, with its mend."""

import http.server
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from morpheus_boot.config.redact import Redactor
from morpheus_boot.config.settings import read_settings
from morpheus_boot.doctor import Finding, Level, examine
from tests.boot.program import REPOSITORY, Ended, Site
from tests.testbed.content import safetensors
from tests.testbed.hub import READER, HubStandIn
from tests.testbed.moosefs import MooseFS
from tests.testbed.origin import Origin

WEIGHTS = safetensors(100_000)
BIG = "  - {path: loras/big.safetensors, url: 'file:///big', size: 3000000000}\n"

# A GPU can't be had here, and what stands in for it is torch's word.
TORCH = """
import os
class version: cuda = "12.8"
class Properties: total_memory = 24 * 10**9
class cuda:
    is_available = staticmethod(lambda: "NO_GPU" not in os.environ)
    get_device_name = staticmethod(lambda number: "A GPU")
    get_device_properties = staticmethod(lambda number: Properties)
"""


def torch(root: Path) -> dict[str, str]:
    """The environment in which ComfyUI's Python has a torch."""
    packages = root / "packages"
    (packages / "torch-2.9.1.dist-info").mkdir(parents=True)
    (packages / "torch-2.9.1.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.9.1\n")
    (packages / "torch.py").write_text(TORCH)
    return {"PYTHONPATH": f"{REPOSITORY}:{packages}"}


@pytest.fixture
def site(tmp_path: Path, origin: Origin) -> Site:
    url = origin.serve("/a.safetensors", WEIGHTS)
    models = f"version: 1\nmodels:\n  - {{path: loras/a.safetensors, url: '{url}'}}\n"
    return Site(tmp_path, models, environ=torch(tmp_path))


def lines(ended: Ended, level: str) -> list[str]:
    """Each line of a level, without it: the check and what it says."""
    return [
        line.removeprefix(level).strip()
        for line in ended.out.splitlines()
        if line.startswith(level)
    ]


def findings(ended: Ended) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads(ended.out)["findings"]
    return listed


def test_a_url_of_one_of_civitais_domains_wants_civitais_token(site: Site, origin: Origin) -> None:
    site.models = site.models.replace(origin.url, "http://civitai.red")
    site.environ = {**site.environ, "http_proxy": origin.url}

    assert "CIVITAI_TOKEN is not set, and many of its models want one" in site.run("doctor").out


def test_a_machine_that_is_set_up_has_no_errors_and_nothing_is_left_on_it(site: Site) -> None:
    site.volume.mkdir()

    ended = site.run("doctor")

    assert ended.code == 0, ended.out
    assert lines(ended, "error") == []
    checks = {line.split()[0] for line in lines(ended, "ok")}
    assert checks >= {
        "models.yaml",
        "volume",
        "room",
        "Python",
        "ComfyUI",
        "GPU",
        "ports",
        "origins",
        "clock",
    }
    assert list(site.volume.iterdir()) == []


def test_all_that_is_wrong_is_named_at_once_each_with_its_mend(site: Site, origin: Origin) -> None:
    origin.close()
    (site.comfyui / "main.py").unlink()
    with socket.create_server(("", site.comfyui_port)):
        ended = site.run("doctor", "--json")

    wrong = [f for f in findings(ended) if f["level"] == "error"]
    assert [f["check"] for f in wrong] == ["ComfyUI", "ports", "origins"]
    assert all(f["mend"] for f in wrong)
    assert ended.code == 78


@pytest.mark.parametrize(
    ("environ", "models", "wrong"),
    [
        ({}, "modles: []\n", "models.yaml .* 'modles' is not a known key"),
        ({}, f"{BIG}volume: {{size_gb: 2}}\n", "room .* don't fit: "),
        ({"RUNPOD_POD_ID": "pod"}, "", "volume .* lies on the container's own disk"),
        ({"PYTHONPATH": str(REPOSITORY)}, "", "ComfyUI .* has no torch"),
        (
            {"NO_GPU": "1", "RUNPOD_GPU_COUNT": "1"},
            "",
            r"GPU .* torch \(for 12.8\) can't use it; choose a host whose driver",
        ),
        ({"HF_TOKEN": "{{ RUNPOD_SECRET_A }}"}, "", "settings *HF_TOKEN: RunPod left .* as it is"),
        ({"MORPHEUS_TOKEN": "a\nb"}, "", "settings *MORPHEUS_TOKEN: it has more than one line"),
    ],
)
def test_what_a_boot_would_end_with_is_an_error_and_hides_nothing_else(
    site: Site, environ: dict[str, str], models: str, wrong: str
) -> None:
    site.environ = {**site.environ, **environ}
    site.models += models

    ended = site.run("doctor")

    assert ended.code == 78
    assert any(re.match(wrong, line) for line in lines(ended, "error")), ended.out
    assert any(line.startswith("ports") for line in lines(ended, "ok"))
    assert f"{next(iter(environ), None)} is not set" not in ended.out


def test_the_ports_of_the_boot_that_runs_here_are_no_error(site: Site) -> None:
    with site.start("up") as up:
        up.wait_until_ready()

        ended = site.run("doctor")

    assert ended.code == 0, ended.out
    assert [line for line in lines(ended, "ok") if "the boot that runs here" in line] == [
        *(line for line in lines(ended, "ok") if line.startswith("ports"))
    ]


def test_an_origin_that_is_gone_is_a_warning_where_every_model_is_there(
    site: Site, origin: Origin
) -> None:
    assert site.run("fill").code == 0
    origin.close()

    ended = site.run("doctor")

    assert ended.code == 0, ended.out
    assert any(line.startswith("origins") for line in lines(ended, "warning"))


def test_hugging_faces_token_is_tried_and_not_shown(tmp_path: Path, hub: HubStandIn) -> None:
    known = Site(tmp_path / "known", environ={"HF_ENDPOINT": hub.url, "HF_TOKEN": READER})
    wrong = replace(
        known, root=tmp_path / "wrong", environ={**known.environ, "HF_TOKEN": "hf_" + "x" * 34}
    )

    right, refused = known.run("doctor"), wrong.run("doctor")

    assert "HF_TOKEN is reader's" in right.out
    assert READER not in right.out + right.err
    assert any("does not know HF_TOKEN" in line for line in lines(refused, "error"))


def test_a_clock_that_is_off_is_an_error(tmp_path: Path) -> None:
    with yesterday() as url:
        models = f"version: 1\nmodels:\n  - {{path: loras/a.bin, url: '{url}/a.bin'}}\n"
        ended = Site(tmp_path, models).run("doctor")

    assert any(line.startswith("clock") and "ahead" in line for line in lines(ended, "error"))


def test_a_read_only_volume_is_a_warning(site: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    site.volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(site.volume)], check=True)
    try:
        ended = site.run("doctor")
    finally:
        subprocess.run(["umount", str(site.volume)], check=True)

    assert any("the volume is read-only" in line for line in lines(ended, "warning"))


def test_a_volume_that_hangs_is_named_when_the_deadline_is_over(
    moosefs: MooseFS, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    volume = moosefs.a / moosefs.fresh()
    environ = {**site.env(), "MORPHEUS_MODELS": str(site.manifest), "MORPHEUS_VOLUME": str(volume)}

    moosefs.cut("a")
    try:
        found = examined(environ, deadline_s=2)
    finally:
        moosefs.restore("a")

    assert {f.check for f in found if "no answer within 2 s" in f.says} == {"volume", "room"}
    assert any(f.check == "ports" and f.level is Level.OK for f in found)


def examined(environ: dict[str, str], deadline_s: float) -> list[Finding]:
    settings = read_settings(environ=environ)
    return list(examine(settings, Redactor(), stopping=threading.Event(), deadline_s=deadline_s))


@contextmanager
def yesterday() -> Iterator[str]:
    """An origin whose clock is a day behind."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Fri, 01 Mar 2024 00:00:00 GMT"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
