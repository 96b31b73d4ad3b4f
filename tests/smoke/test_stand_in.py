"""The stand-in behaves as ComfyUI where smoke and the tests count on it."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from morpheus_boot.smoke.inner import free_ports
from morpheus_boot.smoke.picture import gradient, png_size
from tests.smoke import graphs
from tests.smoke.conftest import CHECKPOINT, UPSCALER
from tests.smoke.running import StandIn, command, prepare, running
from tests.wait import wait_until


def _picture(entry: dict[str, Any]) -> dict[str, str]:
    [image] = entry["outputs"]["save"]["images"]
    return dict(image)


def test_a_picture_is_saved_under_a_counter_and_the_same_prompt_again_writes_no_file(
    stand_in: StandIn,
) -> None:
    folder = stand_in.output / "again" / "output"
    folder.mkdir(parents=True)
    (folder / "x_00041_.png").touch()
    graph = graphs.plain("again/output/x", width=24, height=10)

    first, second = stand_in.run(graph), stand_in.run(graph)

    saved = {"filename": "x_00042_.png", "subfolder": "again/output", "type": "output"}
    assert first["status"]["completed"] is True
    assert _picture(first) == _picture(second) == saved
    assert png_size((folder / "x_00042_.png").read_bytes()) == (24, 10)
    assert len(list(folder.iterdir())) == 2


def test_the_same_seed_gives_the_same_picture_and_a_changed_input_another(
    stand_in: StandIn,
) -> None:
    def picture(graph: graphs.Graph) -> bytes:
        image = _picture(stand_in.run(graph))
        content = (stand_in.output / image["subfolder"] / image["filename"]).read_bytes()
        return content[content.index(b"IDAT") :]

    def drawn(seed: int, name: str) -> bytes:
        return picture(graphs.sampled(CHECKPOINT, seed=seed, prefix=f"seeds/output/{name}"))

    upload = stand_in.output / "changed" / "input" / "a.png"
    upload.parent.mkdir(parents=True)
    upload.write_bytes(gradient(10, 4))
    before = picture(graphs.loaded("changed/input/a.png [output]"))
    upload.write_bytes(gradient(4, 10))

    assert picture(graphs.loaded("changed/input/a.png [output]")) != before
    assert drawn(1, "a") == drawn(1, "b")
    assert drawn(1, "c") != drawn(2, "d")


@pytest.mark.parametrize(
    ("graph", "wrong"),
    [
        (graphs.sampled("other.safetensors"), ("ckpt", "value_not_in_list")),
        (graphs.upscaled("other.safetensors"), ("model", "value_not_in_list")),
        (graphs.plain("x", width=0), ("make", "value_smaller_than_min")),
        (graphs.plain("x", width=99999), ("make", "value_bigger_than_max")),
        (graphs.loaded("missing.png"), ("load", "custom_validation_failed")),
        (graphs.loaded("/etc/hostname"), ("load", "custom_validation_failed")),
        (graphs.loaded("../../etc/hostname [output]"), ("load", "custom_validation_failed")),
        ({"s": graphs.node("SaveImage", filename_prefix="x")}, ("s", "required_input_missing")),
        (
            {"s": graphs.node("SaveImage", images=["gone", 0], filename_prefix="x")},
            ("s", "exception_during_validation"),
        ),
        (graphs.plain("x") | {"s": graphs.node("PreviewImage", images=["t", 0])}, None),
    ],
)
def test_what_is_wrong_in_a_prompt_is_named_at_its_node(
    stand_in: StandIn, graph: graphs.Graph, wrong: tuple[str, str] | None
) -> None:
    answer = stand_in.post("/prompt", {"prompt": graph})

    told = answer.json()
    errors = [(n, e["type"]) for n, entry in told["node_errors"].items() for e in entry["errors"]]
    if wrong is None:  # another output is in order, so the prompt runs
        assert (answer.status_code, errors) == (200, [("s", "exception_during_validation")])
    else:
        assert answer.status_code == 400
        assert told["error"]["type"] == "prompt_outputs_failed_validation"
        assert wrong in errors


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, "no_prompt"),
        ({"prompt": {"1": graphs.node("FluxCapacitor")}}, "missing_node_type"),
        ({"prompt": {"1": graphs.plain("x")["make"]}}, "prompt_no_outputs"),
    ],
)
def test_a_body_that_can_never_run_is_refused(stand_in: StandIn, body: object, kind: str) -> None:
    answer = stand_in.post("/prompt", body)

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, kind)


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _behead(content: bytes) -> bytes:
    return content[5:]


@pytest.mark.parametrize("damage", [_cut, _behead, lambda content: content + b"\0"])
def test_a_damaged_model_is_an_execution_error_and_the_server_stays_up(
    stand_in: StandIn, damage: Callable[[bytes], bytes]
) -> None:
    models = stand_in.folder / "ComfyUI" / "models" / "upscale_models"
    (models / "damaged.safetensors").write_bytes(damage((models / UPSCALER).read_bytes()))

    entry = stand_in.run(graphs.upscaled("damaged.safetensors"))

    kind, error = entry["status"]["messages"][-1]
    assert (kind, error["node_type"]) == ("execution_error", "UpscaleModelLoader")
    whole = stand_in.run(graphs.upscaled(UPSCALER))
    saved = stand_in.output / "j" / "output" / _picture(whole)["filename"]
    assert png_size(saved.read_bytes()) == (16, 8)


def test_a_dangling_model_link_is_listed_and_fails_only_at_execution(stand_in: StandIn) -> None:
    models = stand_in.folder / "ComfyUI" / "models" / "upscale_models"
    (models / "gone.safetensors").symlink_to("/nowhere/gone.safetensors")

    assert "gone.safetensors" in stand_in.get("/models/upscale_models")
    entry = stand_in.run(graphs.upscaled("gone.safetensors"))
    assert entry["status"]["messages"][-1][1]["exception_type"] == "FileNotFoundError"


def test_a_client_is_told_each_step_of_its_prompt(stand_in: StandIn) -> None:
    graph = graphs.sampled(CHECKPOINT, seed=77, steps=3, prefix="ws/output/x")

    async def follow() -> list[tuple[str, dict[str, Any]]]:
        messages: list[tuple[str, dict[str, Any]]] = []
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{stand_in.url}/api/ws?clientId=me") as client,
        ):
            assert (await client.receive_json(timeout=10))["data"]["sid"] == "me"
            await session.post(f"{stand_in.url}/prompt", json={"prompt": graph, "client_id": "me"})
            while not messages or messages[-1][0] != "executing" or messages[-1][1]["node"]:
                message = await client.receive_json(timeout=10)
                if message["type"] != "status":
                    messages.append((message["type"], message["data"]))
        return messages

    messages = asyncio.run(follow())

    kinds = [kind for kind, _ in messages]
    assert kinds[:2] == ["execution_start", "execution_cached"]
    assert kinds[-3:] == ["executed", "execution_success", "executing"]
    steps = [(d["value"], d["max"], d["node"]) for kind, d in messages if kind == "progress"]
    assert steps == [(1, 3, "sample"), (2, 3, "sample"), (3, 3, "sample")]
    assert len({data["prompt_id"] for _, data in messages}) == 1


def test_a_waiting_prompt_can_be_deleted_and_a_running_one_interrupted(stand_in: StandIn) -> None:
    runs = stand_in.submit(graphs.sampled(CHECKPOINT, steps=10_000))
    wait_until(lambda: bool(stand_in.get("/queue")["queue_running"]))
    deleted, kept = (stand_in.submit(graphs.plain(f"{n}/output/x")) for n in ("deleted", "kept"))
    stand_in.post("/interrupt", {"prompt_id": kept})  # it does not run: this changes nothing
    queue = stand_in.get("/queue")
    assert [[item[1] for item in queue[key]] for key in queue] == [[runs], [deleted, kept]]

    stand_in.post("/queue", {"delete": [deleted]})
    stand_in.post("/interrupt", {"prompt_id": runs})

    assert stand_in.outcome(runs)["status"]["messages"][-1][0] == "execution_interrupted"
    assert stand_in.outcome(kept)["status"]["status_str"] == "success"
    assert stand_in.get(f"/history/{deleted}") == {}


def test_uploads_are_seen_and_neither_they_nor_views_leave_their_directory(
    stand_in: StandIn,
) -> None:
    def upload(content: bytes, subfolder: str = "up") -> requests.Response:
        files, more = {"image": ("a.png", content, "image/png")}, {"subfolder": subfolder}
        return requests.post(f"{stand_in.url}/upload/image", files=files, data=more, timeout=10)

    names = [upload(gradient(side, side)).json()["name"] for side in (4, 5, 4)]

    assert names == ["a.png", "a (1).png", "a.png"]
    view = f"{stand_in.url}/view?type=input&filename=a.png&subfolder="
    assert requests.get(f"{view}up", timeout=10).content == gradient(4, 4)
    assert upload(b"x", "../up").status_code == 400
    assert requests.get(f"{view}../user", timeout=10).status_code == 403


def _ended(folder: Path, port: int, *more: str) -> tuple[int, str]:
    """Exit code and stderr of a stand-in that does not come up."""
    ended = subprocess.run(
        command(folder, port, *more), capture_output=True, text=True, timeout=30, check=False
    )
    return ended.returncode, ended.stderr


def test_what_it_can_t_start_with_ends_it_as_it_ends_comfyui(tmp_path: Path) -> None:
    comfyui = prepare(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        assert _ended(tmp_path, taken)[0] == 1
    assert _ended(tmp_path, 1, "--warp-drive")[0] == 2
    assert _ended(tmp_path, 1, "--user-directory", str(tmp_path / "gone"))[0] == 2
    (comfyui / "custom_nodes" / "fatal.py").write_text("import os; os._exit(78)")
    assert _ended(tmp_path, free_ports(1)[0])[0] == 78


_NODE = """
from aiohttp import web
from server import PromptServer

@web.middleware
async def guarded(request, handler):
    if request.query.get("token") != "sesame":
        return web.Response(status=401)
    return await handler(request)

PromptServer.instance.app.middlewares.insert(0, guarded)

class Shout:
    RETURN_TYPES = ("STRING",)
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})

NODE_CLASS_MAPPINGS = {"Shout": Shout, "SaveImage": Shout}
"""


def test_custom_nodes_come_before_it_listens_and_one_that_fails_is_left_out(tmp_path: Path) -> None:
    comfyui = prepare(tmp_path)
    (comfyui / "custom_nodes" / "broken.py").write_text("raise RuntimeError('no')")
    (tmp_path / "nodes" / "ours").mkdir(parents=True)
    (tmp_path / "nodes" / "ours" / "__init__.py").write_text(_NODE)
    (tmp_path / "farm" / "ipadapter").mkdir(parents=True)
    (tmp_path / "farm" / "ipadapter" / "any.suffix").touch()
    config = tmp_path / "paths.yaml"
    config.write_text("ours:\n  base_path: .\n  custom_nodes: nodes\n  ipadapter: farm/ipadapter\n")

    with running(tmp_path, "--extra-model-paths-config", str(config)) as stand_in:
        assert requests.get(f"{stand_in.url}/system_stats", timeout=10).status_code == 401
        known = stand_in.get("/object_info?token=sesame")
        assert known["Shout"]["output"] == ["STRING"]
        assert known["SaveImage"]["output_node"] is True  # never taken from a core node
        assert stand_in.get("/models/ipadapter?token=sesame") == ["any.suffix"]
        stand_in.process.send_signal(signal.SIGTERM)
        assert stand_in.process.wait(10) == -signal.SIGTERM
