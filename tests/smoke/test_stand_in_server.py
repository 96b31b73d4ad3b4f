"""The stand-in's routes answer as ComfyUI's do."""

import asyncio
from typing import Any

import aiohttp
import requests

from morpheus_boot.smoke.picture import gradient
from tests.smoke import graphs
from tests.smoke.conftest import CHECKPOINT, UPSCALER
from tests.smoke.running import StandIn
from tests.wait import wait_until

_LONG = 10_000  # steps: more than any test waits for


def _follow(stand_in: StandIn, graph: graphs.Graph) -> list[tuple[str, dict[str, Any]]]:
    """All messages that a client's WebSocket gets about its own prompt, to the last one."""

    async def follow() -> list[tuple[str, dict[str, Any]]]:
        messages = []
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{stand_in.url}/api/ws?clientId=me") as socket,
        ):
            first = await socket.receive_json(timeout=10)
            assert first["type"] == "status"
            assert first["data"]["sid"] == "me"
            body = {"prompt": graph, "client_id": "me"}
            await session.post(f"{stand_in.url}/prompt", json=body)
            while True:
                message = await socket.receive_json(timeout=10)
                if message["type"] != "status":
                    messages.append((message["type"], message["data"]))
                if message["type"] == "executing" and message["data"]["node"] is None:
                    return messages

    return asyncio.run(follow())


def test_a_client_is_told_each_step_of_its_prompt(stand_in: StandIn) -> None:
    messages = _follow(stand_in, graphs.sampled(CHECKPOINT, seed=77, steps=3, prefix="ws/output/x"))

    kinds = [kind for kind, _ in messages]
    assert kinds[:2] == ["execution_start", "execution_cached"]
    assert kinds[-3:] == ["executed", "execution_success", "executing"]
    progress = [(d["value"], d["max"], d["node"]) for kind, d in messages if kind == "progress"]
    assert progress == [(1, 3, "sample"), (2, 3, "sample"), (3, 3, "sample")]
    states = [
        d["nodes"]["sample"]
        for kind, d in messages
        if kind == "progress_state" and "sample" in d["nodes"]
    ]
    assert (states[0]["state"], states[-1]["state"]) == ("running", "finished")
    [executed] = [data for kind, data in messages if kind == "executed"]
    assert executed["node"] == "save"
    assert executed["output"]["images"][0]["subfolder"] == "ws/output"
    assert len({data["prompt_id"] for _, data in messages}) == 1


def test_an_interrupt_ends_the_running_prompt(stand_in: StandIn) -> None:
    running = _start_long(stand_in)

    stand_in.post("/interrupt", {"prompt_id": running})

    status = stand_in.outcome(running)["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert status["messages"][-1][0] == "execution_interrupted"
    assert status["messages"][-1][1]["node_id"] == "sample"


def test_an_interrupt_that_names_another_prompt_changes_nothing(stand_in: StandIn) -> None:
    running = stand_in.submit(graphs.sampled(CHECKPOINT, seed=12, steps=50))
    wait_until(lambda: bool(stand_in.get("/queue")["queue_running"]))

    stand_in.post("/interrupt", {"prompt_id": "another"})

    assert stand_in.outcome(running)["status"]["status_str"] == "success"


def test_one_waiting_prompt_can_be_deleted(stand_in: StandIn) -> None:
    running = _start_long(stand_in)
    deleted = stand_in.submit(graphs.plain("deleted/output/x"))
    kept = stand_in.submit(graphs.plain("kept/output/x"))
    pending = [item[1] for item in stand_in.get("/queue")["queue_pending"]]
    assert pending == [deleted, kept]

    stand_in.post("/queue", {"delete": [deleted]})
    stand_in.post("/interrupt", {"prompt_id": running})

    assert stand_in.outcome(kept)["status"]["status_str"] == "success"
    assert stand_in.get(f"/history/{deleted}") == {}
    assert stand_in.get("/prompt") == {"exec_info": {"queue_remaining": 0}}


def _start_long(stand_in: StandIn) -> str:
    """A prompt that runs until it is interrupted."""
    prompt_id = stand_in.submit(graphs.sampled(CHECKPOINT, steps=_LONG))
    wait_until(lambda: bool(stand_in.get("/queue")["queue_running"]))
    return prompt_id


def test_a_prompt_in_front_runs_before_those_that_wait(stand_in: StandIn) -> None:
    running = _start_long(stand_in)
    behind = stand_in.submit(graphs.plain("front/output/behind"))
    front = stand_in.submit(graphs.plain("front/output/front"), front=True)

    stand_in.post("/interrupt", {})
    stand_in.outcome(behind)

    order = [prompt_id for prompt_id in stand_in.get("/history") if prompt_id in {behind, front}]
    assert order == [front, behind]
    assert running in stand_in.get("/history")


def test_history_can_be_forgotten(stand_in: StandIn) -> None:
    prompt_id = stand_in.submit(graphs.plain("forget/output/x"))
    stand_in.outcome(prompt_id)

    stand_in.post("/history", {"delete": [prompt_id]})

    assert stand_in.get(f"/history/{prompt_id}") == {}


def test_models_are_listed_through_links_at_once(stand_in: StandIn) -> None:
    elsewhere = stand_in.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "deep.safetensors").touch()
    (elsewhere / "notes.txt").touch()
    (stand_in.folder / "ComfyUI" / "models" / "loras").mkdir()
    (stand_in.folder / "ComfyUI" / "models" / "loras" / "linked").symlink_to(elsewhere)

    assert "checkpoints" in stand_in.get("/models")
    assert stand_in.get("/models/checkpoints") == [CHECKPOINT]
    assert stand_in.get("/models/loras") == ["linked/deep.safetensors"]
    assert requests.get(f"{stand_in.url}/models/nowhere", timeout=10).status_code == 404


def test_object_info_has_both_forms_of_a_list_of_choices(stand_in: StandIn) -> None:
    everything = stand_in.get("/object_info")
    [choices, _] = everything["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
    upscaler = stand_in.get("/object_info/UpscaleModelLoader")["UpscaleModelLoader"]
    [kind, options] = upscaler["input"]["required"]["model_name"]

    assert choices == [CHECKPOINT]
    assert kind == "COMBO"
    assert UPSCALER in options["options"]
    assert everything["SaveImage"]["output_node"] is True
    assert stand_in.get("/object_info/FluxCapacitor") == {}


def test_the_model_folders_of_comfyui_and_of_its_output_directory_are_told(
    stand_in: StandIn,
) -> None:
    places = stand_in.get("/internal/folder_paths")

    assert places["checkpoints"] == [
        str(stand_in.folder / "ComfyUI" / "models" / "checkpoints"),
        str(stand_in.output / "checkpoints"),
    ]
    assert str(stand_in.output / "clip") in places["text_encoders"]


def test_system_stats_tell_the_version_and_the_arguments(stand_in: StandIn) -> None:
    system = stand_in.get("/api/system_stats")["system"]

    assert system["comfyui_version"] == "0.38.1"
    assert str(stand_in.port) in system["argv"]


def test_an_uploaded_picture_is_seen_and_loaded(stand_in: StandIn) -> None:
    def upload(content: bytes) -> Any:
        files = {"image": ("a.png", content, "image/png")}
        url = f"{stand_in.url}/upload/image"
        return requests.post(url, files=files, data={"subfolder": "up"}, timeout=10).json()

    first, other, same = upload(gradient(4, 4)), upload(gradient(5, 5)), upload(gradient(4, 4))

    assert first == {"name": "a.png", "subfolder": "up", "type": "input"}
    assert other["name"] == "a (1).png"
    assert same["name"] == "a.png"
    view = f"{stand_in.url}/view?type=input&subfolder=up&filename=a.png"
    assert requests.get(view, timeout=10).content == gradient(4, 4)
    assert stand_in.run(graphs.loaded("up/a.png"))["status"]["status_str"] == "success"


def test_neither_upload_nor_view_leaves_its_directory(stand_in: StandIn) -> None:
    files = {"image": ("a.png", b"x", "image/png")}
    url = f"{stand_in.url}/upload/image"
    upload = requests.post(url, files=files, data={"subfolder": "../up"}, timeout=10)
    view = f"{stand_in.url}/view?subfolder=../user&filename=a.png"

    assert upload.status_code == 400
    assert requests.get(view, timeout=10).status_code == 403
