"""The committed vectors are what the model writes; the tables that a host makes."""

import math
from pathlib import Path

from integer_head import level_weights, lines, position_rates, rect_of, refined, state_of

VECTORS = Path(__file__).parents[2] / "kernels/tests/head.vectors"


def test_the_vectors_are_what_the_model_writes():
    assert VECTORS.read_text() == "".join(lines())


def test_level_weights_add_up_to_one():
    table, first = level_weights()
    assert (len(table), first) == (145, -3 * 4096)
    assert all(abs(sum(row) - 2**14) <= 1 for row in table)
    assert table[64] == [9406, 5705, 1273]  # at the first level: 1, e^-0.5, e^-2 in parts of 2^14


def test_first_rate_turns_once_in_the_picture():
    assert position_rates()[0][0] * 2560 == 2**32 + 1024 and position_rates()[2][0] == round(2**32 / (2 * math.pi * 8192))


def test_a_box_without_deltas_stays():
    for rect in ((160, 900, 48, 3072), (0, 0, 777, 1234)):
        assert rect_of(refined(state_of(rect), (0, 0, 0, 0))) == rect
