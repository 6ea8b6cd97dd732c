"""Backbones, dense head and costs of the detector; one training step of every head."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

import head_numpy
import train_detector
from box_data import sample, write_coco

from asag_generator import MICRO
from asag_loss import Targets
from boxes import to_corners
from dense import assign
from detector import HEADS, SIDE, Detector, imitation
from detector_cost import cost, generator_cost, relation_cost, stage_cost
from pyramid import ALONE, STITCHED, Config, Family, twice
from train_detector import rate, settle, shares

TARGETS = [
    Targets(torch.tensor([(30.0, 30, 10, 12), (80, 80, 60, 60)]), torch.tensor([2, 0])),
    Targets(torch.tensor([(120.0, 100, 30, 30)]), torch.tensor([1])),
]


def images(count: int = 2):
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_maps_have_the_same_shapes_in_every_config():
    net = Detector("dense", configs=ALONE + STITCHED).eval()
    for config in net.configs:
        with torch.no_grad():
            maps = net.maps([(config, images(1))])
        assert {stride: tuple(map_.shape) for stride, map_ in maps.items()} == {
            stride: (1, 64, SIDE // stride, SIDE // stride) for stride in (8, 16, 32)
        }


def test_an_identity_stitch_changes_nothing():
    config = Config("large", "small", 1, 0)
    family = Family(ALONE + (config,)).eval()
    stitch = family.stitches["large-1_0-small"]
    # Let both anchors be the small one, then cross over behind the first block of stage 1.
    family.anchors["large"] = family.anchors["small"]
    stitch.weight = torch.nn.Parameter(torch.eye(24)[:, :, None, None])
    stitch.bias = torch.nn.Parameter(torch.zeros(24))
    with torch.no_grad():
        alone, crossed = family(images(1), ALONE[0]), family(images(1), config)
    assert [name for name, _ in crossed] == ["small"] * 3
    for (_, a), (_, b) in zip(alone, crossed):
        torch.testing.assert_close(a, b)


def test_twice_repeats_values():
    assert twice(torch.tensor([[[[1.0, 2]]]])).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


def test_cells_are_assigned_to_the_box_that_they_fit():
    truth = torch.tensor([(10.0, 10, 50, 50), (60, 60, 64, 64)])
    centres = torch.tensor([(20.0, 20), (30, 30), (70, 70), (100, 100), (66, 66)])
    corners = torch.cat((centres - 20, centres + 20), 1)
    index, target = assign(torch.zeros(5, 3), corners, centres, truth, torch.tensor([0, 1]))
    # The small box holds no centre: the cells nearest to its middle answer for it.
    assert index.tolist() == [0, 0, -1, -1, 1]
    assert target[1] == 1 and 0 < target[0] < 0.1 and 0 < target[4] < 0.02


def test_costs_of_the_published_small_variant():
    head = Detector("asag", MICRO).head
    assert generator_cost(head, {8: 20, 16: 10}, 4) == 435_200 + 14_400 + 235_520 + 631_808 + 180_736
    assert relation_cost(head, 20, False) == 1_392_640 + 378_880 + 327_680 + 168_960
    stage = 378_880 + 215_040 + 2_949_120 + 491_520 + 1_310_720 + 327_680 + 85_760 + 168_960
    assert stage_cost(head, 20) == stage


def test_probing_and_queries_cost():
    net = Detector("asag").eval()
    worst, parameters = cost(net, ALONE[0])
    few, same = cost(net, ALONE[0], 4, 0)
    assert few < worst and same == parameters
    assert cost(Detector("asag-no-probing").eval(), ALONE[0])[1] < parameters
    assert cost(Detector("dense").eval(), ALONE[1])[1] > cost(Detector("dense").eval(), ALONE[0])[1]


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_learns_two_pictures(kind):
    torch.manual_seed(1)
    net = Detector(kind)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    losses = []
    for step in range(12):
        net.train()
        loss, _ = net.loss(list(zip(ALONE, images().chunk(2))), TARGETS, np.random.default_rng(step), step < 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3]), losses
    found = net.eval().find(images(), ALONE[0])
    assert len(found) == 2
    for one in found:
        scores = one.detections.scores
        assert (scores[:-1] >= scores[1:]).all()
        assert torch.isfinite(to_corners(one.detections.boxes)).all()


def test_stitched_configs_see_the_pictures_of_the_large_anchor():
    net = Detector("dense", configs=ALONE + STITCHED)
    pictures, random = images(8), np.random.default_rng(1)
    for settled, refine, count in ((False, False, 1), (True, False, 4), (True, True, 2)):
        net.settled = settled
        shared, targets, same = shares(net, pictures, list(range(8)), random, refine)
        assert [config.name for config, _ in shared[:2]] == ["small", "large"]
        assert len({config.name for config, _ in shared[2:]} & {config.name for config in STITCHED}) == count
        assert targets == [*range(8), *same] and same == [4, 5, 6, 7] * (2 if refine else 1)
        assert torch.equal(torch.cat([part for _, part in shared]), pictures[targets])
    assert len(shares(Detector("dense"), pictures, list(range(8)), random)[0]) == 2


def test_maps_imitate_those_of_the_same_pictures():
    level = torch.randn(6, 2, 3, 3)
    level[2:] = level[[1, 0, 1, 0]]
    assert imitation({8: level}, [1, 0, 1, 0]) == 0
    level[2:] += 0.5
    torch.testing.assert_close(imitation({8: level}, [1, 0, 1, 0]), 0.25 / level[[1, 0, 1, 0]].var())


def test_settled_norms_keep_what_was_averaged():
    net, average = Detector("dense"), Detector("dense")
    for norm in average.norms():
        torch.nn.init.uniform_(norm.running_mean, -0.1, 0.1)
    weight = net.norms()[0].weight.detach().clone().fill_(3)
    net.norms()[0].weight.data = weight
    settle(net, average)
    net.train()
    shared = list(zip(ALONE, images().chunk(2)))
    net.loss(shared, TARGETS, np.random.default_rng(1), True)[0].backward()
    for norm, averaged in zip(net.norms(), average.norms()):
        assert torch.equal(norm.running_mean, averaged.running_mean)
    assert torch.equal(net.norms()[0].weight, weight) and net.norms()[0].weight.grad.abs().sum() > 0


def drawn(folder):
    """Four pictures with a dark box each, as a data set of one class."""
    samples = []
    for number in range(4):
        pixels = np.full((80, 80, 3), 200, np.uint8)
        pixels[20:40, 10 * number : 10 * number + 30] = 20
        Image.fromarray(pixels).save(folder / f"{number}.png")
        box = [(10 * number, 20, 10 * number + 30, 40)]
        samples.append(sample(folder / f"{number}.png", (80, 80), box, [0]))
    for split in ("train", "val", "test"):
        write_coco(folder / f"{split}.json", ["box"], samples)


@pytest.mark.parametrize("failing_call, refines", [(3, False), (5, False), (5, True)])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch, failing_call, refines):
    drawn(tmp_path)
    monkeypatch.setattr(train_detector, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(train_detector, "EVERY", 1)
    row = dict(head="asag", epochs=3, batch=2, lr=1e-3, weight_decay=0.05, clip=5.0, average=0.9, untrusted=0.3)
    row |= dict(stitched=True, settled=0.5, refine=None, upright=True, device="cpu", seed=1, data=tmp_path, command="train", export=None)
    if refines:  # norms are settled from the first step on
        train_detector.train(Namespace(**row, run="start"))
        row |= dict(refine="start", seed=2)
    train_detector.train(Namespace(**row, run="straight"))
    step, calls = Detector.loss, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == failing_call:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "loss", failing)
        with pytest.raises(KeyboardInterrupt):
            train_detector.train(Namespace(**row, run="broken"))
    row["export"] = tmp_path / "family"
    train_detector.train(Namespace(**row, run="broken"))
    straight, broken = (train_detector.load(run)[0].state_dict() for run in ("straight", "broken"))
    assert all(torch.equal(straight[name], broken[name]) for name in straight)
    train_detector.table(Namespace())
    assert "float_ap50" in head_numpy.read(row["export"] / "head.safetensors")[1]


def test_the_rate_rises_then_falls():
    factors = [rate(step, 1000) for step in range(1000)]
    assert factors[0] < 0.02 and max(factors) > 0.95 and factors[-1] < 0.02
    assert np.argmax(factors) == 99
