"""A worker that can't announce itself yet, since the volume takes nothing, does so as soon as it can."""

from pathlib import Path

from morpheus_boot.cache.lock.heartbeat import Heart, read_beat
from morpheus_boot.cache.lock.workers import seen_worker
from morpheus_boot.config.settings import Invocation, Settings, read_settings
from morpheus_boot.deployment import Deployment, announce, read_deployment
from tests.testbed.mounts import fill_up, mounted
from tests.wait import wait_until


def test_a_heart_whose_first_beat_did_not_fit_goes_on_beating(tmp_path: Path) -> None:
    with mounted(tmp_path / "volume", "size=64k") as volume:
        ballast = fill_up(volume)
        heart = Heart(volume / "w.json", "w", 0.02, patient=True)
        try:
            ballast.unlink()
            wait_until(lambda: read_beat(volume / "w.json") is not None)
        finally:
            heart.end()


def deployment_on(folder: Path, volume: Path) -> tuple[Deployment, Settings]:
    manifest = folder / "models.yaml"
    manifest.write_text("version: 1\nmodels: []\n")
    environ = {"MORPHEUS_VOLUME": str(volume), "MORPHEUS_MODELS": str(manifest)}
    settings = read_settings(environ=environ)
    return read_deployment(Invocation(settings)), settings


def test_a_boot_on_a_full_volume_has_a_heart(tmp_path: Path) -> None:
    with mounted(tmp_path / "volume", "size=64k") as volume:
        deployment, settings = deployment_on(tmp_path, volume)
        ballast = fill_up(volume)

        heart = announce(deployment)
        ballast.unlink()
        heart.end()

        seen = seen_worker(deployment.volume.layout, settings.worker)
        assert seen is not None
        assert seen.ended


def test_a_manifest_that_fits_is_left_where_the_heartbeat_does_not(tmp_path: Path) -> None:
    deployment, settings = deployment_on(tmp_path, tmp_path / "volume")
    layout = deployment.volume.layout
    layout.ours.mkdir(parents=True)
    layout.workers.write_text("in the way of the heartbeats' folder")

    announce(deployment).end()

    assert (layout.manifests / f"{settings.endpoint}.json").exists()
