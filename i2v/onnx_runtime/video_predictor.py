"""OnnxVideoPredictor: prompts objects in a video and tracks them forward, with an exported model."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np

from i2v.modeling.constants import BOX_TOP_LEFT, NO_OBJECT_LOGIT, PADDING
from i2v.onnx_runtime.frame_encoder import FrameEncoder
from i2v.onnx_runtime.mask_arrays import Bools, Floats, fill_holes, resize, suppress_overlap, to_model_mask
from i2v.onnx_runtime.memory_selection import Memory, MemoryDraws, lay_out, select_memories
from i2v.onnx_runtime.network import DecoderPrompts, OnnxNetwork, Predictions
from i2v.onnx_runtime.prompt_answers import PointPrompt, PromptAnswerer
from i2v.prompts.object_area import warn_if_small
from i2v.prompts.object_ids import canonical_id
from i2v.prompts.reading import describe_location, read_binary_mask, read_points, warn_of_small_box
from i2v.video.frame_source import check_frame
from i2v.video.sources import open_source

# Frame index, object ids, and their mask logits (num_objects, 1, H, W) at video size.
FrameMasks = tuple[int, list[Hashable], Floats]


@dataclass(frozen=True)
class MaskScores:
    """How confident the model is of a mask.

    Attributes:
        object_score: Logit, positive where the object is in view.
        iou: Predicted IoU, 0 to 1.
    """

    object_score: float
    iou: float


@dataclass(eq=False)
class _Track:
    """One object of a session."""

    draws: MemoryDraws
    prompts: dict[int, PointPrompt] = field(default_factory=dict)  # the points given so far, by frame
    prompted: dict[int, Predictions] = field(default_factory=dict)  # answers, by frame
    pending: set[int] = field(default_factory=set)  # prompted frames whose memory is not encoded yet
    results: dict[int, Predictions] = field(default_factory=dict)  # of tracked frames; masks are low-res
    conditioning: list[Memory] = field(default_factory=list)
    tracked: list[Memory] = field(default_factory=list)
    visited: set[int] = field(default_factory=set)

    def result(self, frame: int) -> Predictions | None:
        return self.prompted.get(frame) or self.results.get(frame)

    def add_conditioning(self, memory: Memory) -> None:
        """Add the memory of a prompted frame, or replace it in its place, on which a selection depends."""
        for place, known in enumerate(self.conditioning):
            if known.frame == memory.frame:
                self.conditioning[place] = memory
                return
        self.conditioning.append(memory)


class OnnxSession:
    """A session over one video; ``OnnxVideoPredictor.init_state`` creates it. ``close`` closes the video.

    Attributes:
        source: The video that the frames come from.
        encoder: Encodes its frames.
        tracks: The objects by id.
    """

    def __init__(self, video: Any, network: OnnxNetwork) -> None:
        self.source = open_source(video)
        self.encoder = FrameEncoder(self.source, network)
        self.tracks: dict[Hashable, _Track] = {}

    @property
    def num_frames(self) -> int | None:
        """Number of frames; ``None`` while a live video is still running."""
        return self.source.num_frames

    @property
    def video_height(self) -> int:
        """Height of the frames in pixels."""
        return self.source.height

    @property
    def video_width(self) -> int:
        """Width of the frames in pixels."""
        return self.source.width

    @property
    def obj_ids(self) -> list[Hashable]:
        """Object ids in the order in which they were added, which is the order of the masks."""
        return list(self.tracks)

    def close(self) -> None:
        """Close the video."""
        self.source.close()

    def __enter__(self) -> OnnxSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OnnxVideoPredictor:
    """Segments and tracks objects in videos with an exported model, by the rules of ``i2v.I2VVideoPredictor``.

    It has the methods for prompts, one propagation forward, and its scores. Masks are NumPy arrays of logits, positive
    on the object. Corrections of tracked frames and propagation in reverse need ``i2v.I2VVideoPredictor``.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        """Load a model.

        Args:
            folder: The folder that ``i2v export --to onnx`` made.
            threads: See ``OnnxNetwork``.

        Raises:
            FileNotFoundError: If the folder or a part does not exist.
            ValueError: If it is damaged, or not for ONNX.
            RuntimeError: If onnxruntime is not installed.
        """
        self.network = OnnxNetwork(folder, threads)
        self._description = self.network.description
        self._answerer = PromptAnswerer(self.network)

    def init_state(self, video_path: Any) -> OnnxSession:
        """Open a video, of any kind that ``i2v.video.sources.open_source`` takes, and start a session."""
        return OnnxSession(video_path, self.network)

    def add_new_points_or_box(
        self,
        inference_state: OnnxSession,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
        *,
        on_first_answer: Callable[[Floats], None] | None = None,
    ) -> FrameMasks:
        """Prompt a new or known object on a frame; see ``I2VVideoPredictor.add_new_points_or_box``.

        ``on_first_answer`` takes NumPy's logits ``(1, 1, H, W)``.

        Raises:
            ValueError: If the prompt is malformed or off the frame, or the object was tracked through the frame.
            TypeError: If the object's id is not hashable.
            IndexError: If the video has no such frame.
        """
        state, size = inference_state, self._description.sizes.image_size
        frame, obj_id, track, where = self._place(state, frame_idx, obj_id)
        video_size = (state.video_height, state.video_width)
        coordinates, kinds = read_points(points, labels, box, video_size, not normalize_coords, where)
        if BOX_TOP_LEFT in kinds and not clear_old_points:
            raise ValueError(f"{where}: a box comes before any click, so it needs clear_old_points=True")
        warn_of_small_box(coordinates, kinds, size, where)
        prompt = PointPrompt(coordinates * np.float32(size), kinds)
        old = track.prompts.get(frame)
        if old is not None and not clear_old_points:
            points_of_both = np.concatenate((old.points, prompt.points))
            prompt = PointPrompt(points_of_both, np.concatenate((old.labels, prompt.labels)))
        previous = track.result(frame)
        given = prompt if previous is None else replace(prompt, prior=previous.low_res[0, 0])
        features = state.encoder.features(frame)

        def at_video_size(tell: Callable[[Floats], None], first: Predictions) -> None:
            tell(resize(first.low_res, video_size))

        tell_first = None if on_first_answer is None else functools.partial(at_video_size, on_first_answer)
        answer = self._answerer.points(state.source.read(frame), features, given, tell_first)
        track.prompts[frame] = prompt
        return self._keep(state, obj_id, track, frame, answer)

    def add_new_mask(self, inference_state: OnnxSession, frame_idx: int, obj_id: Hashable, mask: Any) -> FrameMasks:
        """Prompt an object on a frame with its mask; see ``I2VVideoPredictor.add_new_mask``.

        Raises:
            ValueError: If the mask is malformed, or the object was tracked through the frame.
            TypeError: If the object's id is not hashable.
            IndexError: If the video has no such frame.
        """
        state, size = inference_state, self._description.sizes.image_size
        frame, obj_id, track, where = self._place(state, frame_idx, obj_id)
        video_size = (state.video_height, state.video_width)
        binary = read_binary_mask(mask, video_size, size, where)
        warn_if_small(float(binary.mean()) * size**2, where)
        answer = self._answerer.mask(state.encoder.features(frame), to_model_mask(binary, size, video_size))
        track.prompts.pop(frame, None)
        return self._keep(state, obj_id, track, frame, answer)

    def propagate_in_video(
        self,
        inference_state: OnnxSession,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[FrameMasks]:
        """Track all objects from the first prompted frame to the end of the video.

        Prompts that are given on later frames while it runs take effect from the next frame on.

        Args:
            inference_state: The session.
            start_frame_idx: The first prompted frame, which is where tracking starts in any case.
            max_frame_num_to_track: How many more frames to visit; by default all.
            reverse: False, as exported models track forward.

        Yields:
            The frame index, the object ids, and their mask logits.

        Raises:
            RuntimeError: If no object has a prompt.
            ValueError: If ``max_frame_num_to_track`` is negative, or the start or the direction is another one.
        """
        state = inference_state
        prompted = [frame for track in state.tracks.values() for frame in track.prompted]
        if not prompted:
            raise RuntimeError("nothing to track: no object has a prompt; add points, a box or a mask first")
        if max_frame_num_to_track is not None and max_frame_num_to_track < 0:
            raise ValueError(f"max_frame_num_to_track: expected 0 or more, got {max_frame_num_to_track}")
        start = min(prompted)
        if reverse or start_frame_idx not in (None, start):
            raise ValueError(
                f"an exported model tracks forward from the first prompted frame, {start}: use I2VVideoPredictor for "
                "other starts and directions"
            )
        return self._propagate(state, start, max_frame_num_to_track)

    def reset_state(self, inference_state: OnnxSession) -> None:
        """Remove all objects. The video stays open."""
        inference_state.tracks.clear()

    def masks_on_frame(self, inference_state: OnnxSession, frame_idx: int) -> FrameMasks:
        """Return the masks that the objects have on a frame. The mask of an object without one there is empty.

        Raises:
            IndexError: If the video has no such frame.
        """
        return self._masks(inference_state, _check_frame(inference_state, frame_idx))

    def frame_scores(self, inference_state: OnnxSession, frame_idx: int) -> dict[Hashable, MaskScores]:
        """Return object score and predicted IoU of every object that has a mask on a frame.

        Raises:
            IndexError: If the video has no such frame.
        """
        frame = _check_frame(inference_state, frame_idx)
        results = {obj_id: track.result(frame) for obj_id, track in inference_state.tracks.items()}
        return {
            obj_id: MaskScores(result.object_score.item(), result.iou.item())
            for obj_id, result in results.items()
            if result is not None
        }

    # Prompts

    def _place(self, state: OnnxSession, frame_idx: int, obj_id: Hashable) -> tuple[int, Hashable, _Track, str]:
        """Check where a prompt is, and return its frame, the object's id and track, and the place in words."""
        frame, obj_id = _check_frame(state, frame_idx), canonical_id(obj_id)
        where = describe_location(frame, obj_id)
        track = state.tracks.get(obj_id) or _Track(MemoryDraws(self._description.selection.seed))
        if frame in track.visited:
            raise ValueError(
                f"{where}: this frame was tracked already, and an exported model takes no corrections: prompt before "
                "tracking, call reset_state, or use I2VVideoPredictor"
            )
        return frame, obj_id, track, where

    def _keep(self, state: OnnxSession, obj_id: Hashable, track: _Track, frame: int, answer: Predictions) -> FrameMasks:
        track.prompted[frame] = answer
        track.pending.add(frame)
        state.tracks[obj_id] = track
        return self._masks(state, frame)

    # Tracking

    def _propagate(self, state: OnnxSession, start: int, max_frames: int | None) -> Iterator[FrameMasks]:
        for track in state.tracks.values():
            track.draws = MemoryDraws(self._description.selection.seed)
            track.tracked, track.visited = [], set()
        frame = start
        while max_frames is None or frame <= start + max_frames:
            if state.num_frames is not None and frame >= state.num_frames:
                return
            self._commit_prompts(state)
            to_track = [track for track in state.tracks.values() if frame not in track.prompted]
            try:
                if to_track:
                    self._track(state, frame, to_track)
            except IndexError:
                # The end of a live video only shows when the next frame is missing.
                if state.num_frames is not None and frame >= state.num_frames:
                    return
                raise
            for track in state.tracks.values():
                track.visited.add(frame)
            yield self._masks(state, frame)
            frame += 1

    def _commit_prompts(self, state: OnnxSession) -> None:
        """Encode the memories of prompts that have none yet, frame by frame."""
        tracks = list(state.tracks.values())
        for frame in sorted({frame for track in tracks for frame in track.pending}):
            for track in (t for t in tracks if frame in t.pending):
                answer = track.prompted[frame]
                (memory,) = self._memorize(state, frame, answer, answer.low_res, np.ones(1, np.bool_))
                track.add_conditioning(memory)
                track.pending.discard(frame)

    def _track(self, state: OnnxSession, frame: int, tracks: Sequence[_Track]) -> None:
        features, rules = state.encoder.features(frame), self._description.prompts
        selections = [
            select_memories(self._description.selection, frame, t.conditioning, t.tracked, features.embedding, t.draws)
            for t in tracks
        ]
        conditioned, memory_prompts = self.network.attend(
            features, lay_out(selections, self._description.sizes.memory_length)
        )
        raw = self.network.decode(conditioned, memory_prompts, self._no_prompts(len(tracks)), features.high_res)
        filled = replace(raw, low_res=fill_holes(raw.low_res, rules.fill_hole_area))
        # The memory is of the mask as it was before holes were filled.
        memories = self._memorize(state, frame, filled, raw.low_res, np.zeros(len(tracks), np.bool_))
        selection = self._description.selection
        for row, (track, memory) in enumerate(zip(tracks, memories, strict=True)):
            one = slice(row, row + 1)
            track.results[frame] = Predictions(*(x[one] for x in vars(filled).values()))
            # Frames before an object's first prompt leave no memory.
            if any(m.frame <= frame for m in track.conditioning):
                span = selection.global_window + selection.local_window
                track.tracked = [*track.tracked, memory][-span:] if span else []

    def _no_prompts(self, batch: int) -> DecoderPrompts:
        side, rules = self._description.sizes.image_size // 4, self._description.prompts
        return DecoderPrompts(
            points=np.zeros((batch, 1, 2), np.float32),
            labels=np.full((batch, 1), PADDING, np.int64),
            prior=np.zeros((batch, 1, side, side), np.float32),
            has_prior=np.zeros(batch, np.bool_),
            multimask=np.full(batch, rules.multimask and rules.multimask_min_points <= 0),
        )

    def _memorize(
        self, state: OnnxSession, frame: int, predictions: Predictions, masks: Floats, from_prompt: Bools
    ) -> list[Memory]:
        features = state.encoder.features(frame)
        memories, foreground = self.network.memorize(features, predictions, masks, from_prompt)
        rows = zip(memories, foreground, predictions.pointer, strict=True)
        return [Memory(frame, *row, features.embedding) for row in rows]

    def _masks(self, state: OnnxSession, frame: int) -> FrameMasks:
        """Masks of all objects on a frame at video size."""
        side, size = self._description.sizes.image_size // 4, (state.video_height, state.video_width)
        absent = np.full((1, 1, side, side), NO_OBJECT_LOGIT, np.float32)
        results = [track.result(frame) for track in state.tracks.values()]
        low_res = np.concatenate([absent if r is None else r.low_res for r in results] or [absent[:0]])
        masks = resize(low_res, size)
        return frame, state.obj_ids, suppress_overlap(masks) if self._description.prompts.non_overlap else masks


def _check_frame(state: OnnxSession, frame_idx: int) -> int:
    return check_frame(frame_idx, state.source, state.num_frames)
