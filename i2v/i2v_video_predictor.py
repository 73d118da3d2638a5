"""I2VVideoPredictor: prompt objects in a video and track them. The methods are SAM 2's, and a few more."""

from __future__ import annotations

import operator
from collections.abc import Collection, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

from i2v.inference.inference_state import InferenceState
from i2v.inference.object_track import ObjectScores, ObjectTrack, PendingPrompt
from i2v.inference.policy import InferencePolicy, PredictorSettings
from i2v.inference.precision import Precision
from i2v.inference.tracker import Advance, Tracker
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.memory_bank import MemoryBank
from i2v.modeling.structures import NO_OBJECT_LOGIT, Prompt, TrackingStep
from i2v.prompts.parsing import place, read_mask, read_points, to_prompt
from i2v.utils.masks import resize_logits, suppress_overlap
from i2v.video.sources import open_source

PRIOR_LIMIT = 32.0  # logits of an earlier prediction are clamped to this before they are corrected

FrameMasks = tuple[int, list[Hashable], Tensor]


class I2VVideoPredictor:
    """Runs a model over videos, one :class:`InferenceState` each.

    Prompts are answered at once, for their frame; :meth:`propagate_in_video` then tracks the objects through the video.
    Objects may be added, corrected and removed at any time; each is tracked by itself. Masks are logits (N,1,H,W) at
    video size, one row for every object of ``obj_ids``; positive is the object.

    A predictor holds no session: several threads may use one, each with states of its own. Predictors that share a
    model may differ in their policies.
    """

    def __init__(
        self,
        model: I2VModel,
        policy: InferencePolicy | None = None,
        dtype: torch.dtype | None = None,
        tf32: bool = False,
    ) -> None:
        """``policy``: memory selection, mask settings and the behaviour of sessions; the published ones by default.

        ``dtype``: precision of the computation. Default: bfloat16 on CUDA, float32 elsewhere.

        ``tf32``: what is left in float32 on CUDA may be multiplied with inputs rounded to 10 bits.
        """
        default = torch.bfloat16 if model.device.type == "cuda" else torch.float32
        self.tracker = Tracker(model, policy or InferencePolicy(), Precision(dtype or default, tf32))

    @property
    def model(self) -> I2VModel:
        return self.tracker.model

    @property
    def policy(self) -> InferencePolicy:
        """What it does with the model; assign another to change it from the next step on."""
        return self.tracker.policy

    @policy.setter
    def policy(self, policy: InferencePolicy) -> None:
        self.tracker = Tracker(self.model, policy, self.tracker.precision)

    @property
    def settings(self) -> PredictorSettings:
        return self.policy.settings

    @property
    def dtype(self) -> torch.dtype:
        return self.tracker.precision.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    @torch.inference_mode()
    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = True,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = True,
    ) -> InferenceState:
        """Open a video: a folder of images, a video file (path or bytes), an array, a list, or a live iterator.

        See :func:`i2v.video.sources.open_source` for what is accepted and which errors it raises. Frames are decoded
        when they are needed, ahead of the model, and a bounded number is kept on the host; ``offload_video_to_cpu`` and
        ``async_loading_frames`` are accepted for SAM 2's sake and change nothing. ``offload_state_to_cpu`` keeps
        memories on the host, which saves about half a megabyte of device memory for every object and remembered frame.
        """
        del offload_video_to_cpu, async_loading_frames
        return InferenceState(
            open_source(video_path),
            self.model.image_size,
            self.model.window_length,
            self.device,
            storage_device=torch.device("cpu") if offload_state_to_cpu else None,
            frames_at_once=1 if self.policy.static_shapes else self.settings.frames_at_once,
        )

    @torch.inference_mode()
    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> FrameMasks:
        """Prompt an object, new or known, on a frame. Returns the frame, all object ids, and their masks on it.

        ``points`` (P,2), x first, in pixels of the video (``normalize_coords=False``: in 0..1), with ``labels`` (P,):
        1 on the object, 0 off it. ``box``: x0, y0, x1, y1. ``clear_old_points=False`` adds to the points already given
        on this frame. A mask that the object has on the frame is taken as a first guess, also when points are replaced;
        use :meth:`clear_all_prompts_in_frame` to start afresh.

        Raises ValueError for anything that is no such prompt, IndexError for a frame that the video does not have.
        """
        state = inference_state
        frame = self._check_frame(state, frame_idx)
        where = place(frame, obj_id)
        if box is not None and not clear_old_points:
            raise ValueError(f"{where}: a box comes before any click, so it needs clear_old_points=True")
        size = (state.video_height, state.video_width)
        coordinates, kinds = read_points(points, labels, box, size, not normalize_coords, where)
        prompt = to_prompt(coordinates, kinds, self.model.image_size, self.device)
        with state.lock:
            track = self._track_of(state, obj_id)
            old = track.prompts.get(frame)
            if old is not None and old.points is not None and not clear_old_points:
                assert prompt.points is not None and prompt.labels is not None
                prompt = old.add(prompt.points, prompt.labels)
            return self._prompt(state, obj_id, track, frame, prompt)

    def add_new_points(self, *args: Any, **kwargs: Any) -> FrameMasks:
        """Old name of :meth:`add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    @torch.inference_mode()
    def add_new_mask(self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, mask: Any) -> FrameMasks:
        """Say what an object's mask is on a frame; an empty one says that it is not in view.

        ``mask`` (H,W), bool or numbers (floats count from 0.5), of the video's size or shape. Returns and raises as
        :meth:`add_new_points_or_box` does; the mask comes back slightly smoothed, with logits within -10 and 10.
        """
        state = inference_state
        frame = self._check_frame(state, frame_idx)
        size = (state.video_height, state.video_width)
        binary = read_mask(mask, size, self.model.image_size, place(frame, obj_id)).to(self.device)
        with state.lock:
            return self._prompt(state, obj_id, self._track_of(state, obj_id), frame, Prompt.from_mask(binary))

    @torch.inference_mode()
    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Memorize the prompts given so far. Propagation does it by itself."""
        with inference_state.lock, self.tracker.computing():
            self.tracker.commit_prompts(inference_state, list(inference_state.tracks.values()))

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        obj_ids: Collection[Hashable] | None = None,
    ) -> Iterator[FrameMasks]:
        """Track objects, yielding each frame's index, the object ids and their masks.

        Starts at ``start_frame_idx`` (default: the first prompted frame) and visits it and ``max_frame_num_to_track``
        more (default: to the end), towards lower indices with ``reverse`` (from frame 0 there is nowhere to go).
        ``obj_ids``: track and yield these objects only; the others stay as they are.
        Prompts given while it runs take effect from the next frame on. Raises RuntimeError if nothing was prompted,
        IndexError for a start off the video, KeyError for an object that the session does not have, and RuntimeError on
        the first step if another propagation of the state has not ended.
        """
        state = inference_state
        chosen = None if obj_ids is None else tuple(obj_ids)
        tracks = state.chosen(None) if chosen is None else {obj_id: state.track_of(obj_id) for obj_id in chosen}
        prompted = [frame for track in tracks.values() for frame in (*track.prompted, *track.pending)]
        if not prompted:
            raise RuntimeError("nothing to track: no object has a prompt; add points, a box or a mask first")
        start = min(prompted) if start_frame_idx is None else self._check_frame(state, start_frame_idx)
        if max_frame_num_to_track is not None and max_frame_num_to_track < 0:
            raise ValueError(f"max_frame_num_to_track: expected 0 or more, got {max_frame_num_to_track}")
        if reverse and start == 0:
            return iter(())
        return self._propagate(state, start, max_frame_num_to_track, reverse, chosen)

    @torch.inference_mode()
    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> FrameMasks | None:
        """Remove an object's prompt on a frame; a mask that was tracked there before shows again.

        If it was the object's last prompt, the object keeps its id and loses its masks. Other objects are not touched.
        Raises KeyError for an object that the session does not have.
        """
        state = inference_state
        frame = self._check_frame(state, frame_idx)
        with state.lock:
            state.track_of(obj_id).clear_prompt(frame)
            return self._output(state, frame) if need_output else None

    @torch.inference_mode()
    def remove_object(
        self, inference_state: InferenceState, obj_id: Hashable, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Hashable], list[tuple[int, Tensor]]]:
        """Remove an object. Returns the ids that are left, and their masks on the frames where it had prompts.

        An unknown id is ignored, or with ``strict`` a RuntimeError.
        """
        state = inference_state
        with state.lock:
            if obj_id not in state.tracks:
                if strict:
                    raise RuntimeError(f"object {obj_id!r} is not in the session, which has {state.obj_ids}")
                return state.obj_ids, []
            track = state.tracks.pop(obj_id)
            frames = sorted(track.prompts) if need_output and state.tracks else []
            return state.obj_ids, [(frame, self._output(state, frame)[2]) for frame in frames]

    def reset_state(self, inference_state: InferenceState) -> None:
        """Remove all objects; the video stays open."""
        with inference_state.lock:
            inference_state.tracks.clear()

    @torch.inference_mode()
    def masks_on_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_ids: Collection[Hashable] | None = None
    ) -> FrameMasks:
        """The masks that objects have on a frame by now, as prompts return them; nothing is computed for it.

        ``obj_ids``: of these objects; default: all. Objects without a mask on the frame have an empty one, see
        :meth:`InferenceState.has_mask`.
        """
        state = inference_state
        with state.lock:
            return self._output(state, self._check_frame(state, frame_idx), obj_ids)

    @torch.inference_mode()
    def prefetch_frame(self, inference_state: InferenceState, frame_idx: int) -> None:
        """Encode a frame, so that the next prompt on it is answered faster."""
        state = inference_state
        with state.lock, self.tracker.computing():
            self.tracker.features(state, self._check_frame(state, frame_idx))

    def frame_scores(self, inference_state: InferenceState, frame_idx: int) -> dict[Hashable, ObjectScores]:
        """Object score and predicted IoU of every object that has a mask on a frame."""
        return inference_state.scores(frame_idx)

    @property
    def memory_selection(self) -> str:
        """How tracked memories are selected: ``"sample"`` or ``"topk"``. Other predictors of the model keep theirs."""
        return self.policy.memory_selection

    @memory_selection.setter
    def memory_selection(self, mode: str) -> None:
        self.policy = self.policy.with_memory_selection(mode)

    @property
    def memory_selection_seed(self) -> int:
        """Seed of every object's draws, anew at each propagation."""
        return self.settings.seed

    @memory_selection_seed.setter
    def memory_selection_seed(self, seed: int) -> None:
        self.policy = self.policy.with_seed(seed)

    # Prompts

    def _check_frame(self, state: InferenceState, frame_idx: int) -> int:
        frame = operator.index(frame_idx)
        count = state.num_frames
        if frame < 0 or (count is not None and frame >= count):
            raise IndexError(f"frame {frame} is not in the video {state.source.name}, which has {count} frames")
        return frame

    def _track_of(self, state: InferenceState, obj_id: Hashable) -> ObjectTrack:
        """An object's track, or a new one that is not in the session yet."""
        track = state.tracks.get(obj_id)
        if track is not None:
            return track
        generator = torch.Generator().manual_seed(self.settings.seed)
        return ObjectTrack(MemoryBank(span=self.policy.selector.span), generator)

    def _prompt(
        self, state: InferenceState, obj_id: Hashable, track: ObjectTrack, frame: int, prompt: Prompt
    ) -> FrameMasks:
        """Answer a prompt. The session changes only once the answer is there."""
        is_tracked = frame in track.passed
        conditioning = not is_tracked or self.settings.add_all_frames_to_correct_as_cond
        if frame in track.prompted:
            conditioning = conditioning or track.prompted[frame].conditioning
        with self.tracker.computing():
            context = self.tracker.context(state, track, frame, is_tracked and prompt.mask is None)
            earlier = track.result(frame, self.device)
            asked = prompt
            if prompt.points is not None and earlier is not None:
                asked = prompt.with_prior(earlier.low_res.to(self.device).clamp(-PRIOR_LIMIT, PRIOR_LIMIT))
            prediction = self.tracker.predict(context, asked)
        track.prompts[frame] = prompt
        track.pending[frame] = PendingPrompt(prediction, conditioning)
        state.tracks[obj_id] = track
        return self._output(state, frame)

    # Tracking

    def _propagate(
        self,
        state: InferenceState,
        start: int,
        max_frames: int | None,
        reverse: bool,
        obj_ids: tuple[Hashable, ...] | None,
    ) -> Iterator[FrameMasks]:
        with state.propagating():
            with state.lock:
                for track in state.chosen(obj_ids).values():
                    track.begin_propagation(reverse, self.settings.seed)
            for ahead in _frames_ahead(state, start, max_frames, reverse):
                frame = ahead.start
                state.read_ahead(ahead)
                at = Advance(TrackingStep(frame, reverse), obj_ids, _encoded_next(state, ahead, obj_ids))
                try:
                    masks = self._advance(state, at)
                except IndexError:
                    # A live video tells only by failing to deliver that it has ended.
                    if state.num_frames is not None and frame >= state.num_frames:
                        return
                    raise
                yield masks

    def advance(self, state: InferenceState, step: TrackingStep) -> FrameMasks:
        """Take one step: memorize new prompts, then track every object to a step's frame."""
        return self._advance(state, Advance(step))

    @torch.inference_mode()
    def _advance(self, state: InferenceState, at: Advance) -> FrameMasks:
        with state.lock:
            with self.tracker.computing():
                self.tracker.advance(state, at)
            return self._output(state, at.step.frame, at.obj_ids)

    def _output(self, state: InferenceState, frame: int, obj_ids: Collection[Hashable] | None = None) -> FrameMasks:
        """The objects' masks on a frame at video size; objects without any there are absent."""
        grid = 4 * (self.model.image_size // 16)
        absent = torch.full((1, 1, grid, grid), NO_OBJECT_LOGIT, device=self.device)
        tracks = state.chosen(obj_ids)
        results = [track.result(frame, self.device) for track in tracks.values()]
        planes = [absent if result is None else result.low_res.to(self.device) for result in results]
        low_res = torch.cat(planes) if planes else absent[:0]
        size = (state.video_height, state.video_width)
        masks = resize_logits(low_res, size) if planes else low_res.new_zeros((0, 1, *size))
        if self.settings.non_overlap_masks and planes:
            masks = suppress_overlap(masks)
        return frame, list(tracks), masks


def _frames_ahead(state: InferenceState, start: int, max_frames: int | None, reverse: bool) -> Iterator[range]:
    """For every frame of a propagation, that frame and those after it, as far as they are known of a live video."""
    frame, step = start, -1 if reverse else 1
    while True:
        count = state.num_frames
        end = max(frame + step, -1) if count is None else (-1 if reverse else count)
        if max_frames is not None:
            last = start + step * (max_frames + 1)
            end = max(end, last) if reverse else min(end, last)
        ahead = range(frame, end, step)
        if not ahead:
            return
        yield ahead
        frame += step


def _encoded_next(state: InferenceState, ahead: range, obj_ids: Collection[Hashable] | None) -> tuple[int, ...]:
    """Of the frames after ``ahead``'s first, those that will have to be encoded: not all objects are prompted there."""
    tracks = state.chosen(obj_ids).values()
    encoded = [f for f in ahead[: state.frames_at_once] if any(f not in track.prompted for track in tracks)]
    return tuple(encoded[1:]) if encoded[:1] == [ahead.start] else ()
