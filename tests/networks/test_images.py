"""Networks of images against PyTorch's own layers, and where an image's channels are."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from awr_exp.data.episodes import from_episodes
from awr_exp.errors import UserError
from awr_exp.layout import Entry
from awr_exp.networks.augmentation import RandomShift
from awr_exp.networks.convolutions import CNN, Impala
from awr_exp.networks.frames import frame_of
from awr_exp.networks.images import Images
from awr_exp.networks.mlp import MLP, of_task, unflatten
from awr_exp.types import Spec
from tests.conftest import make_awr


def entry(*shape: int, name: str = "camera", dtype: str = "uint8") -> Entry:
    return Entry((name,), shape, dtype=dtype)


def spec_of(*entries: Entry) -> Spec:
    return Spec(sum(one.width for one in entries), num_actions=2, observation=entries)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_a_member_of_a_cnn_is_layers_of_pytorch() -> None:
    network = CNN(frame_of(entry(40, 44, 3)), outputs=5)
    theta = network.start(generators(2)).double()
    images = torch.randn(2, 6, 3, 40, 44, dtype=torch.float64)
    found = network(theta, images)
    for member in range(2):
        plain = nn.Sequential(
            nn.Conv2d(3, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 1 * 1, 5),
        ).double()  # fmt: skip
        own = [parameter[member].squeeze(0) for parameter in unflatten(theta, network.shapes).values()]
        for parameter, value in zip(plain.parameters(), own, strict=True):
            parameter.data = value.T if value.dim() == 2 else value
        assert_close(found[member], plain(images[member]))


def test_a_member_of_an_impala_network_is_what_its_paper_says() -> None:
    """Espeholt et al. 2018, figure 3: written out for one section of one block."""
    network = Impala(frame_of(entry(9, 12)), outputs=3, widths=[4], blocks=1)
    theta = network.start(generators(1)).double()
    image = torch.randn(2, 1, 9, 12, dtype=torch.float64)
    part = {name: value[0] for name, value in unflatten(theta, network.shapes).items()}

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, part[f"{name}.weight"], part[f"{name}.bias"][0], padding=1)

    x = nn.functional.max_pool2d(conv("0", image), 3, stride=2, padding=1)
    assert x.shape == (2, 4, 5, 6)
    x = torch.relu(x + conv("0.0.two", torch.relu(conv("0.0.one", torch.relu(x)))))
    assert_close(network(theta, image.unsqueeze(0))[0], x.flatten(1) @ part["out.weight"] + part["out.bias"])


@pytest.mark.parametrize(
    ("shape", "channels", "wanted"),
    [
        ((30, 20), "auto", (1, 30, 20)),
        ((30, 20, 3), "auto", (3, 30, 20)),
        ((4, 30, 20), "auto", (4, 30, 20)),
        ((4, 30, 20, 3), "auto", (12, 30, 20)),
        ((4, 3, 30, 20), "auto", (12, 30, 20)),
        ((2, 4, 30, 20, 3), "auto", (24, 30, 20)),
        ((7, 7, 3), "auto", (3, 7, 7)),
        ((7, 8, 9), "last", (9, 7, 8)),
        ((7, 8, 9), "first", (7, 8, 9)),
    ],
)
def test_pixels_lie_where_they_should(shape: tuple[int, ...], channels: Any, wanted: tuple[int, int, int]) -> None:
    frame = frame_of(entry(*shape), channels)
    assert (frame.channels, frame.height, frame.width) == wanted
    images = np.arange(np.prod(shape)).reshape(shape)
    pixels = frame.pixels(torch.as_tensor(images.reshape(1, 1, -1)))
    assert pixels.shape == (1, 1, *wanted)
    moved = images[None] if images.ndim == 2 else np.moveaxis(images, -1, -3) if frame.last else images
    np.testing.assert_array_equal(pixels[0, 0], moved.reshape(wanted))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: frame_of(entry(7, 8, 9)),
            r"^camera has the shape \[7, 8, 9\], with 7 and 9 on the first and the last axis of an image, and both "
            r"could be a number of channels, 1 to 12: set network\.channels to first or last",
        ),
        (lambda: frame_of(entry(20, 20, 20)), "neither is a number of channels"),
        (
            lambda: CNN(frame_of(entry(20, 20)), 4),
            "leave nothing of an image of 20 x 20: choose smaller ones, or network=impala",
        ),
        (lambda: CNN(frame_of(entry(84, 84)), 4, filters=[8]), "1 filters, 3 kernels and 3 strides"),
        (
            lambda: RandomShift(spec_of(entry(3))),
            "this task shows none: an image has uint8 on two .* use augmentation=none",
        ),
        (
            lambda: of_task(partial(Images, encoder=CNN, trunk=MLP), Spec(17, 3))(inputs=17, outputs=1),
            "nothing to look at in 17 numbers: an image has uint8 on two .* choose network=mlp",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_refused(make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


def test_what_is_no_image_passes_the_encoders_by() -> None:
    spec = spec_of(entry(3, name="arm", dtype="float32"), entry(9, 9), entry(9, 9, 2, name="wrist"))
    encoder = partial(CNN, filters=[2], kernels=[3], strides=[2])
    network = of_task(partial(Images, encoder=encoder, trunk=partial(MLP, hidden=(4,)), features=5), spec)(
        inputs=spec.obs_dim, outputs=2, extra=1
    )
    theta, x = network.start(generators(2)), torch.randn(2, 3, spec.obs_dim + 1)
    arm, camera, wrist, extra = x.split([3, 81, 162, 1], -1)
    first, second, trunk = theta.split(network.sizes, 1)
    seen = [
        torch.relu(network.encoders[0](first, camera.unflatten(-1, (1, 9, 9)))),
        torch.relu(network.encoders[1](second, wrist.unflatten(-1, (9, 9, 2)).movedim(-1, -3))),
    ]
    assert_close(network(theta, x), network.trunk(trunk, torch.cat([*seen, arm, extra], -1)))
    assert sum(np.prod(shape) for shape in network.shapes.values()) == theta.shape[1]


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3), (3, 8, 9), (2, 8, 9, 3)])
def test_images_are_moved_alike_and_their_edges_repeated(shape: tuple[int, ...]) -> None:
    spec = spec_of(entry(*shape), entry(2, name="arm"))
    shift = RandomShift(spec, pixels=2)
    g = torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (2, 200, spec.obs_dim), generator=g, dtype=torch.uint8)
    noise = torch.randn(2, 200, shift.noise, generator=g)
    moved = shift(obs, noise)
    assert moved.dtype == torch.uint8
    assert torch.equal(moved[..., -2:], obs[..., -2:])
    frame = frame_of(spec.entries[0])
    before, after = (frame.pixels(each[..., :-2]) for each in (obs, moved))
    padded = nn.functional.pad(before.flatten(0, 1).float(), (2, 2, 2, 2), mode="replicate").unflatten(0, (2, 200))
    found = {}
    for row in range(200):
        places = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(padded[0, row, :, y : y + 8, x : x + 9], after[0, row].float())
        ]
        assert len(places) == 1
        found[places[0]] = found.get(places[0], 0) + 1
    # Each of the 25 moves is as likely as the others: 8 times in 200.
    assert len(found) == 25
    assert max(found.values()) < 25
    assert torch.equal(shift(obs, torch.zeros_like(noise)), obs)


@pytest.mark.parametrize("shift", [False, True])
def test_the_best_action_is_seen_in_an_image(shift: bool) -> None:
    """The brighter half of an image is the action that is rewarded, wherever noise and moves hide the border."""
    spec, rng = spec_of(entry(12, 12, 3)), np.random.default_rng(0)

    def shown(side: int) -> np.ndarray:
        image = rng.integers(0, 120, (12, 12, 3))
        image[:, 6 * side : 6 * side + 6] += 100
        return image.astype(np.uint8)

    episodes = []
    for _ in range(400):
        side, action = rng.integers(2, size=2)
        seen = spec.flatten({"camera": np.stack([shown(side), shown(side)])})
        episodes.append({"observations": seen, "actions": [action], "rewards": [action == side], "terminated": True})
    data = from_episodes("sides", spec, episodes)
    encoder = partial(CNN, filters=[4], kernels=[4], strides=[2])
    network = partial(Images, encoder=encoder, trunk=partial(MLP, hidden=(16,)), features=16)
    moves = {"augmentation": partial(RandomShift, pixels=2)} if shift else {}
    agent = make_awr(spec, seeds=[0, 1], network=network, dtype=torch.float32, actor_lr=1e-2, beta=0.1, **moves)
    agent.fit_normalizer(*data.obs_statistics())
    g = torch.Generator().manual_seed(0)
    for _ in range(80):
        rows = torch.randint(len(data), (2, 64), generator=g)
        agent.update(replace(data.sample(rows), noise=torch.randn(2, 64, agent.noise_size, generator=g)))
    side = torch.arange(2).repeat(20)
    unseen = torch.as_tensor(np.stack([shown(int(one)).reshape(-1) for one in side]))
    assert torch.equal(agent.act(unseen.expand(2, -1, -1)), side.expand(2, -1))


@pytest.mark.parametrize("network", [{}, 3, dict])
def test_what_makes_no_network_is_left_to_its_contract(network: Any) -> None:
    assert of_task(network, spec_of(entry(9, 9))) is network
