"""Cut-outs of the tracked objects as videos: with alpha, on green, or before a blurred background."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageFilter

from i2v.results.overlay import Pixels, VideoWriter, pad_to_even, tag_colours

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

Matte = Literal["alpha", "prores", "green", "blur"]
MATTES: tuple[Matte, ...] = get_args(Matte)
MATTE_NAMES: dict[Matte, str] = {
    "alpha": "matte_alpha.webm",
    "prores": "matte_prores.mov",
    "green": "matte_green.mp4",
    "blur": "matte_blur.mp4",
}
"""The file of each kind."""

GREEN = (0, 177, 64)
"""Colour of a green screen, which keyers know."""

_ALPHA_CRF = 24


def matte_of(labels: Pixels) -> Pixels:
    """Opacity ``(H, W)`` uint8 of all objects of a label map ``(H, W)``, with edges a pixel or two soft."""
    mask = Image.fromarray(np.where(labels > 0, np.uint8(255), np.uint8(0)))
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(max(0.7, min(labels.shape) / 720))))


def compose_matte(kind: Matte, picture: Pixels, labels: Pixels) -> Pixels:
    """Cut the objects of a frame out.

    Args:
        kind: What is behind the objects.
        picture: ``(H, W, 3)`` uint8 RGB.
        labels: Label map ``(H, W)`` uint8.

    Returns:
        ``(H, W, 4)`` uint8 RGBA for "alpha" and "prores", black where nothing is seen; ``(H, W, 3)`` else.
    """
    opacity = matte_of(labels)
    if kind in ("alpha", "prores"):
        # Without a trace of the background, which the colours would keep where alpha is 0.
        return np.dstack((np.where(opacity[..., None] > 0, picture, np.uint8(0)), opacity))
    image = Image.fromarray(picture)
    if kind == "green":
        behind = Image.new("RGB", image.size, GREEN)
    else:
        behind = image.filter(ImageFilter.GaussianBlur(max(image.size) / 40))
    return np.asarray(Image.composite(image, behind, Image.fromarray(opacity)))


class WebmAlphaWriter(VideoWriter):
    """Writes RGBA frames as WebM with alpha, VP9, which browsers show."""

    container = "webm"
    container_options: ClassVar[dict[str, str]] = {}

    def _add_stream(self, container: OutputContainer, rate: Fraction, width: int, height: int) -> VideoStream:
        options = {"crf": str(_ALPHA_CRF), "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
        stream = container.add_stream("libvpx-vp9", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        tag_colours(stream)
        return stream

    def _video_frame(self, picture: Pixels) -> av.VideoFrame:
        image = av.VideoFrame.from_ndarray(pad_to_even(picture), format="rgba")
        return image.reformat(format="yuva420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


class ProresWriter(VideoWriter):
    """Writes RGBA frames as MOV with alpha, ProRes 4444, which editors take."""

    container = "mov"
    container_options: ClassVar[dict[str, str]] = {}

    def _add_stream(self, container: OutputContainer, rate: Fraction, width: int, height: int) -> VideoStream:
        options = {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}
        stream = container.add_stream("prores_ks", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuva444p10le"
        tag_colours(stream)
        return stream

    def _video_frame(self, picture: Pixels) -> av.VideoFrame:
        image = av.VideoFrame.from_ndarray(pad_to_even(picture), format="rgba")
        return image.reformat(format="yuva444p10le", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def matte_writer(kind: Matte, folder: Path, frame_rate: float | None) -> VideoWriter:
    """Return a writer of a kind of matte in a folder.

    Raises:
        ValueError: If the frame rate is not in (0, 1000].
    """
    writers = {"alpha": WebmAlphaWriter, "prores": ProresWriter}
    return writers.get(kind, VideoWriter)(folder / MATTE_NAMES[kind], frame_rate)
