"""What the handlers share: sessions, images and the folders that may be read."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.serve.folders import AllowedFolders
from i2v.serve.images import ImageSegmenter, image_predictor_of
from i2v.serve.limits import Limits
from i2v.serve.sessions import SessionTable


@dataclass(frozen=True)
class Service:
    """One model, served.

    Attributes:
        model: Name of the model for clients.
        predictor: The predictor of videos.
        sessions: The sessions over videos.
        images: Answers on single images.
        folders: The folders that may be read.
        limits: The limits.
    """

    model: str
    predictor: I2VVideoPredictor
    sessions: SessionTable
    images: ImageSegmenter
    folders: AllowedFolders
    limits: Limits

    @staticmethod
    def create(
        predictor: I2VVideoPredictor, folders: AllowedFolders, limits: Limits | None = None, model: str = "i2v"
    ) -> Service:
        """Create a service.

        Args:
            predictor: The predictor of videos; that of images shares its network.
            folders: The folders that may be read.
            limits: The limits.
            model: Name of the model for clients.
        """
        limits = limits or Limits()
        sessions = SessionTable(predictor, limits)
        images = ImageSegmenter(image_predictor_of(predictor), sessions.turns, limits)
        return Service(model, predictor, sessions, images, folders, limits)

    @staticmethod
    def of(request: Request) -> Service:
        """Return the service that a request is for."""
        service: Service = request.app.state.service
        return service
