"""Golden integers of the head's operations, and their distance from real arithmetic."""

import math

import numpy as np
import pytest

import asag_generator
from integer_ops import EXP2, EXP2_NEGATIVE, GAIN, LOG2, RSQRT_SEED
from integer_ops import best, bilinear, exp2, layer_norm, log2, rsqrt, separate, softmax


def test_tables():
    assert [EXP2_NEGATIVE[i] for i in (0, 1, 64, 128, 255, 256)] == [32768, 32679, 27554, 23170, 16428, 16384]
    assert (sum(EXP2_NEGATIVE), sum(RSQRT_SEED)) == (6_075_685, 4_202_517)
    assert [RSQRT_SEED[i] for i in (0, 1, 64, 191)] == [32768, 32515, 23170, 16416]
    assert (sum(LOG2), sum(EXP2)) == (148_142, 3_074_732)


@pytest.mark.parametrize(
    "logits, expected",
    [
        ([512, 256, 0, -4096], [21796, 8025, 2947, 0]),
        ([0] * 5, [6554] * 5),
        ([100, -100, 700, 650, -3000, 699], [1061, 487, 11070, 9110, 0, 11040]),
    ],
)
def test_softmax(logits, expected):
    assert softmax(logits) == expected


@pytest.mark.parametrize(
    "value, expected",
    [(2, (759250125, 0)), (3, (619925131, 0)), (1000, (543275166, 4)), (123456789, (791648375, 13))],
)
def test_rsqrt(value, expected):
    assert rsqrt(value) == expected


def test_rsqrt_is_right_to_26_bits():
    random = np.random.default_rng(1)
    for value in [1, 2**62, 2**64 - 1] + [int(2.0**e) for e in random.uniform(0, 64, 300)]:
        mantissa, exponent = rsqrt(value)
        assert abs(mantissa / 2**30 / 2**exponent * math.sqrt(value) - 1) < 2**-26, value


def test_layer_norm():
    values = [100, -50, 25, 300, -1200, 7, 0, 818]
    gain = round(math.sqrt(8) * 32 * 2**GAIN)
    assert layer_norm(values, [gain] * 8, [0] * 8) == [6, -3, 2, 18, -73, 0, 0, 50]


def test_layer_norm_ignores_scale_and_takes_equal_values():
    gains, offsets = [round(math.sqrt(4) * 32 * 2**GAIN)] * 4, [5 << GAIN, 0, 0, -(1 << GAIN)]
    assert layer_norm([1, 2, 3, 9], gains, offsets) == layer_norm([1000, 2000, 3000, 9000], gains, offsets)
    assert layer_norm([7] * 4, gains, offsets) == [5, 0, 0, -1]


@pytest.mark.parametrize(
    "x, y, expected",
    [(1.25, 2.75, 802816), (0.1, 0.1, -1328096), (3.99, -0.3, -233835), (2.5, 2.5, 917504)],
)
def test_bilinear(x, y, expected):
    map_ = [[7 * (4 * i + j - 8) for j in range(4)] for i in range(4)]
    assert bilinear(map_, round(x * 256), round(y * 256)) == expected


def test_logarithm_and_power():
    assert [log2(value) for value in (1, 3, 48, 960, 40000)] == [0, 6492, 22876, 40579, 62618]
    assert [exp2(z) for z in (0, 2048, 4096, 14805, -1198)] == [16, 23, 32, 196, 13]


def test_sides_survive_the_box_state():
    # Sides in 1/16 pixel -> (z, r) in Q12 -> sides: exact for every pair of these.
    for width in range(3, 193, 7):
        for height in range(3, 193, 5):
            w, h = log2(16 * width), log2(16 * height)
            z, r = w + h, h - w  # twice the state, so that nothing is lost to the half
            assert exp2((z - r) // 2, 0) == 16 * width and exp2((z + r) // 2, 0) == 16 * height


def test_patches_agree_with_the_float_generator():
    random = np.random.default_rng(3)
    for _ in range(50):
        centres, scores = random.integers(0, 160, (20, 2)), random.integers(-300, 300, 20)
        ours = separate([tuple(c) for c in centres.tolist()], scores.tolist(), 40, 4)
        assert ours == asag_generator.separate(centres.astype(float), scores.astype(float), 40, 0.25)[:4]


def test_best_breaks_ties_by_index():
    assert best([5, -7, 5, 9, -7], 4) == [3, 0, 2, 1]
