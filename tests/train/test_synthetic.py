"""Rendered clips: masks are exact, what is announced happens, and everything comes out of the generator."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from data_support import write_jpegs, write_mp4
from torch import Tensor

from train.dataset.synthetic import SyntheticRawDataset, SyntheticVideo
from train.dataset.synthetic_builder import SceneSettings
from train.dataset.synthetic_footage import Footage, find_footage
from train.dataset.synthetic_scene import Backdrop, Layer, Look, Scene, affine, render, smooth_path
from train.dataset.vos_dataset import VOSDataset
from train.dataset.vos_sampler import RandomUniformSampler

EVENTS = ["lookalike", "exit", "cut", "limbs", "bend", "occluder", "camera", "motion_blur", "defocus", "noise", "jpeg"]
PLAIN = SceneSettings(max_objects=1, **dict.fromkeys(EVENTS, 0.0))  # one object, and nothing special happens


def layer(label: int | None, centres: list[tuple[float, float]], level: float, side: float = 0.25) -> Layer:
    """A square of one brightness."""
    count = len(centres)
    return Layer(
        texture=torch.full((3, 2, 2), float(level)),
        alpha=torch.ones(64, 64),
        poses=affine(np.array(centres, float), np.zeros(count), np.full((count, 2), side)),
        shown=np.ones(count, bool),
        label=label,
        roll=np.zeros((count, 2)),
        wave=(0.0, 0.0),
        phases=np.zeros(count),
    )


def scene(*layers: Layer, cameras: np.ndarray | None = None) -> Scene:
    """Squares before black, in plain light."""
    count = len(layers[0].poses)
    still = affine(np.zeros((count, 2)), np.zeros(count), np.ones((count, 2)))
    look = Look(np.ones((count, 3)), np.zeros((count, 2)), False, np.zeros(count), None, None)
    return Scene(Backdrop((torch.zeros(3, 8, 8),), 1.25), layers, still if cameras is None else cameras, look)


def corner(mask: Tensor) -> tuple[int, int, int]:
    """Left, top and number of pixels."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return int(columns.min()), int(rows.min()), int(mask.sum())


def rendered(settings: SceneSettings, seed: int, num_frames: int = 8, size: int = 48) -> SyntheticVideo:
    return SyntheticRawDataset(4, num_frames, size, settings).open(0, np.random.default_rng(seed))


def areas(video: SyntheticVideo, number: int = 1) -> list[int]:
    return [int(video.load(frame, [number], 48).masks.sum()) for frame in video.frames]


def test_masks_are_the_pixels_an_object_covers() -> None:
    moving = scene(layer(3, [(0, 0), (0.5, -0.25)], 200))
    for t, place in ((0, (24, 24)), (1, (40, 16))):
        image, labels = render(moving, t, 64)
        assert (image.dtype, image.shape, labels.shape) == (torch.uint8, (3, 64, 64), (64, 64))
        assert corner(labels == 3) == (*place, 256)
        assert torch.equal(image[0] > 100, labels == 3)


def test_layers_hide_those_behind_them_and_scenery_and_shadows_have_no_label() -> None:
    back, front = layer(1, [(0, 0)], 200), layer(2, [(0.25, 0)], 100)
    _, labels = render(scene(back, front), 0, 64)
    assert (corner(labels == 1), corner(labels == 2)) == ((24, 24, 128), (32, 24, 256))
    _, labels = render(scene(back, dataclasses.replace(front, label=0)), 0, 64)
    assert labels.unique().tolist() == [0, 1] and (labels == 1).sum() == 128
    image, labels = render(scene(back, dataclasses.replace(front, label=None)), 0, 64)
    assert (labels == 1).sum() == 256 and (image[0] == 200).sum() == 128


def test_objects_leave_the_picture_and_disappear() -> None:
    out = layer(1, [(0, 0), (1.0, 0), (3.0, 0)], 200)
    assert [int((render(scene(out), t, 64)[1] == 1).sum()) for t in range(3)] == [256, 128, 0]
    gone = dataclasses.replace(layer(1, [(0, 0)] * 3, 200), shown=np.array([True, False, True]))
    assert [int((render(scene(gone), t, 64)[1] == 1).sum()) for t in range(3)] == [256, 0, 256]


def test_the_camera_moves_everything() -> None:
    cameras = affine(np.array([[0.5, 0]]), np.zeros(1), np.full((1, 2), 2.0))
    moved = scene(layer(1, [(0, 0)], 200), cameras=cameras)
    picture = torch.zeros(3, 64, 64)
    picture[:, :, 40:] = 90  # starts at a quarter of 1.25 half screens, 0.3125
    image, labels = render(dataclasses.replace(moved, backdrop=Backdrop((picture,), 1.25)), 0, 64)
    assert corner(labels == 1) == (32, 16, 32 * 32)
    # The object covers up to 0.25 on the screen's right half; the edge shows at 2 * 0.3125 + 0.5 = 1.125: outside.
    assert image[0, 0].max() == 0
    still = dataclasses.replace(moved, cameras=affine(np.zeros((1, 2)), np.zeros(1), np.ones((1, 2))))
    image, _ = render(dataclasses.replace(still, backdrop=Backdrop((picture,), 1.25)), 0, 64)
    assert int((image[0, 0] > 45).nonzero()[0]) == 42


def test_bending_and_rolling_change_shape_and_texture() -> None:
    plain = layer(1, [(0, 0)], 200, 0.5)
    bent = dataclasses.replace(plain, wave=(0.2, 1.0), phases=np.array([1.0]))
    straight, wavy = (render(scene(item), 0, 64)[1] == 1 for item in (plain, bent))
    assert (straight ^ wavy).sum() > 50 and wavy.sum() > 700
    halves = torch.zeros(3, 64, 64)
    halves[:, :, 32:] = 200
    rolls = [np.zeros((1, 2)), np.array([[0.5, 0.0]])]
    rolled = [render(scene(dataclasses.replace(plain, texture=halves, roll=roll)), 0, 64)[0] for roll in rolls]
    assert [int((image[0] > 100).sum()) for image in rolled] == [512, 768]


def test_light_and_lens() -> None:
    plain = scene(layer(1, [(0, 0), (0.4, 0)], 100))
    look = plain.look

    def shown(**changes: object) -> Tensor:
        changed = dataclasses.replace(plain, look=dataclasses.replace(look, **changes))
        image, labels = render(changed, 0, 64)
        assert corner(labels == 1) == (24, 24, 256)
        return image

    base = shown()
    assert shown(gains=np.array([[1.5, 1.0, 0.5]] * 2))[:, 32, 32].tolist() == [150, 100, 50]
    slope = shown(slopes=np.array([[0.5, 0.0]] * 2))[0, 32]
    assert slope[39] > slope[32] > slope[24]
    assert len(shown(defocus=np.full(2, 2.0)).unique()) > len(base.unique())
    assert len(shown(noise=torch.randn(3, 72, 72) * 5).unique()) > len(base.unique())
    assert not torch.equal(shown(jpeg_quality=30), base)
    assert 0 < shown(motion_blur=True)[0, 32, 40] < 100


def test_smooth_paths_begin_at_rest_and_stay_within_their_amplitude() -> None:
    path = smooth_path(np.random.default_rng(0), 200, 10, 0.5, 2)
    assert path.shape == (200, 2) and (path[0] == 0).all()
    assert 0.3 < np.abs(path).max() <= 1.0
    assert np.abs(np.diff(path, axis=0)).max() < 0.2
    assert smooth_path(np.random.default_rng(0), 1, 10, 0.5).tolist() == [[0.0]]


def test_clips_come_out_of_the_generator_alone() -> None:
    settings = SceneSettings(noise=1, jpeg=1, defocus=1, motion_blur=1)

    def clip(seed: int) -> bytes:
        video = rendered(settings, seed, num_frames=2)
        frames = [video.load(frame, [1], 48) for frame in video.frames]
        return b"".join(found.image.numpy().tobytes() + found.masks.numpy().tobytes() for found in frames)

    torch.manual_seed(0)
    first = clip(3)
    torch.manual_seed(1)
    assert clip(3) == first and clip(4) != first


def test_frames_do_not_depend_on_the_order_in_which_they_are_asked_for() -> None:
    forward, backward = rendered(SceneSettings(), 5), rendered(SceneSettings(), 5)
    images = [forward.load(frame, [1], 48).image for frame in forward.frames]
    assert all(torch.equal(backward.load(frame, [1], 48).image, images[frame]) for frame in range(7, -1, -1))


def test_visible_objects_show_enough_of_themselves_on_the_first_frame_and_the_last() -> None:
    settings = SceneSettings(min_area=0.02, exit=0.5, cut=0.5)
    for seed in range(12):
        video = rendered(settings, seed)
        for frame in (0, 7):
            visible = video.visible(frame)
            assert visible
            masks = video.load(frame, visible, 48).masks
            assert int(masks.flatten(1).sum(1).min()) >= 0.02 * 48 * 48
            assert int(masks.sum(0).max()) == 1  # no pixel belongs to two


def test_there_are_as_many_objects_as_the_settings_allow() -> None:
    single = [rendered(PLAIN, seed).visible(0) for seed in range(10)]
    assert single == [[1]] * 10
    alike = dataclasses.replace(PLAIN, lookalike=1.0)
    counts = [len(rendered(alike, seed).visible(0)) for seed in range(10)]
    assert max(counts) == 2


@pytest.mark.parametrize("change", ["exit", "cut"])
def test_objects_go_and_come_back(change: str) -> None:
    calm = [min(areas(rendered(PLAIN, seed))) for seed in range(8)]
    away = [areas(rendered(dataclasses.replace(PLAIN, **{change: 1.0}), seed)) for seed in range(8)]
    assert min(calm) > 0
    assert sum(0 in area and area[0] > 0 and area[-1] > 0 for area in away) >= 4


def test_objects_of_several_parts_and_things_in_front() -> None:
    limbs = [sum(areas(rendered(dataclasses.replace(PLAIN, limbs=1.0), seed, 1))) for seed in range(12)]
    plain = [sum(areas(rendered(PLAIN, seed, 1))) for seed in range(12)]
    assert sum(limbs) > sum(plain)
    hidden = dataclasses.replace(PLAIN, occluder=1.0)
    assert sum(sum(areas(rendered(hidden, seed, 1))) for seed in range(12)) < sum(plain)


def test_longer_clips_and_single_images() -> None:
    assert len(areas(rendered(SceneSettings(), 0, num_frames=1))) == 1
    long = rendered(PLAIN, 0, num_frames=40)
    assert not torch.equal(long.load(0, [1], 48).masks, long.load(39, [1], 48).masks)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_scenes_play_before_real_videos(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("video" if kind == "folder" else "video.mp4")
    if kind == "folder":
        write_jpegs(path, range(40))
    else:
        write_mp4(path, 40)
    pictures = Footage((path,), 1.0).pictures(np.random.default_rng(0), 4, 24)
    # Red tells the frame, four levels each; frames follow at a distance of four.
    levels = [float(picture[0].median()) / 4 for picture in pictures]
    assert {picture.shape for picture in pictures} == {(3, 24, 24)}
    assert np.diff(levels) == pytest.approx([4, 4, 4], abs=1)
    dataset = SyntheticRawDataset(2, 4, 48, PLAIN, [path], background_prob=1.0)
    video = dataset.open(0, np.random.default_rng(1))
    found = video.load(0, [1], 48)
    assert found.image[2][~found.masks[0]].float().median() == pytest.approx(60, abs=25)  # blue of the background
    # A video shorter than the clip stays at its end.
    short = Footage((path,), 1.0).pictures(np.random.default_rng(0), 45, 24)
    assert torch.equal(short[44], short[40]) and len(short) == 45


def test_a_missing_background_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        SyntheticRawDataset(2, 4, 48, PLAIN, [tmp_path / "gone.mp4"])
    with pytest.raises(ValueError, match="neither images nor videos in this folder"):
        SyntheticRawDataset(2, 4, 48, PLAIN, [tmp_path])
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    dataset = SyntheticRawDataset(2, 4, 48, PLAIN, [tmp_path], background_prob=1.0)
    with pytest.raises(ValueError, match=r"bad\.mp4"):
        dataset.open(0, np.random.default_rng(0))


def test_a_folder_of_videos_stands_for_all_of_them(tmp_path: Path) -> None:
    write_jpegs(tmp_path / "a", [0])
    write_mp4(tmp_path / "b.mp4", 2)
    (tmp_path / "notes.txt").touch()
    both = (tmp_path / "a", tmp_path / "b.mp4")
    assert find_footage([tmp_path]) == find_footage(both) == both


def test_settings_that_give_nothing() -> None:
    with pytest.raises(ValueError, match="got 1, 0 and 48"):
        SyntheticRawDataset(1, 0, 48)
    with pytest.raises(ValueError, match="synthetic 0: no object in view in 20 scenes"):
        rendered(dataclasses.replace(PLAIN, min_area=1.1), 0, 1)


def test_rendered_videos_make_clips_like_any_other() -> None:
    videos = SyntheticRawDataset(3, 4, 32, SceneSettings())
    dataset = VOSDataset(videos, RandomUniformSampler(4, 2, 0.5), resolution=32)
    clip = dataset.clip(2, np.random.default_rng(0))
    assert clip.frames.shape == (4, 3, 32, 32) and clip.masks.shape[2:] == (32, 32)
    assert clip.name == "synthetic 2" and clip.masks[0].flatten(1).any(1).all()
    assert sorted(clip.frame_indices) == [0, 1, 2, 3]
    assert len(dataset) == 3
