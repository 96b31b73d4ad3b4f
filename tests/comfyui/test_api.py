"""What is asked of a ComfyUI over HTTP, and what its silence means."""

import json
import threading
from collections.abc import Callable
from typing import Final

import pytest

from morpheus_boot.comfyui.api import ComfyUIApi, NoAnswer
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import Stopped
from tests.testbed.faults import Fault, LoginPage, Status, Truncated
from tests.testbed.faults import NoAnswer as Cut
from tests.testbed.origin import Origin

TOKEN = "s3cret"


@pytest.fixture
def comfyui(origin: Origin) -> Origin:
    """What stands for a ComfyUI."""
    return origin


def answer(comfyui: Origin, path: str, document: object) -> None:
    comfyui.serve(path, json.dumps(document).encode())


def api(comfyui: Origin) -> ComfyUIApi:
    return ComfyUIApi(comfyui.port, Secret(TOKEN))


def test_the_newer_route_says_which_folder_reads_which_directories(comfyui: Origin) -> None:
    read = {"text_encoders": ["/m/text_encoders", "/m/clip"]}
    answer(comfyui, "/internal/folder_paths", read)

    assert api(comfyui).folder_paths("/m") == {"text_encoders": ("/m/text_encoders", "/m/clip")}
    assert comfyui.seen()[-1].headers["authorization"] == f"Bearer {TOKEN}"


def test_an_older_comfyui_reads_a_directory_of_each_folders_name(comfyui: Origin) -> None:
    answer(comfyui, "/models", ["loras", "vae"])

    assert api(comfyui).folder_paths("/m") == {"loras": ("/m/loras",), "vae": ("/m/vae",)}


def test_a_folder_lists_its_files_and_an_unknown_one_none(comfyui: Origin) -> None:
    answer(comfyui, "/models/my loras", ["a.safetensors"])

    assert api(comfyui).files_of("my loras") == {"a.safetensors"}
    assert api(comfyui).files_of("none") == frozenset()


def test_only_401_refuses_a_stranger(comfyui: Origin) -> None:
    assert not api(comfyui).refuses_strangers()  # 404
    answer(comfyui, "/system_stats", {})
    assert not api(comfyui).refuses_strangers()  # 200
    comfyui.misbehave("/system_stats", Status(401))
    assert api(comfyui).refuses_strangers()
    assert not any("authorization" in request.headers for request in comfyui.seen())


def test_comfyui_is_asked_directly_whatever_proxy_the_container_has(
    comfyui: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(comfyui, "/models/loras", ["a.safetensors"])
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert api(comfyui).files_of("loras") == {"a.safetensors"}


ASKED: Final[tuple[Callable[[ComfyUIApi], object], ...]] = (
    ComfyUIApi.require_answer,
    lambda comfyui: comfyui.folder_paths("/m"),
    lambda comfyui: comfyui.files_of("loras"),
)
# None: the port is closed.
SILENCES: Final = (None, Cut(), Truncated(at=1), Status(500), LoginPage())


@pytest.mark.parametrize(
    ("ask", "how"),
    [
        *((ask, how) for ask in ASKED for how in SILENCES),
        # Neither refused nor let in.
        *((ComfyUIApi.refuses_strangers, how) for how in (None, Cut())),
    ],
)
def test_silence_is_not_taken_for_an_answer(
    comfyui: Origin, ask: Callable[[ComfyUIApi], object], how: Fault | None
) -> None:
    for path in ("/system_stats", "/internal/folder_paths", "/models/loras"):
        answer(comfyui, path, {})
    if how is None:
        comfyui.close()
    else:
        comfyui.misbehave("/", how)

    with pytest.raises(NoAnswer):
        ask(api(comfyui))


def look_with(comfyui: Origin, look: Callable[[ComfyUIApi], object], deadline_s: float) -> object:
    """What ``look`` comes to, with nobody telling it to stop."""
    asked = api(comfyui)
    return asked.when_it_answers(
        lambda: look(asked),
        deadline_s=deadline_s,
        stopping=threading.Event(),
        last_lines=lambda: "loading | still loading",
    )


def test_a_comfyui_that_does_not_answer_in_time_is_told_with_its_last_lines(
    comfyui: Origin,
) -> None:
    with pytest.raises(WaitedTooLong, match=r"its last lines: loading \| still loading") as raised:
        look_with(comfyui, ComfyUIApi.require_answer, 0.0)

    assert "/system_stats: there is no such route" in raised.value.cause


def test_a_look_begins_anew_where_one_of_its_requests_had_no_answer(comfyui: Origin) -> None:
    answer(comfyui, "/system_stats", {})
    answer(comfyui, "/models/loras", ["a.safetensors"])
    comfyui.misbehave("/models/loras", Cut(), times=1)

    def look(asked: ComfyUIApi) -> object:
        asked.require_answer()
        return asked.files_of("loras")

    assert look_with(comfyui, look, 60.0) == {"a.safetensors"}
    assert [request.path for request in comfyui.seen()] == 2 * ["/system_stats", "/models/loras"]


def test_a_stop_ends_the_wait(comfyui: Origin) -> None:
    stopping = threading.Event()
    waiting = begin(
        lambda: api(comfyui).when_it_answers(
            api(comfyui).require_answer, deadline_s=60.0, stopping=stopping, last_lines=str
        ),
        "waiting",
    )
    stopping.set()

    with pytest.raises(Stopped):
        waiting.result(10)
