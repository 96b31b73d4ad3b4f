"""``POST /upload``: from the socket into a part file on the volume, and whole under its name or not there."""

from typing import Final

from fastapi import Request
from pydantic import BaseModel

from fileserver.form import UploadForm
from fileserver.input_counts import InputCounts
from fileserver.intake import Intake, PartFile, Uploaded, too_large
from fileserver.threads import VolumeThreads
from morpheus_boot.config.variables import Limits
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.part import UploadPart
from morpheus_boot.volume.layout import Layout

# A final fsync of 1 GiB costs 0.4 s and more; so often in the background it is hidden.
_SETTLE_BYTES: Final = 64 * 2**20
_MEND: Final = "send less"


class UploadAnswer(BaseModel):
    """Where an upload now lies."""

    message: str
    pod_path: str
    comfy_path: str
    worker_job_id: str


def upload_answer(layout: Layout, uploaded: Uploaded) -> UploadAnswer:
    """What is said of a stored upload; ``comfy_path`` is as a node of ComfyUI takes it."""
    folders = uploaded.sub_dir.parts
    below = "/".join((uploaded.job.text, "input", *folders, uploaded.name.text))
    return UploadAnswer(
        message=f"{uploaded.name}: {uploaded.size_bytes} bytes stored",
        pod_path=str(layout.jobs / below),
        comfy_path=f"{below} [output]",
        worker_job_id=uploaded.job.text,
    )


class Uploads:
    """Receives uploads, as many at once as there are connections."""

    def __init__(
        self,
        layout: Layout,
        threads: VolumeThreads,
        limits: Limits,
        intake: Intake,
        counts: InputCounts,
    ) -> None:
        self._layout = layout
        self._threads = threads
        self._limits = limits
        self._intake = intake
        self._counts = counts

    async def receive(self, request: Request) -> Uploaded:
        """Takes the form from ``request`` and stores its file.

        Raises BadForm, BadField, InvalidName, FormTooLarge, UploadTooLarge, TooSlow, NameTaken,
        TooManyFiles, VolumeHangs, VolumeFull, StorageFailed; ClientDisconnect. Then nothing is left of it.
        """
        limits = self._limits
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limits.upload_bytes + limits.form_bytes:
            raise too_large(limits.upload_bytes, _MEND)
        form = UploadForm(request.headers.get("content-type", ""), limits.form_bytes)
        file = PartFile(UploadPart(self._layout), self._threads, self._counts, _SETTLE_BYTES)
        try:
            await self._intake.take(request, form, file, limits.upload_bytes, _MEND)
            name = form.finish()
            return await file.publish(
                form.take_chunks(), form.job or JobId.new(), form.sub_dir, name
            )
        except BaseException:
            await file.give_up()
            raise
