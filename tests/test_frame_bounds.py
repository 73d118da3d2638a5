"""One rule for points and boxes at the edge of a frame, for the Python API, the command line and the annotator."""

from __future__ import annotations

import json

import numpy as np
import pytest

from i2v.annotator.commands import read_command
from i2v.cli.arguments import UsageError, make_parser
from i2v.prompts.frame_bounds import check_points, clip_box


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_point_is_as_the_model_reads_it(dtype: type) -> None:
    check_points(np.array([[64.00000001, 48]], dtype=dtype), (64, 48), "here")
    with pytest.raises(ValueError, match="off the frame"):
        check_points(np.array([[64.0001, 48]], dtype=dtype), (64, 48), "here")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_box_without_width_on_the_frame_is_off_it(dtype: type) -> None:
    with pytest.raises(ValueError, match="off the frame"):
        clip_box(np.array([[63.99999999, 1], [70, 9]], dtype=dtype), (64, 48), "here")
    clipped = clip_box(np.array([[-0.4, -0.4], [70, 9]], dtype=dtype), (64, 48), "here")
    assert clipped.tolist() == [[0, 0], [64, 9]] and clipped.dtype == dtype


@pytest.mark.parametrize("joint", ["=", " "])
def test_coordinates_on_the_command_line_may_be_negative(joint: str) -> None:
    options = f"--box{joint}-0.4,-0.4,20,20 --click{joint}-1,5 --click{joint}-.5,5,0"
    marks = make_parser().parse_args(["track", "clip", *options.split()]).marks
    assert marks[0].box == (-0.4, -0.4, 20, 20)
    assert [mark.click for mark in marks[1:]] == [(-1, 5, 1), (-0.5, 5, 0)]


def test_an_option_is_not_taken_for_coordinates() -> None:
    with pytest.raises(UsageError, match="argument --box: expected one argument"):
        make_parser().parse_args(["track", "clip", "--box", "--overwrite"])


def test_the_page_may_send_a_box_over_the_edge() -> None:
    box = {"do": "box", "object": None, "frame": 0, "x0": -0.4, "y0": -3.0, "x1": 64.5, "y1": 20.0}
    command = read_command(json.dumps(box).encode())
    assert (command.x0, command.y0, command.x1, command.y1) == (-0.4, -3, 64.5, 20)
