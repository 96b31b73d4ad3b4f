"""The manifest that the repository ships: the service's own."""

from morpheus_boot.config.settings import REPOSITORY
from morpheus_boot.manifest import HuggingFaceSource, Manifest, UrlSource, read_manifest


def shipped() -> Manifest:
    return read_manifest(REPOSITORY / "models.yaml", {})


def test_it_names_the_services_models_and_where_each_comes_from() -> None:
    controlnet = "lllyasviel/ControlNet-v1-1"

    assert {model.path: model.source.identity for model in shipped().models} == {
        "checkpoints/talmendoxl_v11_beta.safetensors": "https://civitai.com/api/download/models/131960",
        "ipadapter/ip-adapter_pulid_sdxl_fp16.safetensors": (
            "huggingface:huchenlei/ipadapter_pulid/ip-adapter_pulid_sdxl_fp16.safetensors@main"
        ),
        "ipadapter/ip-adapter-plus-face_sdxl.bin": (
            "huggingface:h94/IP-Adapter/sdxl_models/ip-adapter-plus-face_sdxl_vit-h.bin@main"
        ),
        **{
            f"controlnet/{name}": f"huggingface:{controlnet}/{name}@main"
            for name in (
                "control_v11p_sd15_openpose.pth",
                "control_v11f1p_sd15_depth.pth",
                "control_v11p_sd15_canny.pth",
                "control_v11p_sd15_scribble.pth",
            )
        },
    }


def test_the_checkpoint_alone_is_preloaded() -> None:
    assert [model.path for model in shipped().models if model.preload] == [
        "checkpoints/talmendoxl_v11_beta.safetensors"
    ]


def test_pulid_finds_its_model_in_its_own_folder_too() -> None:
    assert {model.path: model.links for model in shipped().models if model.links} == {
        "ipadapter/ip-adapter_pulid_sdxl_fp16.safetensors": (
            "pulid/ip-adapter_pulid_sdxl_fp16.safetensors",
        )
    }


def test_every_model_is_required() -> None:
    assert all(model.required for model in shipped().models)


def test_the_customers_nodes_are_named_and_the_manager_is_not() -> None:
    assert {node.name: node.git.reveal() for node in shipped().nodes} == {
        "ComfyUI-PuLID": "https://github.com/ceutaseguridad/PuLID_ComfyUI",
        "ComfyUI-Advanced-ControlNet": "https://github.com/Kosinkadink/ComfyUI-Advanced-ControlNet",
    }


def test_the_manager_stands_there_commented_out_ready_to_be_taken() -> None:
    text = (REPOSITORY / "models.yaml").read_text()

    assert "  # - name: ComfyUI-Manager\n" in text
    assert "https://github.com/ltdrdata/ComfyUI-Manager\n" in text


def test_the_volume_is_the_one_that_was_bought() -> None:
    assert shipped().volume.size_gb == 20


def test_it_needs_no_variable_and_holds_no_token() -> None:
    manifest = shipped()

    assert manifest.secrets == ()
    assert all(
        isinstance(model.source, HuggingFaceSource)
        or (isinstance(model.source, UrlSource) and "?" not in model.source.url.reveal())
        for model in manifest.models
    )


def test_comfyui_gets_neither_arguments_nor_variables() -> None:
    assert (shipped().comfyui.args, shipped().comfyui.env) == ((), ())
