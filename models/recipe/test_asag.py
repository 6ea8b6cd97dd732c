"""Golden values of the head, from an independent implementation with weights of a fixed formula; and its properties.

The numbers are float64 results; they hold to 1e-5 relative. `python -m pytest test_asag.py`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import asag_loss
from asag import AdaMixerStage, Asag, Attention, Mixing, Relation, SparseStage
from asag_generator import FULL, MICRO, Generator, logit
from boxes import TINY, from_state, iof, level_of, nms, position_code, roi_align, sample_3d
from boxes import to_centres, to_corners, to_state

BOXES = torch.tensor([[100, 80, 60, 40], [200, 120, 300, 200], [20, 30, 12, 18], [330, 200, 80, 90]]).double()
SIZE = (380, 250)
SHIFTS = {8: 1, 16: 1, 18: 1, 32: 1, 64: 2, 72: 2, 128: 3, 250: 3, 450: 3, 784: 4, 2048: 5}


def filler(shape, tag: int, shift: int = 0) -> torch.Tensor:
    count = int(np.prod(shape))
    mixed = (2654435761 * np.arange(1, count + 1, dtype=np.uint64) + np.uint64(40503 * tag)) % np.uint64(2**32)
    mixed ^= mixed >> np.uint64(15)
    values = ((mixed >> np.uint64(12)) & np.uint64(4095)).astype(np.int64) - 2048
    return torch.from_numpy(values / 2048 * 2.0**-shift).reshape(shape)


@torch.no_grad()
def fill(module, base: int):
    """Parameters in the order of their registration, tags from `base` on."""
    module.double().eval()
    for index, (name, parameter) in enumerate(module.named_parameters()):
        owner = module.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, torch.nn.LayerNorm) and name.endswith("weight"):
            value = 1 + filler(parameter.shape, base + index, 2)
        elif name.endswith("tau"):
            value = 1 + filler(parameter.shape, base + index, 1)
        elif isinstance(owner, (torch.nn.Linear, torch.nn.Conv2d)) and name.endswith("weight"):
            value = filler(parameter.shape, base + index, SHIFTS[parameter[0].numel()])
        else:
            value = filler(parameter.shape, base + index, 3)
        parameter.copy_(value)
    return module.requires_grad_(False)


def maps(channels: int, base: int) -> dict[int, torch.Tensor]:
    return {4 << level: filler((1, channels, 64 >> level, 96 >> level), base + level) for level in range(4)}


def close(found, expected):
    found = torch.as_tensor(found)
    torch.testing.assert_close(found, torch.as_tensor(expected).to(found), rtol=1e-5, atol=0)


SMALL = replace(
    FULL,
    channels=16,
    heads=2,
    hidden=32,
    classes=3,
    groups=2,
    points_in=4,
    points_out=8,
    compressed=2,
    generator_hidden=250,
)
CONTENT = filler((1, 4, 16), 70)
ALL = torch.ones(1, 4, dtype=torch.bool)


def test_filler():
    close(filler((8,), 1) * 2048, [-1134, -258, 619, 1511, -1699, -831, 69, 984])
    close(filler((4,), 7, 3) * 16384, [-1105, -205, 695, 1580])


def test_t1_position_code():
    code = position_code(to_state(BOXES), 16, 1000)
    first = [0.0249973959, 0.999687516, 0.00025, 0.99999997, 0.0199986667, 0.999800007, 0.0002, 0.99999998]
    first += [-0.455395759, -0.890289112, 0.0361362242, 0.999346873]
    first += [-0.288328886, 0.957531437, -0.0029248073, 0.999995723]
    close(code[0], first)
    close((code.sum(), code.abs().sum()), (26.735663229, 34.384577612))


def test_t2_states():
    rows = [(25, 20, 3.61440935, -0.292481147), (50, 30, 5.93633744, -0.292481143)]
    rows += [(5, 7.5, 1.87744376, 0.292481274), (82.5, 50, 4.4068906, 0.0849625612)]
    close(to_state(BOXES), rows)
    close(to_corners(from_state(to_state(BOXES)))[0] / 4, (17.5, 15, 32.5, 25))
    # The text prints box 1 in units of 4 pixels.
    close(to_corners(from_state(to_state(BOXES)))[1] / 4, (12.5000028, 4.99999814, 87.4999972, 55.0000019))


def test_t3_intersection_over_foreground():
    close(iof(to_corners(BOXES)), [(1, 1, 0, 0), (0.04, 1, 0, 0.065), (0, 0, 1, 0), (0, 0.541666667, 0, 1)])
    close(np.float64(np.log(TINY)), -16.1180957)


def sampled():
    offsets = filler((4, 24), 60).reshape(1, 4, 2, 4, 3)
    stage = AdaMixerStage(replace(SMALL, channels=16))
    stage.offsets.forward = lambda content: offsets.flatten(2)
    points = stage.points(CONTENT, to_state(BOXES)[None])
    return points, sample_3d(maps(8, 50), points, 2)


def test_t4_sampling():
    points, values = sampled()
    close(points.sum(), 2212.408429100)
    close(points[0, 0, 0, 0], (20.9790042, 21.5966798, 4.19399919))
    assert values.shape == (1, 4, 2, 4, 4)
    close((values.sum(), values.abs().sum()), (4.743307092, 20.606456566))
    close(values.flatten()[:4], (0.512662722, 0.40179632, 0.131082991, -0.0503852434))
    close(values[0, 2, 1, 3], (-0.0657889241, 0.110873855, -0.225221214, 0.0133827374))


@pytest.mark.parametrize(
    "zeta, weights",
    [
        (-1, (0.805153703, 0.179654075, 0.0147469045, 0.000445317929)),
        (0, (0.570458811, 0.346000759, 0.0772032048, 0.00633722496)),
        (1.7, (0.0980638692, 0.325583512, 0.397668599, 0.17868402)),
        (3.5, (0.00174542157, 0.0350577295, 0.25904353, 0.704153319)),
    ],
)
def test_t4_level_weights(zeta, weights):
    # Constant maps, one of ones and the others zero: the sample is the level's weight.
    for level, weight in enumerate(weights):
        ones = {4 << i: torch.full((1, 1, 64 >> i, 96 >> i), float(i == level)).double() for i in range(4)}
        point = torch.tensor([40, 30, zeta]).double().view(1, 1, 1, 1, 3)
        close(sample_3d(ones, point, 1).flatten(), [weight])


def test_t5_mixing():
    # Eight channels are mixed, the query has sixteen.
    mixing = Mixing(replace(SMALL, channels=8))
    mixing.generator = torch.nn.Linear(16, 96)
    mixing.out = torch.nn.Linear(64, 16)
    out = fill(mixing, 100)(sampled()[1], CONTENT)
    close((out.sum(), out.abs().sum()), (4.839338653, 53.876482361))
    close(out.flatten()[:4], (1.21184145, 1.1414466, 0.86656416, -2.11581748))


def test_t6_attention():
    attention = fill(Attention(16, 2), 120)
    bias = torch.log(iof(to_corners(BOXES)) + TINY) * torch.tensor((0.5, 1.5)).double()[:, None, None]
    out = attention(CONTENT, bias)
    close((out.sum(), out.abs().sum()), (3.313716145, 64.338768319))
    close(out.flatten()[:3], (-1.1808575, -2.55777036, -0.492273813))
    weights, _ = attention.weights(CONTENT, bias)
    close(weights[0].mean(0)[0], (0.0616435242, 0.938293596, 3.93435862e-10, 6.28796622e-05))


def test_t7_stage():
    stage = fill(AdaMixerStage(SMALL), 200)
    logits, boxes, content = stage(maps(16, 150), CONTENT, to_state(BOXES)[None], ALL)
    deltas = stage.boxes(content)
    close(logits.sum(), 6.582076382)
    close(logits.flatten()[:3], (1.94523401, -0.259108261, 1.30790946))
    close(deltas.sum(), -3.579944904)
    close(deltas.flatten()[:4], (-0.0194658316, -0.639771182, -0.0859142485, -0.588998483))
    close(content.sum(), 3.600778095)
    rows = [(56.5291717, 36.130338, 141.563574, 61.1851441), (2.63777677, -0.188078725, 240.859969, 125.090042)]
    rows += [(12.0180704, 20.2231888, 22.000147, 32.1270624), (243.759475, 207.173465, 292.861082, 304.493347)]
    close(to_corners(boxes)[0], rows)


def test_t7_stage_with_relu():
    stage = fill(AdaMixerStage(replace(SMALL, activation="relu")), 200)
    logits, boxes, content = stage(maps(16, 150), CONTENT, to_state(BOXES)[None], ALL)
    close((logits.sum(), stage.boxes(content).sum()), (6.650720709, -2.563606510))
    close(to_corners(boxes).sum(), 1793.891998929)
    close(to_corners(boxes)[0, 0], (53.5145516, 36.1629607, 130.334182, 64.8112529))


def test_t8_pooling():
    assert level_of(BOXES, FULL.level_sides).tolist() == [0, 2, 0, 0]
    out = roi_align(maps(2, 300), BOXES[None], 7, 2, FULL.level_sides)[0]
    assert out.shape == (4, 2, 7, 7)
    close((out.sum(), out.abs().sum()), (-9.272524873, 84.691445545))
    first = (0.342347748, -0.290946182, 0.476276008, -0.104648201, 0.246015276, -0.407404063, 0.321249514)
    close(out[0, 0, 0], first)
    row = (0.193064008, -0.309925624, 0.341881888, -0.170891898, -0.266118731, 0.0690819877, -0.204014369)
    close(out[1, 1, 3], row)


@pytest.mark.parametrize("cap", [15, 10**6])
@pytest.mark.parametrize("min_selected", [1, 3])
def test_t9_generator(cap, min_selected):
    generator = Generator(replace(SMALL, patch_cap=cap, min_selected=min_selected))
    # The golden numbers count the convolutions from the finest map, norms and tables from the coarsest.
    generator.compress = torch.nn.ModuleList(reversed(generator.compress))
    fill(generator, 600)
    generator.compress = torch.nn.ModuleList(reversed(generator.compress))
    with torch.no_grad():
        for mlp, tag in ((generator.base_mlp, 700), (generator.probe_mlp, 701)):
            bias = filler(mlp[-1].bias.shape, tag).view(-1, 5)
            bias[:, :2] *= 2
            bias[:, 2:4] -= 2
            bias[:, 4] = 3 * bias[:, 4] - 2
            mlp[-1].bias.copy_(bias.flatten())
        pyramid = maps(16, 150)
        compressed = generator.compress[0](pyramid[32])
        close(compressed.sum(), 19.800045794)
        close(compressed.flatten()[:2], (-0.354359455, 0.184337279))
        anchors = generator(pyramid, SIZE)
    close(anchors.base[0, 0, 0, :4].sigmoid(), (0.920725818, 0.0381758982, 0.0692985427, 0.146056329))
    close(anchors.base[0, 0, 0, 4], 1.61717283)
    close(anchors.base[0, 4, 0, :4].sigmoid(), (0.839162922, 0.0580863863, 0.0786546834, 0.22049189))
    close(anchors.base[0, 4, 0, 4], 0.660609012)
    coarse, fine = anchors.probes
    assert [tuple(c) for c in coarse.corners.tolist()] == [(9, 1), (0, 1), (3, 1), (7, 0), (0, 0)]
    expected = [(20, 0), (33, 0), (5, 11), (18, 12), (30, 10), (13, 4), (1, 2), (33, 17), (23, 17)]
    assert [tuple(c) for c in fine.corners.tolist()] == expected
    close(coarse.raw[0, 0, :4].sigmoid(), (0.946934309, 0.103676788, 0.0257570346, 0.037466017))
    close(coarse.raw[0, 0, 4], 0.609969756)
    boxes = anchors.boxes[0][anchors.valid[0]]
    assert len(boxes) == 121
    close(boxes.sum(), 44591.703277041)
    close(boxes[0], (174.937905, 4.77198728, 13.1667231, 18.2570412))
    close(boxes[1], (9.02329839, 18.007607, 74.6856151, 23.9083168))


@pytest.mark.parametrize(
    "probability, overlap, positive, negative",
    [
        (0, 0, 0.191508, 0),
        (0.01, 0.1, 0.221166, 0.136925),
        (0.1, 0.5, 0.442116, 0.293812),
        (0.5, 0.5, 0.712993, 0.589738),
        (0.5, 0.9, 0.887829, 0.099165),
        (0.9, 0.9, 0.973755, 0.130190),
        (1, 1, 1, 0),
    ],
)
def test_t12_query_weighting(probability, overlap, positive, negative):
    found = asag_loss.weights(torch.tensor(probability).double(), torch.tensor(overlap).double())
    np.testing.assert_allclose(torch.stack(found), (positive, negative), atol=6e-7)


def test_t12_matching_and_losses():
    probabilities = torch.tensor([[(0.5, 0.1, 0.2), (0.3, 0.9, 0.1), (0.2, 0.2, 0.2)]]).double()
    boxes = torch.tensor([[(0.5, 0.5, 0.2, 0.2), (0.3, 0.3, 0.4, 0.2), (0.8, 0.8, 0.1, 0.1)]]).double()
    wanted = torch.tensor([[(0.52, 0.5, 0.2, 0.24), (0.3, 0.32, 0.4, 0.2)]]).double()
    classes = torch.tensor([[0, 1]])
    cost = asag_loss.pairwise_cost(probabilities, boxes, wanted, classes)
    close(cost[0], [(-4.103536086, 14.354837561), (14.587675146, -13.656832725), (20.148851639, 28.428416437)])
    close(asag_loss.emphasis(wanted)[0], (3.342732931, 3.151471863))
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert asag_loss.match(cost, valid, [2])[1:].tolist() == [[0, 1], [0, 1]]
    losses = asag_loss.query_loss(torch.logit(probabilities), boxes, valid, (wanted, classes, [2]), 2.0)
    close(torch.stack(losses), (2.514323607, 0.111694744, 0.712811380))


def test_patch_targets_are_clipped_to_the_patch():
    boxes = np.array([(40.0, 40, 40, 20), (90, 40, 10, 10), (78, 78, 8, 8)])
    found = asag_loss.in_patch(boxes, (0, 0), (80, 80))
    np.testing.assert_allclose(found, [(0.5, 0.5, 0.5, 0.25), (0.9625, 0.9625, 0.075, 0.075)])


def test_supplied_patches_hold_the_small_objects():
    boxes = [np.array([(30.0, 30, 10, 10), (33, 34, 8, 8), (120, 90, 12, 12), (80, 80, 60, 60)])]
    supply = asag_loss.Supply(MICRO, boxes, (160, 160), np.random.default_rng(1), replaces=False)
    corners = supply.patches(0, 8, np.zeros((0, 2), np.int64))
    assert len(corners) == 4 and corners.min() >= 0 and corners.max() <= 15
    for centre in ((30, 30), (120, 90)):
        assert any(((corner * 8 <= centre) & (corner * 8 + 40 > centre)).all() for corner in corners)


def test_training_moves_every_parameter():
    torch.manual_seed(4)
    head = Asag(MICRO, stages=2)
    boxes = [torch.tensor([(30.0, 30, 10, 10), (80, 80, 60, 60)]), torch.tensor([(120.0, 100, 30, 30)])]
    targets = [asag_loss.Targets(boxes[0], torch.tensor([2, 0])), asag_loss.Targets(boxes[1], torch.tensor([1]))]
    supply = asag_loss.Supply(MICRO, [box.numpy() for box in boxes], (160, 160), np.random.default_rng(1), False)
    for stage in head.stages:  # at zero it would hide the content from the gradient
        torch.nn.init.normal_(stage.mixing.generator.weight, std=0.02)
        torch.nn.init.normal_(stage.boxes[-1].weight, std=0.02)
    torch.nn.init.normal_(head.relation.boxes[-1].weight, std=0.02)
    anchors, outputs = head(micro_maps(batch=2), (160, 160), supply)
    loss, parts = asag_loss.total_loss(MICRO, anchors, outputs, targets, (160, 160))
    assert set(parts) == {"anchors", "relation", "stage1", "stage2"}
    loss.backward()
    assert [name for name, parameter in head.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_the_paper():
    assert count(Generator(FULL)) == 6_097_494
    assert count(Generator(replace(FULL, base_anchors=150, probe_anchors=50))) == 6_748_144
    assert count(Relation(FULL)) == 4_812_892
    assert count(Relation(FULL).classes) == 86_608
    assert count(Relation(replace(FULL, classes=1))) == 4_792_589
    assert count(AdaMixerStage(FULL)) + FULL.channels == 18_510_556
    assert count(SparseStage(FULL)) + FULL.channels == 13_235_668


def test_parameter_counts_of_micro():
    generator, relation, stage = Generator(MICRO), Relation(MICRO), AdaMixerStage(MICRO)
    assert count(generator.compress) == 8_784 and count(generator.whole) == 584
    assert count(generator.norms) + sum(table.numel() for table in generator.tables) == 1_200
    assert count(generator.base_mlp) == 47_400 and count(generator.probe_mlp) == 45_465
    assert count(relation) - count(relation.classes) == 65_600 + 16_900 + 16_704 + 8_708
    assert count(stage.mixing.generator) == 149_760 and count(stage.mixing.out) == 65_600
    sparse = SparseStage(MICRO)
    assert count(sparse.generator) + count(sparse.out) == 198_720


def micro_maps(fill_: float | None = None, batch: int = 1, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {8: 20, 16: 10, 32: 5}
    if fill_ is not None:
        return {s: torch.full((batch, 64, n, n), fill_) for s, n in shapes.items()}
    return {s: torch.randn(batch, 64, n, n, generator=generator) for s, n in shapes.items()}


def micro(**changes) -> Asag:
    torch.manual_seed(1)
    return Asag(replace(MICRO, **changes)).eval().requires_grad_(False)


def eager(head: Asag, confidence: float) -> Asag:
    """Every anchor small, spread over its patch, and as sure as told."""
    with torch.no_grad():
        for mlp in (head.generator.base_mlp, head.generator.probe_mlp):
            mlp[-1].weight.zero_()
            bias = mlp[-1].bias.view(-1, 5)
            bias[:, :2] = torch.linspace(-2, 2, len(bias))[:, None]
            bias[:, 2:4] = -1.5
            bias[:, 4] = logit(confidence)
    return head


def test_zeroed_relation_classes_change_nothing_behind():
    head = micro()
    _, before = head(micro_maps(), (160, 160))
    with torch.no_grad():
        for parameter in head.relation.classes.parameters():
            parameter.zero_()
    _, after = head(micro_maps(), (160, 160))
    assert torch.equal(before[1][0], after[1][0]) and torch.equal(before[1][1], after[1][1])


def test_mixing_ignores_positive_scales():
    mixing = micro().stages[0].mixing.double()
    torch.nn.init.normal_(mixing.generator.weight, std=0.3)
    sampled_, content = torch.randn(1, 5, 2, 8, 32).double(), torch.randn(1, 5, 64).double()
    before = mixing(sampled_, content)
    with torch.no_grad():
        mixing.generator.weight.mul_(7.0)
        mixing.generator.bias.mul_(7.0)
    assert (mixing(sampled_, content) - before).abs().max() < 1e-4


def test_patch_cap_and_anchor_cap_hold():
    head = eager(micro(), 0.5)
    anchors, _ = head(micro_maps(), (160, 160))
    assert len(anchors.probes[0].corners) == MICRO.patch_cap
    assert anchors.valid.sum() <= MICRO.max_anchors
    head = eager(micro(), 0.9)
    anchors, _ = head(micro_maps(), (160, 160))
    assert not anchors.probes and anchors.valid.sum() == MICRO.max_anchors


def test_sixteen_far_candidates_give_fifteen_patches():
    generator = Generator(FULL)
    row = np.arange(16)
    anchors = np.stack((row % 4 * 300.0, row // 4 * 300.0, 20 + 0 * row, 20 + 0 * row, -row / 100), 1)
    assert len(generator.corners(anchors, 16, (1200, 1200))) == 15


def test_nothing_selected_means_no_patch_and_the_least_number_of_anchors():
    head = eager(micro(), 0.01)
    head.generator.probe = None  # a call would fail
    anchors, outputs = head(micro_maps(), (160, 160))
    assert anchors.valid.sum() == MICRO.min_anchors
    assert not anchors.probes
    assert torch.isfinite(outputs[1][1]).all()


def test_switched_off_probing_equals_none_asked_for():
    head = eager(micro(), 0.5)
    off, _ = head(micro_maps(), (160, 160), probing=False)
    assert not off.probes and off.valid.sum() == MICRO.max_anchors


def test_equal_scores_go_by_index():
    head = eager(micro(max_anchors=7), 0.9)
    anchors, _ = head(micro_maps(), (160, 160))
    order = head.generator.decode_base(anchors.base, (160, 160))[0][:7, :4]
    np.testing.assert_array_equal(anchors.boxes[0].numpy(), order)


def test_samples_outside_of_all_maps_give_finite_numbers():
    head = micro()
    with torch.no_grad():
        head.stages[0].offsets.bias.view(-1, 3)[:, :2] = 1e4
    for maps_ in (micro_maps(), micro_maps(0.0)):
        _, outputs = head(maps_, (160, 160))
        assert all(torch.isfinite(part).all() for output in outputs for part in output)


def test_three_pixel_boxes_are_finite():
    head = micro()
    boxes = torch.tensor([[[3.0, 3, 3, 3], [158, 158, 3, 3], [80, 80, 3, 160]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    content, state, logits = head.relation(micro_maps(), boxes, valid)
    assert all(torch.isfinite(part).all() for part in (content, state, logits))


@pytest.mark.parametrize("stage", ["adamixer", "sparse"])
def test_a_batch_equals_its_images(stage):
    torch.manual_seed(3)
    head = Asag(MICRO, stage).eval().requires_grad_(False)
    batch = micro_maps(batch=3, seed=5)
    anchors, outputs = head(batch, (160, 160))
    for i in range(3):
        alone, single = head({s: m[i : i + 1] for s, m in batch.items()}, (160, 160))
        n = int(alone.valid.sum())
        assert n == int(anchors.valid[i].sum())
        for (a, b), (c, d) in zip(outputs, single):
            torch.testing.assert_close(a[i, :n], c[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(b[i, :n], d[0], rtol=1e-4, atol=1e-3)


def test_pooling_and_suppression_agree_with_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    generator = torch.Generator().manual_seed(2)
    boxes = torch.rand(40, 4, generator=generator).double() * torch.tensor((400.0, 260, 200, 200)) - 20
    boxes[:, 2:] = boxes[:, 2:].clamp(min=3)
    pyramid = maps(3, 10)
    ours = roi_align(pyramid, boxes[None], 7, 2, FULL.level_sides)[0]
    level = level_of(boxes, FULL.level_sides)
    for i, box in enumerate(to_corners(boxes)):
        stride = 4 << int(level[i])
        theirs = ops.roi_align(pyramid[stride], [box[None]], 7, 1 / stride, 2, False)
        torch.testing.assert_close(ours[i], theirs[0])
    scores = torch.rand(40, generator=generator)
    assert nms(to_corners(boxes), scores, 0.3).tolist() == ops.nms(to_corners(boxes), scores.double(), 0.3).tolist()
    torch.testing.assert_close(to_centres(to_corners(boxes)), boxes)
