from __future__ import annotations

import torch
from transformers import SiglipVisionModel

from storm_edge.export.network.vision import Projector, VisionEncoder, siglip_config
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import StormConfig


def test_the_tower_equals_hidden_state_minus_two_of_transformers_siglip(config: StormConfig) -> None:
    torch.manual_seed(0)
    theirs = SiglipVisionModel(siglip_config(config.vision)).eval()
    ours = VisionEncoder(config).eval()
    state = {n.replace("encoder.layers.", "blocks."): t for n, t in theirs.state_dict().items()}
    ours.load_state_dict({n: t for n, t in state.items() if n in ours.state_dict()}, strict=False)
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        pixels = frames.permute(0, 3, 1, 2).float() / 255  # mean and standard deviation are 0.5
        hidden = theirs((pixels - 0.5) / 0.5, output_hidden_states=True).hidden_states[-2]
        grid = hidden.reshape(2, 8, 8, -1)
        torch.testing.assert_close(ours(frames), ours.projector(grid), rtol=1e-4, atol=1e-5)


def test_the_projector_stacks_top_left_top_right_bottom_left_bottom_right(config: StormConfig) -> None:
    projector = Projector(config)
    features = torch.randn(1, 4, 4, config.vision.hidden_size)
    stacked = torch.cat([features[0, 0, 2], features[0, 0, 3], features[0, 1, 2], features[0, 1, 3]])
    torch.testing.assert_close(projector(features)[0, 1], projector.linear(stacked))


def test_an_odd_grid_is_padded_with_zeros_at_its_end() -> None:
    config = preset("storm-mini")
    vision = config.vision.model_copy(update={"image_size": 40})  # 5 x 5 patches
    config = config.model_copy(update={"vision": vision})
    projector = Projector(config)
    features = torch.randn(1, 5, 5, config.vision.hidden_size)
    tokens = projector(features)
    assert tokens.shape[1] == config.tokens_per_frame == 9
    corner = torch.cat([features[0, 4, 4], torch.zeros(3 * config.vision.hidden_size)])
    torch.testing.assert_close(tokens[0, 8], projector.linear(corner))
