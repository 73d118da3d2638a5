"""Label Studio's video tasks: rectangles on frames are tracked on."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from i2v.serve.label_config import Control
from i2v.serve.label_studio_regions import Keyframe, Region, Size, box_in_percent, box_in_pixels
from i2v.serve.schemas import FrameAnswer, PromptRequest, TrackRequest
from i2v.serve.service import Service
from i2v.serve.session import VideoSession

_RATE = 24.0  # frames per second that Label Studio assumes


async def video_regions(service: Service, control: Control, path: Path, marked: list[Region]) -> list[dict[str, Any]]:
    """Track the rectangles that the user has drawn, from the last frame with one on.

    Args:
        service: The service; its ``task_frames`` bound what is tracked.
        control: The tool whose regions are wanted.
        path: Path of the video.
        marked: Rectangles in the video; others are passed over.

    Returns:
        The same regions with a rectangle on each tracked frame, turned off where the object is out of view.

    Raises:
        HTTPException: If there is no room for a session.
        OSError: If the video cannot be read.
        ValueError: If it is no video, or a rectangle is off the frame.
    """
    drawn = [region for region in marked if region.type == "videorectangle" and _enabled(region)]
    if not drawn:
        return []
    async with _opened(service, path) as session:
        size = session.size
        for number, region in enumerate(drawn, start=1):
            for key in _enabled(region):
                box = box_in_pixels(key.x, key.y, key.width, key.height, key.rotation, size)
                request = PromptRequest(object=number, frame=key.frame - 1, box=list(box))
                await service.sessions.prompt(session, request)
        start = max(key.frame for region in drawn for key in _enabled(region)) - 1
        request_range = TrackRequest(start=start, frames=service.limits.task_frames)
        tracked = []
        async with aclosing(await service.sessions.track(session, request_range)) as frames:
            async for frame in frames:
                tracked.append(frame)
        about = session.describe()
    rate = about.frame_rate or _RATE
    return [
        {
            "id": region.id or secrets.token_hex(5),
            "from_name": control.name,
            "to_name": control.to_name,
            "type": "videorectangle",
            "origin": "prediction",
            "score": _score(tracked, number),
            "value": {
                "framesCount": about.frames,
                "duration": about.frames / rate,
                "sequence": _sequence(region, tracked, number, size, rate),
                **({"labels": region.value.labels} if region.value.labels else {}),
            },
        }
        for number, region in enumerate(drawn, start=1)
    ]


@asynccontextmanager
async def _opened(service: Service, path: Path) -> AsyncIterator[VideoSession]:
    session = await service.sessions.open(lambda: service.folders.open_video(str(path)), path.name)
    try:
        yield session
    finally:
        await service.sessions.close(session)


def _enabled(region: Region) -> list[Keyframe]:
    return [key for key in region.value.sequence if key.enabled]


def _sequence(region: Region, tracked: list[FrameAnswer], number: int, size: Size, rate: float) -> list[dict[str, Any]]:
    """The user's rectangles, and those on frames after them."""
    drawn = {key.frame: key for key in region.value.sequence}
    sequence = [{**key.model_dump(), "time": (key.frame - 1) / rate} for _, key in sorted(drawn.items())]
    last: dict[str, float] = {}
    for answer in tracked:
        mask = next((mask for mask in answer.masks if mask.object == number), None)
        if mask is not None and mask.box is not None:
            last = box_in_percent(mask.box, size)
        if last and answer.frame + 1 not in drawn:
            key = {"frame": answer.frame + 1, "enabled": mask is not None and mask.box is not None, "rotation": 0}
            sequence.append({**key, **last, "time": answer.frame / rate})
    return sorted(sequence, key=lambda key: key["frame"])


def _score(tracked: list[FrameAnswer], number: int) -> float:
    """The mean predicted IoU."""
    ious = [mask.iou for answer in tracked for mask in answer.masks if mask.object == number and mask.iou is not None]
    return round(sum(ious) / len(ious), 4) if ious else 0.0
