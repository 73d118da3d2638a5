"""What clients may use of the machine."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
from starlette.exceptions import HTTPException


@dataclass(frozen=True)
class Limits:
    """Limits of a service.

    Attributes:
        sessions: Most open sessions.
        objects: Most objects in a session.
        idle_seconds: After which an unused session is closed.
        memory_bytes: Memory of the process above which no session, object or frame is added.
        upload_bytes: Largest upload.
        request_bytes: Largest request other than uploads, such as an image in base64.
        task_frames: Most frames that one request of a labelling tool tracks; it gets no answer before the last one.
    """

    sessions: int = 8
    objects: int = 32
    idle_seconds: float = 1800.0
    memory_bytes: int = 8 << 30
    upload_bytes: int = 256 << 20
    request_bytes: int = 64 << 20
    task_frames: int = 64

    def check_memory(self) -> None:
        """Refuse to go on if the process takes too much memory.

        Raises:
            HTTPException: With status 503.
        """
        if psutil.Process().memory_info().rss > self.memory_bytes:
            raise HTTPException(
                503, f"the service takes more than its {self.memory_bytes >> 20} MiB of memory: close a session"
            )
