"""Label Studio's labelling configuration: which tools of a project results can be for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from i2v.errors import brief

_MAX_CHARACTERS = 1 << 20
_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)

RESULT_KINDS = {
    "BrushLabels": "brushlabels",
    "PolygonLabels": "polygonlabels",
    "RectangleLabels": "rectanglelabels",
    "Brush": "brush",
    "Polygon": "polygon",
    "Rectangle": "rectangle",
}
"""Tags of the tools whose results an image can have, the preferred first, and the types of their results."""


@dataclass(frozen=True)
class Control:
    """A tool of the project.

    Attributes:
        tag: Its tag.
        name: Its name.
        to_name: Name of the image or video that it is for.
        labels: Its labels, if it has any.
    """

    tag: str
    name: str
    to_name: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelConfig:
    """A labelling configuration.

    Attributes:
        controls: The tools, in order.
        sources: For each image and video by its name: its tag, and the key of a task's data that it shows.
    """

    controls: tuple[Control, ...]
    sources: dict[str, tuple[str, str]]

    @staticmethod
    def parse(text: str) -> LabelConfig:
        """Read a configuration.

        Raises:
            ValueError: If it is not XML, or too large.
        """
        # Entities can make a short text gigantic, and Label Studio's configurations have none.
        if len(text) > _MAX_CHARACTERS or _DECLARATION.search(text):
            raise ValueError("label_config: expected a labelling configuration without declarations, up to 1 MiB")
        try:
            root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError) as error:
            raise ValueError(f"label_config: expected a labelling configuration in XML: {error}") from error
        controls = []
        sources = {}
        for element in root.iter():
            name, value, target = (element.get(key, "") for key in ("name", "value", "toName"))
            if element.tag in ("Image", "Video") and value.startswith("$"):
                sources[name] = (element.tag, value[1:])
            elif target:
                labels = tuple(filter(None, (child.get("value") for child in element.iter("Label"))))
                controls.append(Control(element.tag, name, target.split(",")[0], labels))
        return LabelConfig(tuple(controls), sources)

    def image_control(self, label: str | None) -> Control:
        """Return the tool for a result on an image: of those with the label, or else of all, the preferred one.

        Raises:
            ValueError: If there is none.
        """
        usable = [control for tag in RESULT_KINDS for control in self.controls if control.tag == tag]
        usable = [control for control in usable if self._shows(control, "Image")]
        if not usable:
            raise ValueError(f"label_config: expected one of {', '.join(RESULT_KINDS)} for an Image, got none of them")
        return next((control for control in usable if label in control.labels), usable[0])

    def video_control(self) -> Control:
        """Return the tool for results on a video.

        Raises:
            ValueError: If there is none.
        """
        for control in self.controls:
            if control.tag == "VideoRectangle" and self._shows(control, "Video"):
                return control
        raise ValueError("label_config: expected a VideoRectangle for a Video, got none")

    @property
    def has_video(self) -> bool:
        """Whether the project is about videos."""
        return any(tag == "Video" for tag, _ in self.sources.values())

    def source_of(self, control: Control, data: dict[str, object]) -> str:
        """Return where the image or video of a task is.

        Args:
            control: The tool that is used.
            data: The task's data.

        Raises:
            ValueError: If the task does not say.
        """
        key = self.sources[control.to_name][1]
        value = data.get(key)
        if not isinstance(value, str) or not value:
            raise ValueError(f"data: expected a text as {key!r}, got {brief(value)}")
        return value

    def _shows(self, control: Control, tag: str) -> bool:
        return control.to_name in self.sources and self.sources[control.to_name][0] == tag
