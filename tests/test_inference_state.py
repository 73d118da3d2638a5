"""A session owns its state: copies, snapshots, partial propagation, and one propagation at a time."""

from __future__ import annotations

import copy
import pickle
import threading
from dataclasses import replace

import pytest
import torch
from support import make_predictor, randomize, render_video

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.inference.live_session import LiveSession
from i2v.modeling.memory.selectors import RecentSelector
from i2v.modeling.structures import TrackingStep

CLICK = {"points": [[16, 19]], "labels": [1]}
OTHER = {"points": [[48, 31]], "labels": [1]}


@pytest.fixture
def predictor() -> I2VVideoPredictor:
    return make_predictor()


def masks(predictor: I2VVideoPredictor, state: InferenceState, **kwargs) -> dict[int, torch.Tensor]:
    return {frame: logits for frame, _, logits in predictor.propagate_in_video(state, **kwargs)}


@pytest.mark.parametrize("as_conditioning", [False, True])
def test_a_frame_may_be_corrected_again_after_a_step(as_conditioning: bool) -> None:
    predictor = make_predictor(f"++predictor.add_all_frames_to_correct_as_cond={str(as_conditioning).lower()}")
    with predictor.init_state(render_video(8)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        list(predictor.propagate_in_video(state, max_frame_num_to_track=3))
        predictor.add_new_points_or_box(state, 3, 1, [[20, 20]], [1])
        list(predictor.propagate_in_video(state, 4, 0))
        _, _, again = predictor.add_new_points_or_box(state, 3, 1, [[21, 20]], [1], clear_old_points=False)
        assert again.isfinite().all() and state.tracks[1].prompts[3].num_points == 2


def test_a_live_frame_may_be_corrected_twice(predictor: I2VVideoPredictor) -> None:
    video = render_video(6)
    with LiveSession(predictor) as session:
        session.step(video[0])
        session.add_new_points_or_box(1, **CLICK)
        for picture in video[1:4]:
            session.step(picture)
        for x in (19, 20, 21):
            _, _, logits = session.add_new_points_or_box(1, points=[[x, 19]], labels=[1])
        assert logits.shape == (1, 1, 48, 64)


def test_predictors_of_one_model_have_policies_of_their_own(predictor: I2VVideoPredictor) -> None:
    other = I2VVideoPredictor(predictor.model, predictor.policy)
    other.memory_selection = "topk"
    other.memory_selection_seed = 5
    assert (predictor.memory_selection, other.memory_selection) == ("sample", "topk")
    assert (predictor.memory_selection_seed, other.memory_selection_seed) == (123, 5)
    with pytest.raises(ValueError, match=r'expected "sample" or "topk", got \'best\''):
        other.memory_selection = "best"


def test_a_click_after_a_propagation_encodes_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make_predictor("++predictor.frames_at_once=4")
    sizes: list[int] = []
    encode = predictor.model.encode_frames
    monkeypatch.setattr(predictor.model, "encode_frames", lambda f, stem: sizes.append(len(f)) or encode(f, stem))
    with predictor.init_state(render_video(20)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        steps = predictor.propagate_in_video(state)
        for _ in range(3):
            next(steps)
        steps.close()
        sizes.clear()
        for frame in (2, 12):
            predictor.add_new_points_or_box(state, frame, 2, **OTHER)
        assert sizes == [1], "frame 2 is known, frame 12 is encoded alone"


@pytest.mark.parametrize("make_copy", [copy.deepcopy, copy.copy, InferenceState.copy])
def test_a_copy_tracks_the_other_way(predictor: I2VVideoPredictor, make_copy) -> None:
    with predictor.init_state(render_video(10)) as state:
        predictor.add_new_points_or_box(state, 5, 1, **CLICK)
        with make_copy(state) as other:
            both = [predictor.propagate_in_video(state), predictor.propagate_in_video(other, reverse=True)]
            forward, backward = {}, {}
            for _ in range(6):  # step by step, in turns
                for steps, found in zip(both, (forward, backward), strict=True):
                    step = next(steps, None)
                    if step is not None:
                        found[step[0]] = step[2]
            assert state.frames_with_mask(1) == [5, 6, 7, 8, 9] and other.frames_with_mask(1) == [0, 1, 2, 3, 4, 5]
        assert state.source.read(0).shape == (48, 64, 3), "the video stays open for the one that is left"
    for reverse, found in ((False, forward), (True, backward)):
        with predictor.init_state(render_video(10)) as alone:
            predictor.add_new_points_or_box(alone, 5, 1, **CLICK)
            expected = masks(predictor, alone, reverse=reverse)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[frame], found[frame]) for frame in expected)


def test_a_state_is_propagated_by_one_propagation_at_a_time(predictor: I2VVideoPredictor) -> None:
    with predictor.init_state(render_video(8)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        expected = masks(predictor, state)
        first = predictor.propagate_in_video(state)
        next(first)
        with pytest.raises(RuntimeError, match=r"this state is being propagated: .* state.copy\(\)"):
            next(predictor.propagate_in_video(state))
        raised: list[Exception] = []

        def in_thread() -> None:
            try:
                list(predictor.propagate_in_video(state, reverse=True, start_frame_idx=3))
            except RuntimeError as error:
                raised.append(error)

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        assert len(raised) == 1
        rest = {frame: logits for frame, _, logits in first}
        assert all(torch.equal(expected[frame], logits) for frame, logits in rest.items()) and len(rest) == 7
        for frame, _, _ in predictor.propagate_in_video(state):  # one that ended, or was left, is no obstacle
            if frame == 2:
                break
        assert torch.equal(masks(predictor, state)[2], expected[2])


def test_prompts_of_another_thread_wait_for_a_step(predictor: I2VVideoPredictor) -> None:
    video = render_video(30)
    with predictor.init_state(video) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        alone = masks(predictor, state)
    with predictor.init_state(video) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        thread = threading.Thread(
            target=lambda: [predictor.add_new_points_or_box(state, frame, 2, **OTHER) for frame in range(20, 26)]
        )
        thread.start()
        found = masks(predictor, state)
        thread.join()
        assert state.obj_ids == [1, 2]
    assert all(torch.equal(found[frame][:1], alone[frame]) for frame in alone)


def test_a_state_cannot_be_pickled(predictor: I2VVideoPredictor) -> None:
    with (
        predictor.init_state(render_video(2)) as state,
        pytest.raises(TypeError, match=r"cannot be pickled or sent to another process.*call init_state there"),
    ):
        pickle.dumps(state)


def test_objects_may_be_tracked_apart(predictor: I2VVideoPredictor) -> None:
    video = render_video(8)
    with predictor.init_state(video) as state:
        predictor.add_new_points_or_box(state, 0, "a", **CLICK)
        predictor.add_new_points_or_box(state, 2, "b", **OTHER)
        together = masks(predictor, state, start_frame_idx=0)
    with predictor.init_state(video) as state:
        predictor.add_new_points_or_box(state, 0, "a", **CLICK)
        predictor.add_new_points_or_box(state, 2, "b", **OTHER)
        steps = list(predictor.propagate_in_video(state, obj_ids=["b"]))
        assert [(frame, ids) for frame, ids, _ in steps] == [(frame, ["b"]) for frame in range(2, 8)]
        assert state.frames_with_mask("a") == [0] and state.tracks["a"].pending
        assert state.mask_ranges("b") == [range(2, 8)] and state.mask_ranges("a") == [range(0, 1)]
        assert state.has_mask("b", 5) and not state.has_mask("a", 5) and not state.has_mask("c", 5)
        assert all(torch.equal(logits[0], together[frame][1]) for frame, _, logits in steps)
        assert masks(predictor, state, obj_ids=["a"])[7].shape == (1, 1, 48, 64)
        _, ids, logits = predictor.masks_on_frame(state, 7)
        assert ids == ["a", "b"] and torch.equal(logits, together[7])
        with pytest.raises(KeyError, match="object 'c' is not in the session"):
            predictor.propagate_in_video(state, obj_ids=["c"])


def test_a_snapshot_restores_an_object_as_it_was(predictor: I2VVideoPredictor) -> None:
    with predictor.init_state(render_video(12)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        masks(predictor, state, max_frame_num_to_track=5)
        snapshot = state.snapshot_object(1)
        expected = masks(predictor, state)
        predictor.add_new_points_or_box(state, 4, 1, [[40, 30]], [0])
        predictor.remove_object(state, 1)
        for _ in range(2):  # as often as one likes
            state.restore_object(1, snapshot)
            assert state.frames_with_mask(1) == list(range(6)) and list(state.tracks[1].prompts) == [0]
            found = masks(predictor, state)
            assert all(torch.equal(found[frame], expected[frame]) for frame in expected)
        with pytest.raises(KeyError, match="object 2 is not in the session"):
            state.snapshot_object(2)


def test_a_snapshot_holds_no_features_and_draws_the_same_memories_again(predictor: I2VVideoPredictor) -> None:
    with predictor.init_state(render_video(16)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        list(predictor.propagate_in_video(state))
        predictor.add_new_points_or_box(state, 14, 1, [[40, 30]], [0])
        snapshot = state.snapshot_object(1)
        assert state.tracks[1].click_context is not None and snapshot.track.click_context is None
        # Memories have been drawn for the first click, and the second one goes on from the same.
        assert not torch.equal(state.tracks[1].generator.get_state(), snapshot.track.generator.get_state())
        second = {"points": [[20, 22]], "labels": [1], "clear_old_points": False}
        _, _, expected = predictor.add_new_points_or_box(state, 14, 1, **second)
        for _ in range(2):
            state.restore_object(1, snapshot)
            assert torch.equal(predictor.add_new_points_or_box(state, 14, 1, **second)[2], expected)


def test_a_prefetched_frame_is_not_encoded_again(predictor: I2VVideoPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = predictor.model.encode_frames
    monkeypatch.setattr(predictor.model, "encode_frames", lambda f, stem: encoded.append(1) or encode(f, stem))
    with predictor.init_state(render_video(6)) as state:
        predictor.prefetch_frame(state, 3)
        predictor.add_new_points_or_box(state, 3, 1, **CLICK)
        assert len(encoded) == 1
        with pytest.raises(IndexError, match="frame 6 is not in the video"):
            predictor.prefetch_frame(state, 6)


@pytest.mark.parametrize(
    ("box", "same"), [([-0.4, -3, 30, 25.5], [0, 0, 30, 25.5]), ([40, 20, 64.4, 60], [40, 20, 64, 48])]
)
def test_a_box_over_the_border_is_clipped(predictor: I2VVideoPredictor, box, same) -> None:
    with predictor.init_state(render_video(1)) as state:
        over = predictor.add_new_points_or_box(state, 0, 1, box=box)[2]
        predictor.reset_state(state)
        assert torch.equal(over, predictor.add_new_points_or_box(state, 0, 1, box=same)[2])
        predictor.reset_state(state)
        shifted = predictor.add_new_points_or_box(state, 0, 1, [[64, 48]], [1])[2]  # the corner is on the frame
        assert not torch.equal(over, shifted)


# What a state computed belongs to its model, precision and policy


def test_a_state_is_refused_by_another_model(predictor: I2VVideoPredictor) -> None:
    other, smaller = make_predictor(), make_predictor("model.image_size=128")
    with predictor.init_state(render_video(4)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        for stranger in (other, smaller):
            for use in (
                lambda p: p.add_new_points_or_box(state, 1, 1, **CLICK),
                lambda p: p.add_new_mask(state, 1, 1, torch.ones(48, 64)),
                lambda p: p.propagate_in_video_preflight(state),
                lambda p: list(p.propagate_in_video(state)),
                lambda p: p.advance(state, TrackingStep(1)),
                lambda p: p.prefetch_frame(state, 1),
                lambda p: p.masks_on_frame(state, 0),
            ):
                with pytest.raises(ValueError, match="belongs to another model"):
                    use(stranger)
        assert sorted(masks(predictor, state)) == [0, 1, 2, 3]


def test_features_of_another_precision_are_not_used(predictor: I2VVideoPredictor) -> None:
    coarse = I2VVideoPredictor(predictor.model, predictor.policy, torch.bfloat16)
    with predictor.init_state(render_video(4)) as state, predictor.init_state(render_video(4)) as fresh:
        coarse.add_new_points_or_box(state, 3, 1, **CLICK)
        coarse.reset_state(state)
        logits = predictor.add_new_points_or_box(state, 3, 1, **CLICK)[2]
        assert torch.equal(logits, predictor.add_new_points_or_box(fresh, 3, 1, **CLICK)[2])


def test_features_of_replaced_weights_can_be_cleared(predictor: I2VVideoPredictor) -> None:
    with predictor.init_state(render_video(4)) as state, predictor.init_state(render_video(4)) as fresh:
        predictor.add_new_points_or_box(state, 3, 1, **CLICK)
        predictor.reset_state(state)
        randomize(predictor.model, seed=5)
        state.clear_features()
        logits = predictor.add_new_points_or_box(state, 3, 1, **CLICK)[2]
        assert torch.equal(logits, predictor.add_new_points_or_box(fresh, 3, 1, **CLICK)[2])


def test_clicks_after_a_change_of_policy_or_precision_use_no_stale_memories(predictor: I2VVideoPredictor) -> None:
    policy = predictor.policy
    others = (
        I2VVideoPredictor(predictor.model, policy.with_memory_selection("topk")),
        I2VVideoPredictor(predictor.model, policy, torch.bfloat16),
    )
    for other in others:
        clicked = []
        for is_fresh in (False, True):
            with predictor.init_state(render_video(12)) as state:
                predictor.add_new_points_or_box(state, 0, 1, **CLICK)
                masks(predictor, state)
                predictor.add_new_points_or_box(state, 9, 1, [[20, 20]], [1])
                if is_fresh:
                    state.restore_object(1, state.snapshot_object(1))
                clicked.append(other.add_new_points_or_box(state, 9, 1, [[20, 20], [30, 30]], [1, 0])[2])
        assert torch.equal(*clicked)


def test_a_step_waits_for_the_end_of_a_propagation(predictor: I2VVideoPredictor) -> None:
    with predictor.init_state(render_video(6)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        propagation = predictor.propagate_in_video(state)
        next(propagation)
        with pytest.raises(RuntimeError, match="this state is being propagated"):
            predictor.advance(state, TrackingStep(5))
        rest = {frame: logits for frame, _, logits in propagation}
        with predictor.init_state(render_video(6)) as fresh:
            predictor.add_new_points_or_box(fresh, 0, 1, **CLICK)
            expected = masks(predictor, fresh)
        assert all(torch.equal(rest[frame], expected[frame]) for frame in range(1, 6))
        assert predictor.advance(state, TrackingStep(5))[0] == 5


def test_a_live_step_during_a_propagation_takes_no_frame(predictor: I2VVideoPredictor) -> None:
    video = render_video(6)
    with LiveSession(predictor) as session:
        session.step(video[0])
        session.add_new_points_or_box(1, **CLICK)
        session.step(video[1])
        propagation = predictor.propagate_in_video(session.state, 1, reverse=True)
        next(propagation)
        with pytest.raises(RuntimeError, match="this state is being propagated"):
            session.step(video[2])
        list(propagation)
        assert session.step(video[2])[0] == 2


def test_a_snapshot_of_another_session_is_refused(predictor: I2VVideoPredictor) -> None:
    larger = make_predictor("model.image_size=128")
    with predictor.init_state(render_video(4)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        snapshot = state.snapshot_object(1)
        for model, video in (
            (predictor, render_video(3)),
            (predictor, render_video(4, 40, 64)),
            (predictor, render_video(4, 48, 80)),
            (larger, render_video(4)),
        ):
            with model.init_state(video) as other, pytest.raises(ValueError, match="object 1 is of another session"):
                other.restore_object(1, snapshot)
            assert not other.tracks
        with predictor.init_state(render_video(4)) as same:
            same.restore_object(1, snapshot)
            assert same.frames_with_mask(1) == [0]


def test_what_a_session_holds_is_read_between_steps(predictor: I2VVideoPredictor) -> None:
    with predictor.init_state(render_video(4)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        reads = (
            lambda: predictor.frame_scores(state, 0),
            lambda: state.has_mask(1, 0),
            lambda: state.frames_with_mask(1),
            lambda: state.mask_ranges(1),
        )
        with state.lock:  # as during a step
            threads = [threading.Thread(target=read) for read in reads]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(0.2)
                assert thread.is_alive()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_a_selection_of_objects_is_checked(predictor: I2VVideoPredictor) -> None:
    with predictor.init_state(render_video(4)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        for use in (
            lambda ids: predictor.propagate_in_video(state, obj_ids=ids),
            lambda ids: predictor.masks_on_frame(state, 0, ids),
        ):
            for single in (1, "1"):
                with pytest.raises(TypeError, match="obj_ids: expected a list of object ids, got"):
                    use(single)
            with pytest.raises(KeyError, match="object 9 is not in the session"):
                use([1, 9])
        with pytest.raises(ValueError, match="obj_ids: expected at least one object, got none"):
            predictor.propagate_in_video(state, obj_ids=[])
        assert predictor.masks_on_frame(state, 0, [])[2].shape == (0, 1, 48, 64)
        for frame in (-1, 4):
            with pytest.raises(IndexError, match=f"frame {frame} is not in the video"):
                predictor.frame_scores(state, frame)


def test_a_propagation_ends_when_its_objects_are_removed(predictor: I2VVideoPredictor) -> None:
    with predictor.init_state(render_video(4)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        predictor.add_new_points_or_box(state, 0, 2, **OTHER)
        propagation = predictor.propagate_in_video(state, obj_ids=[2])
        assert next(propagation)[1] == [2]
        predictor.remove_object(state, 2)
        assert list(propagation) == []
        assert sorted(masks(predictor, state)) == [0, 1, 2, 3]


def test_memories_without_embeddings_cannot_be_compared(predictor: I2VVideoPredictor) -> None:
    similarity, recent = predictor.policy, replace(predictor.policy, selector=RecentSelector())
    with predictor.init_state(render_video(8)) as state:
        predictor.policy = recent
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        masks(predictor, state, max_frame_num_to_track=3)
        predictor.policy = similarity
        with pytest.raises(ValueError, match=r"memories of frames \[.*: call reset_state and give the prompts again"):
            masks(predictor, state, start_frame_idx=4)
        predictor.reset_state(state)
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        assert len(masks(predictor, state)) == 8
