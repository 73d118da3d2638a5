"""How large objects have to be for the model, and the warning for those that are not."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

LOW_RES_STRIDE = 4  # pixels of the model image for each cell of the masks that it predicts
FEATURE_STRIDE = 16  # the same for the features by which it recognizes an object
MOST_CELLS = 3  # of a side of what a mask that would vanish becomes

SMALLEST_AREA = FEATURE_STRIDE**2
"""Area in pixels of the model image below which an object is not followed: one cell of the features.

Measured with i2v-nano on rendered discs: below a third of it, none was found on the next frame.
"""


def warn_if_small(area: float, where: str) -> None:
    """Log a warning for an object that is too small to be followed.

    Args:
        area: In pixels of the model image; 0 for an object that is not in view, which is fine.
        where: Names the object and the frame.
    """
    if 0 < area < SMALLEST_AREA:
        log.warning(
            "%s: the object covers %.2g pixels of the model's image, and the model follows objects from about %d on: "
            "crop the video to it, or use a larger model.image_size",
            where,
            area,
            SMALLEST_AREA,
        )
