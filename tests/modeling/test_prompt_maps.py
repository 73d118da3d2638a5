"""What i2v-nano adds to the published model: prompts drawn as maps, high-res features in the mask decoder."""

from __future__ import annotations

import pytest
import torch

from i2v.build_i2v import build_i2v, build_i2v_video_predictor
from i2v.modeling.sam.mask_decoder import MaskDecoder
from i2v.modeling.sam.prompt_encoder import PromptEncoder, draw_point_maps
from i2v.modeling.sam.transformer import TwoWayTransformer
from i2v.modeling.structures import FrameFeatures, Prompt

TINY = ["model.image_size=64"]


def test_points_are_gaussians_and_a_box_covers_its_cells() -> None:
    clicks = [[0.3125, 0.5625], [0.8125, 0.0625], [0.0, 0.0]]
    corners = [[0.25, 0.125], [0.6875, 1.0], [0.0, 0.0]]
    points, labels = torch.tensor([clicks, corners]), torch.tensor([[1, 0, -1], [2, 3, -1]])

    click, box = draw_point_maps(points, labels, side=8)

    assert click[0].argmax() == 4 * 8 + 2 and click[0].max() == 1.0  # 2.5 and 4.5 cells: the centre of one
    assert click[1].argmax() == 0 * 8 + 6 and click[1].max() == 1.0
    assert not click[2].any() and not box[:2].any(), "no box, no clicks; padding is neither"
    expected = torch.zeros(8, 8)
    expected[1:, 2:5], expected[1:, 5] = 1.0, 0.5  # from 2 to 5.5 cells
    torch.testing.assert_close(box[2], expected)


def test_new_maps_change_nothing_until_they_are_trained() -> None:
    torch.manual_seed(0)
    encoder = PromptEncoder(image_size=64, grid=4, embed_dim=16, point_maps=True)
    prompt = Prompt.box(torch.tensor([[8.0, 8.0, 40.0, 30.0]]))
    _, dense = encoder(prompt, 1)
    torch.testing.assert_close(dense, encoder.no_mask_embed.weight[:, :, None, None].expand(1, -1, 4, 4))

    torch.nn.init.ones_(encoder.point_map_downscaling[-1].weight)
    _, trained = encoder(prompt, 1)
    _, without = encoder(None, 1)
    assert not torch.allclose(trained, dense) and torch.equal(without, dense.detach())


def test_high_res_features_are_added_to_the_upscaled_map() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(TwoWayTransformer(1, 32, 2, 32), dim=32, iou_head_hidden_dim=8, high_res_dims=(3, 5)).eval()
    image, sparse, dense = torch.randn(1, 32, 4, 4), torch.randn(2, 3, 32), torch.zeros(2, 32, 4, 4)
    high_res = torch.randn(1, 3, 16, 16), torch.randn(1, 5, 8, 8)
    before = decoder(image, torch.zeros(1, 32, 4, 4), sparse, dense, high_res).logits
    for projection in decoder.high_res_projections:
        torch.nn.init.normal_(projection.weight)
    after = decoder(image, torch.zeros(1, 32, 4, 4), sparse, dense, high_res).logits

    plain = MaskDecoder(TwoWayTransformer(1, 32, 2, 32), dim=32, iou_head_hidden_dim=8).eval()
    plain.load_state_dict(decoder.state_dict(), strict=False)
    torch.testing.assert_close(before, plain(image, torch.zeros(1, 32, 4, 4), sparse, dense).logits)
    assert not torch.allclose(before, after)
    with pytest.raises(ValueError):
        decoder(image, torch.zeros(1, 32, 4, 4), sparse, dense)
    with pytest.raises(ValueError, match="high_res_dims: expected channels at strides 4 and 8"):
        MaskDecoder(TwoWayTransformer(1, 32, 2, 32), dim=32, high_res_dims=(3,))


def test_features_of_a_batch_are_split_with_their_high_res_maps() -> None:
    features = FrameFeatures(torch.randn(3, 4, 2, 2), torch.zeros(1, 4, 2, 2), (torch.randn(3, 2, 8, 8),))
    second = features.split()[1]
    assert torch.equal(second.vision, features.vision[1:2]) and torch.equal(
        second.high_res[0], features.high_res[0][1:2]
    )
    rows = features.rows(torch.tensor([2, 0]))
    assert torch.equal(rows.high_res[0], features.high_res[0][[2, 0]])


def test_frames_encoded_together_are_tracked_as_one_by_one() -> None:
    # Maps at strides 4 and 8 go with each frame through the cache, and are shared by all objects of a frame.
    model = build_i2v("i2v-nano-infer", None, device="cpu", hydra_overrides_extra=TINY)
    torch.manual_seed(1)
    for module in (model.sam_mask_decoder.high_res_projections[0], model.sam_prompt_encoder.point_map_downscaling[-1]):
        torch.nn.init.normal_(module.weight)
    frames = torch.randint(0, 256, (6, 48, 64, 3), dtype=torch.uint8).numpy()
    found = []
    for at_once in (1, 4):
        overrides = [*TINY, f"predictor.frames_at_once={at_once}"]
        predictor = build_i2v_video_predictor("i2v-nano-infer", None, device="cpu", hydra_overrides_extra=overrides)
        predictor.model.load_state_dict(model.state_dict())
        with predictor.init_state(frames) as state:
            predictor.add_new_points_or_box(state, 0, 1, box=[5, 5, 40, 30])
            predictor.add_new_points_or_box(state, 0, 2, points=[[50, 20]], labels=[1])
            found.append(torch.stack([logits for _, _, logits in predictor.propagate_in_video(state)]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
    assert found[0].shape == (6, 2, 1, 48, 64)
