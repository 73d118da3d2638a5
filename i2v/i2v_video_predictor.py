"""I2VVideoPredictor: prompts objects in a video and tracks them, with the methods of SAM 2 and a few more."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from i2v.inference.frame_order import frames_ahead, frames_to_encode_next
from i2v.inference.inference_state import InferenceState
from i2v.inference.module_methods import ModuleMethods
from i2v.inference.object_track import ObjectScores, ObjectTrack, PendingPrompt
from i2v.inference.policy import InferencePolicy, PredictorSettings
from i2v.inference.precision import Precision, default_dtype
from i2v.inference.tracker import StepRequest, Tracker
from i2v.modeling.constants import PRIOR_LIMIT
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.memory_bank import MemoryBank
from i2v.modeling.structures import BOX_TOP_LEFT, NO_OBJECT_LOGIT, FramePrediction, Prompt, TrackingStep
from i2v.prompts.object_ids import canonical_id
from i2v.prompts.parsing import read_mask, to_prompt
from i2v.prompts.reading import describe_location, read_points, warn_of_small_box
from i2v.utils.masks import resize_logits, suppress_overlap
from i2v.video.frame_source import check_frame
from i2v.video.sources import open_source

# Frame index, object ids, and their mask logits (num_objects, 1, H, W) at video size.
FrameMasks = tuple[int, list[Hashable], Tensor]


class I2VVideoPredictor(ModuleMethods):
    """Segments and tracks objects in videos, with one ``InferenceState`` per video.

    A prompt returns masks for its own frame at once; ``propagate_in_video`` then tracks the objects through the video.
    Objects can be added, corrected and removed at any time, and each is tracked independently. Masks are logits
    ``(num_objects, 1, H, W)`` at video size, positive on the object, in the order of the object ids.

    A predictor keeps nothing of a session, so several threads can share one, each with its own states. Predictors that
    share a model can have different policies, and use the same states. With another model, a state is a ``ValueError``.
    """

    def __init__(
        self,
        model: I2VModel,
        policy: InferencePolicy | None = None,
        dtype: torch.dtype | None = None,
        tf32: bool = False,
    ) -> None:
        """Create a predictor.

        Args:
            model: The network.
            policy: Memory selection, mask settings and behaviour of sessions; the published ones by default.
            dtype: Precision of the computation, by default bfloat16 on CUDA and float32 elsewhere.
            tf32: Whether an NVIDIA GPU may use TF32 for products in float32.

        Raises:
            ValueError: If the policy's selector fills more temporal slots than the model has.
        """
        super().__init__(model, Precision(dtype or default_dtype(model.device), tf32))
        self.tracker = Tracker(model, policy or InferencePolicy(), self._precision)

    @classmethod
    def from_pretrained(cls, model_id: str | os.PathLike[str], **options: Any) -> I2VVideoPredictor:
        """Build a predictor from a model's name.

        Args:
            model_id: See ``i2v.pretrained.find_pretrained``.
            **options: Arguments of ``i2v.build_i2v.build_i2v_video_predictor``, and where a model of the Hugging Face
                hub is looked for: ``revision``, ``cache_dir``, ``token``, ``local_files_only``.

        Raises:
            FileNotFoundError: If there is no such model.
            ValueError: If the name or an option is malformed, or the weights do not fit.
        """
        # Imported here because builders import predictors.
        from i2v.build_i2v import build_i2v_video_predictor_hf

        return build_i2v_video_predictor_hf(model_id, **options)

    @property
    def policy(self) -> InferencePolicy:
        """The policy. An assigned one takes effect from the next step on."""
        return self.tracker.policy

    @policy.setter
    def policy(self, policy: InferencePolicy) -> None:
        self.tracker = Tracker(self.model, policy, self._precision)

    @property
    def settings(self) -> PredictorSettings:
        """The policy's settings for sessions."""
        return self.policy.settings

    @torch.inference_mode()
    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = True,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = True,
    ) -> InferenceState:
        """Open a video and start a session.

        Frames are decoded when they are needed, ahead of the model, and a bounded number is kept on the host.

        Args:
            video_path: A folder of images, a video file (path or bytes), an array, a list, or a live iterator; see
                ``i2v.video.sources.open_source`` for formats and errors.
            offload_video_to_cpu: Accepted for SAM 2's sake; no effect.
            offload_state_to_cpu: Whether to keep memories on the host. This saves about 0.5 MB of device memory per
                object and remembered frame.
            async_loading_frames: Accepted for SAM 2's sake; no effect.

        Returns:
            A session without objects.
        """
        del offload_video_to_cpu, async_loading_frames
        return InferenceState(
            open_source(video_path),
            self.model,
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
        output_ids: Collection[Hashable] | None = None,
        on_first_answer: Callable[[Tensor], None] | None = None,
    ) -> FrameMasks:
        """Prompt a new or known object on a frame with points, a box, or both.

        A mask that the object already has on the frame serves as a prior, also when points are replaced; use
        ``clear_all_prompts_in_frame`` to start over.

        Args:
            inference_state: The session.
            frame_idx: Index of the frame.
            obj_id: The object's id: an integer, a text or another hashable value. Integers of NumPy and tensors of one
                integer are the same ids as Python's.
            points: ``(P, 2)``, x first, in pixels of the video, or in 0..1 with ``normalize_coords=False``.
            labels: ``(P,)``: 1 on the object, 0 on the background; 2 and 3 for the corners of a box, as in SAM 2.
            clear_old_points: Whether to replace the object's earlier points on this frame instead of adding to them.
            normalize_coords: Whether coordinates are in pixels and still have to be divided by the video's size.
            box: x0, y0, x1, y1, in the same unit as the points; needs ``clear_old_points``.
            output_ids: Objects to return, the prompted one among them or not; by default all. With many objects, most
                of a prompt's time goes into masks at video size.
            on_first_answer: Called with the object's mask logits ``(1, 1, H, W)`` before they are refined (see
                ``PredictorSettings.refine_prompts``), which takes most of the time; not where nothing is refined. For
                display: the session takes the refined mask alone.

        Returns:
            The frame index, the ids of the returned objects, and their mask logits on the frame.

        Raises:
            ValueError: If the prompt is malformed or off the frame.
            TypeError: If the object's id is not hashable, or ``output_ids`` is a single id.
            IndexError: If the video has no such frame.
            KeyError: If the session does not have one of ``output_ids``.
        """
        state, obj_id = inference_state, canonical_id(obj_id)
        frame = self._check_frame(state, frame_idx)
        where = describe_location(frame, obj_id)
        size = (state.video_height, state.video_width)
        coordinates, kinds = read_points(points, labels, box, size, not normalize_coords, where)
        if BOX_TOP_LEFT in kinds and not clear_old_points:
            raise ValueError(f"{where}: a box comes before any click, so it needs clear_old_points=True")
        warn_of_small_box(coordinates, kinds, self.model.image_size, where)
        prompt = to_prompt(coordinates, kinds, self.model.image_size, self.device)
        with state.lock:
            track = self._get_or_create_track(state, obj_id)
            old = track.prompts.get(frame)
            if old is not None and old.points is not None and not clear_old_points:
                assert prompt.points is not None and prompt.labels is not None
                prompt = old.add(prompt.points, prompt.labels)
            return self._apply_prompt(state, obj_id, track, frame, prompt, output_ids, on_first_answer)

    def add_new_points(self, *args: Any, **kwargs: Any) -> FrameMasks:
        """Old name of ``add_new_points_or_box``."""
        return self.add_new_points_or_box(*args, **kwargs)

    @torch.inference_mode()
    def add_new_mask(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        mask: Any,
        output_ids: Collection[Hashable] | None = None,
    ) -> FrameMasks:
        """Prompt an object on a frame with its mask. An empty mask says that the object is not in view.

        The returned mask is slightly smoothed, with logits within +-10. One that is too small for the model's
        resolution is widened until a pixel of it is left; a warning is logged for objects that are too small to be
        followed.

        Args:
            inference_state: The session.
            frame_idx: Index of the frame.
            obj_id: The object's id, new or known.
            mask: ``(H, W)``, bool or numeric, with the video's size or aspect ratio. Label maps count as the object
                from 1, grey levels (0..255) from half of their range, floats in 0..1 from 0.5, and what is negative
                never.
            output_ids: As for ``add_new_points_or_box``.

        Returns:
            The frame index, the ids of the returned objects, and their mask logits on the frame.

        Raises:
            ValueError: If the mask is malformed or has another shape.
            IndexError: If the video has no such frame.
            KeyError: If the session does not have one of ``output_ids``.
            TypeError: If ``output_ids`` is a single id.
        """
        state, obj_id = inference_state, canonical_id(obj_id)
        frame = self._check_frame(state, frame_idx)
        size = (state.video_height, state.video_width)
        where = describe_location(frame, obj_id)
        binary = read_mask(mask, size, self.model.image_size, where).to(self.device)
        with state.lock:
            track = self._get_or_create_track(state, obj_id)
            return self._apply_prompt(state, obj_id, track, frame, Prompt.from_mask(binary), output_ids)

    @torch.inference_mode()
    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Encode memories for the prompts given so far. Propagation does this by itself."""
        self._check_state(inference_state)
        with inference_state.lock, self.tracker.precision_context():
            self.tracker.commit_prompts(inference_state, list(inference_state.tracks.values()))

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        obj_ids: Collection[Hashable] | None = None,
    ) -> Iterator[FrameMasks]:
        """Track objects through the video.

        Prompts that are given while a propagation runs take effect from the next frame on.

        Args:
            inference_state: The session.
            start_frame_idx: First frame; by default the first prompted frame.
            max_frame_num_to_track: How many more frames to visit; by default all to the end.
            reverse: Whether to go towards lower indices. From frame 0 nothing is left to visit.
            obj_ids: Track and yield only these objects; the others do not change. Once all of them are removed, the
                propagation ends.

        Yields:
            The frame index, the object ids, and their mask logits.

        Raises:
            RuntimeError: If no object has a prompt or, on the first step, if another propagation of the state has not
                ended.
            IndexError: If the video has no frame ``start_frame_idx``.
            KeyError: If the session does not have one of ``obj_ids``.
            ValueError: If ``max_frame_num_to_track`` is negative or ``obj_ids`` is empty.
            TypeError: If ``obj_ids`` is a single id.
        """
        state = inference_state
        self._check_state(state)
        selected = _check_objects(state, obj_ids)
        if selected == ():
            raise ValueError("nothing to track: obj_ids: expected at least one object, got none")
        tracks = state.select_tracks(selected)
        prompted = [frame for track in tracks.values() for frame in (*track.prompted, *track.pending)]
        if not prompted:
            raise RuntimeError("nothing to track: no object has a prompt; add points, a box or a mask first")
        start = min(prompted) if start_frame_idx is None else self._check_frame(state, start_frame_idx)
        if max_frame_num_to_track is not None and max_frame_num_to_track < 0:
            raise ValueError(f"max_frame_num_to_track: expected 0 or more, got {max_frame_num_to_track}")
        if reverse and start == 0:
            return iter(())
        return self._propagate(state, start, max_frame_num_to_track, reverse, selected)

    @torch.inference_mode()
    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> FrameMasks | None:
        """Remove an object's prompt on a frame. A mask that was tracked there before becomes visible again.

        Without any prompt left the object keeps its id but loses its masks. Other objects do not change.

        Args:
            inference_state: The session.
            frame_idx: Index of the frame.
            obj_id: The object's id.
            need_output: Whether to return masks.

        Returns:
            The frame index, all object ids, and their mask logits on the frame, or ``None``.

        Raises:
            IndexError: If the video has no such frame.
            KeyError: If the session has no such object.
        """
        state = inference_state
        frame = self._check_frame(state, frame_idx)
        with state.lock:
            state.get_track(obj_id).clear_prompt(frame)
            return self._collect_masks(state, frame) if need_output else None

    @torch.inference_mode()
    def remove_object(
        self, inference_state: InferenceState, obj_id: Hashable, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Hashable], list[tuple[int, Tensor]]]:
        """Remove an object.

        Args:
            inference_state: The session.
            obj_id: The object's id.
            strict: Whether an unknown id is an error instead of being ignored.
            need_output: Whether to return masks.

        Returns:
            The other objects' ids, and pairs of a frame on which the removed object had a prompt and their mask logits
            on it.

        Raises:
            RuntimeError: If ``strict`` and the session has no such object.
        """
        state, obj_id = inference_state, canonical_id(obj_id)
        with state.lock:
            if obj_id not in state.tracks:
                if strict:
                    raise RuntimeError(f"object {obj_id!r} is not in the session, which has {state.obj_ids}")
                return state.obj_ids, []
            track = state.tracks.pop(obj_id)
            frames = sorted(track.prompts) if need_output and state.tracks else []
            return state.obj_ids, [(frame, self._collect_masks(state, frame)[2]) for frame in frames]

    def reset_state(self, inference_state: InferenceState) -> None:
        """Remove all objects. The video stays open."""
        with inference_state.lock:
            inference_state.tracks.clear()

    @torch.inference_mode()
    def masks_on_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_ids: Collection[Hashable] | None = None
    ) -> FrameMasks:
        """Return the masks that objects have on a frame. The model does not run.

        Args:
            inference_state: The session.
            frame_idx: Index of the frame.
            obj_ids: Objects to return; by default all.

        Returns:
            The frame index, the object ids, and their mask logits. The mask of an object without one on the frame is
            empty; see ``InferenceState.has_mask``.

        Raises:
            IndexError: If the video has no such frame.
            KeyError: If the session does not have one of ``obj_ids``.
            TypeError: If ``obj_ids`` is a single id.
        """
        state = inference_state
        with state.lock:
            frame = self._check_frame(state, frame_idx)
            return self._collect_masks(state, frame, _check_objects(state, obj_ids))

    @torch.inference_mode()
    def prefetch_frame(self, inference_state: InferenceState, frame_idx: int) -> None:
        """Encode a frame ahead of time, so that the next prompt on it is faster.

        Raises:
            IndexError: If the video has no such frame.
        """
        state = inference_state
        with state.lock, self.tracker.precision_context():
            self.tracker.prefetch(state, self._check_frame(state, frame_idx))

    def frame_scores(self, inference_state: InferenceState, frame_idx: int) -> dict[Hashable, ObjectScores]:
        """Return object score and predicted IoU of every object that has a mask on a frame.

        Raises:
            IndexError: If the video has no such frame.
        """
        return inference_state.scores(self._check_frame(inference_state, frame_idx))

    @property
    def memory_selection(self) -> str:
        """Mode of memory selection, ``"sample"`` or ``"topk"``. Other predictors that share the model keep theirs."""
        return self.policy.memory_selection

    @memory_selection.setter
    def memory_selection(self, mode: str) -> None:
        self.policy = self.policy.with_memory_selection(mode)

    @property
    def memory_selection_seed(self) -> int:
        """Seed of each object's memory selection, applied at the start of every propagation."""
        return self.settings.seed

    @memory_selection_seed.setter
    def memory_selection_seed(self, seed: int) -> None:
        self.policy = self.policy.with_seed(seed)

    def _adopt(self, precision: Precision) -> None:
        super()._adopt(precision)
        self.tracker = Tracker(self.model, self.policy, precision)

    # Prompts

    def _check_state(self, state: InferenceState) -> None:
        if state.model is not self.model:
            raise ValueError(
                f"the state of {state.source.name} belongs to another model; call this predictor's init_state"
            )
        if state.device != self.device:
            raise ValueError(
                f"the state of {state.source.name} was opened on {state.device}, and the model is on {self.device} by "
                "now; call init_state again"
            )

    def _check_frame(self, state: InferenceState, frame_idx: int) -> int:
        self._check_state(state)
        return check_frame(frame_idx, state.source, state.num_frames)

    def _get_or_create_track(self, state: InferenceState, obj_id: Hashable) -> ObjectTrack:
        """Return an object's track, or a new one that is not in the session yet."""
        track = state.tracks.get(obj_id)
        if track is not None:
            return track
        generator = torch.Generator().manual_seed(self.settings.seed)
        selector = self.policy.selector
        return ObjectTrack(MemoryBank(span=selector.span, num_resolving=selector.num_resolving), generator)

    def _apply_prompt(
        self,
        state: InferenceState,
        obj_id: Hashable,
        track: ObjectTrack,
        frame: int,
        prompt: Prompt,
        output_ids: Collection[Hashable] | None,
        on_first_answer: Callable[[Tensor], None] | None = None,
    ) -> FrameMasks:
        """Predict the masks for a prompt and store both. The session only changes if the prediction succeeds."""
        chosen = _check_objects(state, output_ids, new=(obj_id,))
        size = (state.video_height, state.video_width)

        def at_video_size(tell: Callable[[Tensor], None], answer: FramePrediction) -> None:
            tell(resize_logits(answer.low_res, size))

        tell_first = None if on_first_answer is None else functools.partial(at_video_size, on_first_answer)
        # A prompt on a frame that no propagation has visited is segmented without memory, even if other frames have
        # prompts. On a visited frame it is a correction and uses memory.
        is_tracked = frame in track.propagated
        conditioning = not is_tracked or self.settings.add_all_frames_to_correct_as_cond
        if frame in track.prompted:
            conditioning = conditioning or track.prompted[frame].conditioning
        with self.tracker.precision_context():
            context = self.tracker.context(state, track, frame, is_tracked and prompt.mask is None)
            previous = track.result(frame, self.device)
            prompt_with_prior = prompt
            if prompt.points is not None and previous is not None:
                prior = previous.low_res.to(self.device).clamp(-PRIOR_LIMIT, PRIOR_LIMIT)
                prompt_with_prior = prompt.with_prior(prior)
            prediction = self.tracker.predict_prompted(state, frame, context, prompt_with_prior, tell_first)
        track.prompts[frame] = prompt
        track.pending[frame] = PendingPrompt(prediction, conditioning)
        state.tracks[obj_id] = track
        return self._collect_masks(state, frame, chosen)

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
                for track in state.select_tracks(obj_ids).values():
                    track.begin_propagation(reverse, self.settings.seed)
            for ahead in frames_ahead(state, start, max_frames, reverse):
                frame = ahead.start
                if obj_ids is not None and not state.select_tracks(obj_ids):
                    return
                state.read_ahead(ahead)
                following = frames_to_encode_next(state, ahead, obj_ids)
                request = StepRequest(TrackingStep(frame, reverse), obj_ids, following)
                try:
                    masks = self._advance(state, request)
                except IndexError:
                    # The end of a live video only shows when the next frame is missing.
                    if state.num_frames is not None and frame >= state.num_frames:
                        return
                    raise
                yield masks

    def advance(self, state: InferenceState, step: TrackingStep) -> FrameMasks:
        """Commit new prompts, then track every object to the frame of a step.

        Returns:
            The frame index, all object ids, and their mask logits.

        Raises:
            IndexError: If the video has no such frame.
            RuntimeError: If a propagation of the state has not ended.
        """
        self._check_state(state)
        # The lock is held all along, so that another thread's step waits instead of failing.
        with state.lock, state.propagating():
            return self._advance(state, StepRequest(step))

    @torch.inference_mode()
    def _advance(self, state: InferenceState, request: StepRequest) -> FrameMasks:
        with state.lock:
            with self.tracker.precision_context():
                self.tracker.advance(state, request)
            return self._collect_masks(state, request.step.frame, request.obj_ids)

    def _collect_masks(
        self, state: InferenceState, frame: int, obj_ids: Collection[Hashable] | None = None
    ) -> FrameMasks:
        """Masks of the objects on a frame at video size. Objects without one get the logits of an absent object."""
        grid = 4 * (self.model.image_size // 16)  # side of low-res logits: stride 4
        absent = torch.full((1, 1, grid, grid), NO_OBJECT_LOGIT, device=self.device)
        tracks = state.select_tracks(obj_ids)
        results = [track.result(frame, self.device) for track in tracks.values()]
        logits = [absent if result is None else result.low_res.to(self.device) for result in results]
        low_res = torch.cat(logits) if logits else absent[:0]
        size = (state.video_height, state.video_width)
        masks = resize_logits(low_res, size) if logits else low_res.new_zeros((0, 1, *size))
        if self.settings.non_overlap_masks and logits:
            masks = suppress_overlap(masks)
        return frame, list(tracks), masks


def _check_objects(
    state: InferenceState, obj_ids: Collection[Hashable] | None, new: Collection[Hashable] = ()
) -> tuple[Hashable, ...] | None:
    """Return a selection of objects that the session has or that are ``new``; ``None`` selects all, later ones too."""
    if obj_ids is None:
        return None
    if isinstance(obj_ids, str) or not isinstance(obj_ids, Iterable):
        raise TypeError(f"obj_ids: expected a list of object ids, got {obj_ids!r}")
    selected = tuple(canonical_id(obj_id) for obj_id in obj_ids)
    for obj_id in selected:
        if obj_id not in new:
            state.get_track(obj_id)
    return selected
