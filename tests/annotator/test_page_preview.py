"""A prompt's first mask is on the picture before the model has refined it, and never stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from annotator_support import FIRST, Running, until
from page_support import visiting
from support import make_predictor

from i2v.inference.crop_refinement import CropRefiner


@pytest.fixture
def refining(start: Callable[..., Any]) -> Iterator[Running]:
    """A server with a model that refines."""
    with start(predictor=make_predictor("predictor.refine_prompts=true")) as started:
        yield started


@pytest.fixture
def refinement(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is not set, nothing is refined. What is refined turns into its opposite, to tell it from the first."""
    is_free = threading.Event()

    def refine(refiner: CropRefiner, picture: Any, prompt: Any, prediction: Any, mirrored: Any) -> Any:
        assert is_free.wait(60)
        return refiner._with_mask(prediction, -prediction.low_res)

    monkeypatch.setattr(CropRefiner, "refine", refine)
    return is_free


def test_the_first_mask_is_shown_until_the_refined_one_comes(
    browser: Any, refining: Running, refinement: threading.Event
) -> None:
    place = round(FIRST.x), round(FIRST.y)
    with visiting(browser, refining.address) as visitor:
        visitor.click(FIRST.x, FIRST.y)
        visitor.page.wait_for_selector("#stage[data-previews='1']")
        visitor.sees(0, 1)
        first = visitor.pixel("overlay", *place)
        # Nothing but the picture knows of it.
        session = refining.book.get(1)
        assert session.store.shown(1, 0) is None and session.document.numbers == ()
        refinement.set()
        until(lambda: session.store.shown(1, 0) is not None)
        visitor.page.wait_for_selector("#stage[data-news='1']")
        refined = visitor.pixel("overlay", *place)
        assert (first[3] > 0) != (refined[3] > 0)


def test_a_prompt_that_fails_takes_its_first_mask_back(
    browser: Any, refining: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_free = threading.Event()

    def fail(*_: Any) -> None:
        assert is_free.wait(60)
        raise ValueError("the model could not refine this")

    monkeypatch.setattr(CropRefiner, "refine", fail)
    with visiting(browser, refining.address) as visitor:
        visitor.click(FIRST.x, FIRST.y)
        visitor.page.wait_for_selector("#stage[data-previews='1']")
        visitor.sees(0, 1)
        is_free.set()
        visitor.is_told("the model could not refine this")
        visitor.sees(0)
        assert visitor.page.evaluate(
            "document.getElementById('overlay').getContext('2d')"
            ".getImageData(0, 0, 128, 96).data.every(value => value === 0)"
        )
        assert refining.book.get(1).document.numbers == ()
