"""The manifest that the repository ships: the service's own."""

from morpheus_boot.config.settings import REPOSITORY
from morpheus_boot.manifest import read_manifest

CHECKPOINT = "checkpoints/talmendoxl_v11_beta.safetensors"
PULID = "ip-adapter_pulid_sdxl_fp16.safetensors"


def test_it_names_the_services_models_and_nodes_on_the_volume_that_was_bought() -> None:
    manifest = read_manifest(REPOSITORY / "models.yaml", {})

    assert {model.path: model.source.identity for model in manifest.models} == {
        CHECKPOINT: "https://civitai.com/api/download/models/131960",
        f"ipadapter/{PULID}": f"huggingface:huchenlei/ipadapter_pulid/{PULID}@main",
        "ipadapter/ip-adapter-plus-face_sdxl.bin": (
            "huggingface:h94/IP-Adapter/sdxl_models/ip-adapter-plus-face_sdxl_vit-h.bin@main"
        ),
        **{
            f"controlnet/control_v11{name}.pth": (
                f"huggingface:lllyasviel/ControlNet-v1-1/control_v11{name}.pth@main"
            )
            for name in ("p_sd15_openpose", "f1p_sd15_depth", "p_sd15_canny", "p_sd15_scribble")
        },
    }
    assert all(model.required for model in manifest.models)
    assert [model.path for model in manifest.models if model.preload] == [CHECKPOINT]
    # PuLID looks in a folder of its own, too.
    assert {model.path: model.links for model in manifest.models if model.links} == {
        f"ipadapter/{PULID}": (f"pulid/{PULID}",)
    }
    assert {node.name: node.git.reveal() for node in manifest.nodes} == {
        "ComfyUI-PuLID": "https://github.com/ceutaseguridad/PuLID_ComfyUI",
        "ComfyUI-Advanced-ControlNet": "https://github.com/Kosinkadink/ComfyUI-Advanced-ControlNet",
    }
    assert manifest.volume.size_gb == 20
    # It needs no variable, and holds no token.
    assert manifest.secrets == ()
    assert (manifest.comfyui.args, manifest.comfyui.env) == ((), ())


def test_the_manager_stands_there_commented_out_ready_to_be_taken() -> None:
    text = (REPOSITORY / "models.yaml").read_text()

    assert "  # - name: ComfyUI-Manager\n" in text
    assert "https://github.com/ltdrdata/ComfyUI-Manager\n" in text
