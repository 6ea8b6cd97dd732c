"""The head's operations in integers, one picture of what a device kernel must compute: exact, slow, plain Python.

Every function takes and returns integers; tables are made from floats once. The golden values in `test_integer_ops.py`
come from an independent implementation, so this file is an oracle for kernels. Right shifts round towards minus
infinity unless a name or a line says otherwise. Q8 means 8 fractional bits.
"""

import math

EXP2_NEGATIVE = [round(2 ** (-i / 256) * 32768) for i in range(257)]  # Q15, 2^-(i/256)
RSQRT_SEED = [round(2**15 / math.sqrt(1 + i / 64)) for i in range(192)]  # Q15, 1/sqrt of [1, 4)
LOG2 = [round(4096 * math.log2(1 + i / 64)) for i in range(65)]  # Q12
EXP2 = [round(32768 * 2 ** (i / 64)) for i in range(65)]  # Q15
LOG2_E = 23637  # Q14
ONE = 1 << 30


def half_up(value: int, shift: int) -> int:
    """value / 2^shift, halves upwards."""
    return (value + (1 << shift >> 1)) >> shift


def softmax(logits: list[int]) -> list[int]:
    """Q8 logits -> Q15 probabilities."""
    top = max(logits)
    powers = []
    for logit in logits:
        exponent = half_up((top - logit) * LOG2_E, 14)  # Q8
        whole, part = exponent >> 8, exponent & 255
        powers.append(EXP2_NEGATIVE[part] << 8 >> whole if whole < 24 else 0)
    total = sum(powers)
    return [(power * 32768 + total // 2) // total for power in powers]


def rsqrt(value: int) -> tuple[int, int]:
    """1/sqrt(value) as (mantissa Q30, exponent): mantissa / 2^30 / 2^exponent. Value at least 1."""
    exponent = (value.bit_length() - 1) // 2
    shift = 30 - 2 * exponent
    scaled = value << shift if shift >= 0 else value >> -shift  # [1, 4) in Q30
    root = RSQRT_SEED[(scaled >> 24) - 64] << 15
    for _ in range(2):
        root = root * (3 * ONE - (scaled * (root * root >> 30) >> 30)) >> 31
    return root, exponent


GAIN = 16  # fractional bits of a layer norm's gain


def layer_norm(values: list[int], gains: list[int], offsets: list[int]) -> list[int]:
    """Norm over all values, which may have any common scale.

    gains: round(weight * sqrt(n) / output step * 2^GAIN); offsets: round(bias / output step * 2^GAIN).
    Equal values give the offsets alone.
    """
    count, total = len(values), sum(values)
    deviations = [count * value - total for value in values]
    root, exponent = rsqrt(max(sum(d * d for d in deviations), 1))
    out = []
    for deviation, gain, offset in zip(deviations, gains, offsets):
        unit = half_up(deviation * root, exponent)  # Q30, at most 1
        out.append(half_up((unit * gain >> 30) + offset, GAIN))
    return out


FRACTION = 8  # bits of a sampling coordinate behind the point


def bilinear(map_: list[list[int]], x: int, y: int) -> int:
    """Sample of map_[row][column] at cell coordinates with FRACTION bits, centres at one half; zero outside. Q16."""
    half = 1 << FRACTION - 1
    left, right = divmod(x - half, 1 << FRACTION)
    top, below = divmod(y - half, 1 << FRACTION)
    total = 0
    for row, down in ((top, (1 << FRACTION) - below), (top + 1, below)):
        for column, across in ((left, (1 << FRACTION) - right), (left + 1, right)):
            if 0 <= row < len(map_) and 0 <= column < len(map_[0]):
                total += down * across * map_[row][column]
    return total


def log2(value: int) -> int:
    """Q12 logarithm of a positive integer, table of 64 steps with a straight line between."""
    exponent = value.bit_length() - 1
    fraction = (value << 16 >> exponent) - 65536  # Q16, [0, 1)
    index, rest = fraction >> 10, fraction & 1023
    return (exponent << 12) + LOG2[index] + half_up((LOG2[index + 1] - LOG2[index]) * rest, 10)


def exp2(exponent: int, bits: int = 4) -> int:
    """2^exponent for a Q12 exponent, with `bits` bits behind the point."""
    whole, fraction = exponent >> 12, exponent & 4095
    index, rest = fraction >> 6, fraction & 63
    mantissa = EXP2[index] + half_up((EXP2[index + 1] - EXP2[index]) * rest, 6)  # Q15
    shift = 15 - bits - whole
    return half_up(mantissa, shift) if shift >= 0 else mantissa << -shift


def squares_collide(dx: int, dy: int, side: int) -> bool:
    """Whether two squares of equal side at this distance overlap with an IoU above one quarter."""
    across, down = max(side - abs(dx), 0), max(side - abs(dy), 0)
    return 5 * across * down > 2 * side * side


def separate(centres: list[tuple[int, int]], scores: list[int], side: int, cap: int) -> list[int]:
    """Indices of squares kept, best first, ties by lower index, at most `cap`."""
    kept: list[int] = []
    for index in best(scores, len(scores)):
        x, y = centres[index]
        if len(kept) == cap:
            break
        if not any(squares_collide(x - centres[k][0], y - centres[k][1], side) for k in kept):
            kept.append(index)
    return kept


def best(scores: list[int], count: int) -> list[int]:
    """Indices of the largest scores (int16), best first, ties by lower index: one key orders both."""
    keys = sorted(((score << 16) | (0xFFFF - index) for index, score in enumerate(scores)), reverse=True)
    return [0xFFFF - (key & 0xFFFF) for key in keys[:count]]
