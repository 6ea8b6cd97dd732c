"""The head's integers, as `docs/detector.md` defines them, in plain Python, and vectors that `kernels::head` must equal.

`python integer_head.py ../../kernels/tests/head.vectors` writes them: one case a line, `name;input;input=output`, each a
list of integers. Random numbers come from a fixed seed, so the same file is written again.
"""

import math
import random
import sys
from collections.abc import Iterator

from integer_ops import RSQRT_SEED, best, exp2, half_up, log2, squares_collide

SIGMOID = [round(32768 / (1 + math.exp(-i / 32))) for i in range(257)]  # Q15
SINE = [round(16384 * math.sin(math.pi * i / 512)) for i in range(257)]  # Q14
NOTHING = round(4096 * math.log2(1e-7))
INVALID = -32768
UNIT = 6 * 4096  # log2 of 4 pixels in 1/16 pixel, Q12


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def short(value: int) -> int:
    return clamp(value, -32768, 32767)


def byte(value: int) -> int:
    return clamp(value, -128, 127)


def line(table, x: int, bits: int) -> int:
    index, rest = divmod(x, 1 << bits)
    last = len(table) - 1
    low, high = table[min(index, last)], table[min(index + 1, last)]
    return low + half_up((high - low) * rest, bits)


def sigmoid(logit: int) -> int:
    value = line(SIGMOID, abs(logit), 7)
    return value if logit >= 0 else 32768 - value


def sine(phase: int) -> int:
    quarter, within = divmod(phase % 65536, 16384)
    value = line(SINE, 16384 - within if quarter in (1, 3) else within, 6)
    return value if quarter < 2 else -value


# Boxes: rect (x, y, w, h); state the same with logarithms of the sides; anchor (x, y, w, h, logit).


def state_of(rect):
    x, y, w, h = rect
    return x, y, *(min(log2(max(side, 1)), 65535) for side in (w, h))


def rect_of(state):
    x, y, w, h = state
    return x, y, *(min(exp2(side, 0), 65535) for side in (w, h))


def refined(state, delta):
    x, y, w, h = state
    dx, dy, dz, dr = delta
    side = exp2((w + h) // 2, 4)
    moved = [short(at + half_up(d * side, 16)) for at, d in ((x, dx), (y, dy))]
    return *moved, clamp(w + dz - dr, 0, 65535), clamp(h + dz + dr, 0, 65535)


def decode(region, limits, raw):
    left, top, width, height = region
    smallest, right, bottom = limits
    anchors = []
    for at in range(0, len(raw), 5):
        x, y, w, h = (half_up(sigmoid(v) * side, 15) for v, side in zip(raw[at:], (width, height) * 2))
        x, y = short(left + x), short(top + y)
        good = min(w, h) >= smallest and x < right and y < bottom
        anchors.append((x, y, w, h, max(raw[at + 4], INVALID + 1) if good else INVALID))
    return anchors


def asks(probing, anchor):
    low, high, side = probing[:3]
    return low < anchor[4] < high and max(anchor[2:4]) < side


def patches(probing, room, anchors):
    patch, stride_log2, *cells = probing[3:]
    side = patch * 16 << stride_log2
    chosen: list[int] = []
    for index in best([anchor[4] for anchor in anchors], len(anchors)):
        if not asks(probing, anchors[index]) or len(chosen) == room:
            continue
        x, y = anchors[index][:2]
        if not any(squares_collide(x - anchors[k][0], y - anchors[k][1], side) for k in chosen):
            chosen.append(index)
    out = []
    for index in chosen:
        # floor(centre / stride - patch / 2)
        corner = [(2 * anchors[index][axis] - side) // (32 << stride_log2) for axis in (0, 1)]
        out += [index, *(max(min(first, count - patch), 0) for first, count in zip(corner, cells))]
    return out


def remaining(keep, least, probing, base, probed):
    kept = [a for a in base if a[4] > keep and not (probing and asks(probing, a))]
    if len(kept) < least:
        kept = [base[index] for index in best([a[4] for a in base], least)]
    return kept + [a for a in probed if a[4] > keep]


def cap(room, anchors):
    if len(anchors) <= room:
        return anchors
    return [anchors[index] for index in best([a[4] for a in anchors], room)]


def overlap_bias(tau, rects):
    planes = []
    for t in tau:
        for a in rects:
            for b in rects:
                common = 1
                for axis in (0, 1):
                    ends = [(2 * r[axis] - r[axis + 2], 2 * r[axis] + r[axis + 2]) for r in (a, b)]
                    common *= max(min(end for _, end in ends) - max(start for start, _ in ends), 0)
                ratio = max(log2(common) - log2(4 * a[2] * a[3]), NOTHING) if common else NOTHING
                planes.append(short(half_up(ratio * t, 15)))
    return planes


def position_code(rates, states):
    """rates[4][k]: 2^32 of a turn for each step of x, y, z, r."""
    out = []
    for x, y, w, h in states:
        for value, row in zip((x, y, w + h - 2 * UNIT, h - w), rates):
            for rate in row:
                phase = half_up(value * rate % 2**32, 16)
                out += [sine(phase), sine(phase + 16384)]
    return out


def detect(room, classes, size, states, logits):
    out = []
    for index in best(logits, room):
        x, y, w, h = rect_of(states[index // classes])
        ends = [(2 * x - w) // 2, (2 * y - h) // 2, (2 * x + w) // 2, (2 * y + h) // 2]
        out += [clamp(end, 0, side) for end, side in zip(ends, size * 2)] + [index % classes, logits[index]]
    return out


# Maps: (rows, columns, channels, zero point, log2 of the stride, values row by row).


def sample(map_, x, y, channel):
    """At Q8 cells, a cell's middle being a whole number. Q16, zero outside."""
    rows, columns, channels, zero, _, values = map_
    total = 0
    for row in (y >> 8, (y >> 8) + 1):
        for column in (x >> 8, (x >> 8) + 1):
            weight = (256 - abs(y - 256 * row)) * (256 - abs(x - 256 * column))
            if 0 <= row < rows and 0 <= column < columns:
                total += weight * (values[(row * columns + column) * channels + channel] - zero)
    return total


def pool_regions(maps, sides, bins, rescales, zero_point, rects):
    out = []
    for cx, cy, w, h in rects:
        level = sum(w * h >= side * side for side in sides)
        map_, (multiplier, shift) = maps[level], rescales[level]
        rows, columns, channels, _, stride_log2, _ = map_
        for row in range(bins):
            for column in range(bins):
                at = []
                for centre, side, bin_ in ((cx, w, column), (cy, h, row)):
                    # Low end and size in 1/32 pixel; a middle is size * (2 bin + 1) / (2 bins) from the low end.
                    low, size = 2 * centre - side, 2 * max(side, 16 << stride_log2)
                    cells = 256 * (2 * bins * low + size * (2 * bin_ + 1)), 2 * bins * 32 << stride_log2
                    at.append((2 * cells[0] + cells[1]) // (2 * cells[1]))
                x, y = at
                if not (-256 <= x <= 256 * columns and -256 <= y <= 256 * rows):
                    out += [zero_point] * channels
                    continue
                x, y = clamp(x, 0, 256 * (columns - 1)), clamp(y, 0, 256 * (rows - 1))
                values = (sample(map_, x, y, channel) * multiplier for channel in range(channels))
                out += [byte(half_up(value, shift) + zero_point) for value in values]
    return out


def sample_points(maps, groups, points, weights, first, shift, states, offsets):
    """weights[step][map]; offsets flat, (box, group, point, (dx, dy, dz))."""
    out, at = [], 0
    for x, y, w, h in states:
        wide, high = rect_of((x, y, w, h))[2:]
        for group in range(groups):
            for _ in range(points):
                dx, dy, dz = offsets[at : at + 3]
                at += 3
                px, py = x * 4096 + wide * dx, y * 4096 + high * dy  # 2^-16 pixel
                step = clamp(half_up((w + h) // 2 - UNIT + dz - first, 8), 0, len(weights) - 1)
                each = maps[0][2] // groups
                for channel in range(group * each, group * each + each):
                    total = 0
                    for map_, weight in zip(maps, weights[step]):
                        u, v = (half_up(p, 8 + map_[4]) - 128 for p in (px, py))
                        total += weight * sample(map_, u, v, channel)
                    out.append(byte(half_up(total, shift)))
    return out


def narrow(values, bits=7):
    """One shift for all, so that the largest magnitude has `bits` bits."""
    shift = max(max(abs(value) for value in values).bit_length() - bits, 0)
    return [min(half_up(value, shift), (1 << bits) - 1) for value in values]


def group_norm(values, norm):
    """`docs/kernels.md`: layer normalisation without epsilon, one factor and one offset."""
    factor, factor_bits, offset, low, high = norm
    count, total = len(values), sum(values)
    spread = max(count * sum(v * v for v in values) - total * total, count - 1)
    e = (spread.bit_length() - 1) // 2
    w = (spread << 30) // 4**e
    root = RSQRT_SEED[(w >> 24) - 64] << 15
    for _ in range(2):
        root = root * (3 * 2**30 - ((root * root >> 30) * w >> 30)) >> 31
    product = count * root
    bits = min(24, 44 + e - product.bit_length())
    a, b = product >> 14 + e - bits, -(total * root >> 30 + e - bits)
    out = []
    for value in values:
        scaled = ((a * value >> 16) + b) * factor >> 16
        places = bits + factor_bits - 22
        scaled = scaled >> places if places >= 0 else scaled << -places
        out.append(clamp(scaled + offset >> 6, low, high))
    return out


def mix(inputs, outputs, width, inner, outer, points, channel_matrix, point_matrix):
    """Lists flat: points [inputs][width], matrices [outputs][inputs of the product]."""
    sums = [
        sum(channel_matrix[o * width + c] * points[p * width + c] for c in range(width))
        for o in range(width)
        for p in range(inputs)
    ]
    mixed = group_norm(narrow(sums, 15), inner)  # [width][inputs]
    sums = [
        sum(point_matrix[o * inputs + p] * mixed[c * inputs + p] for p in range(inputs))
        for o in range(outputs)
        for c in range(width)
    ]
    return group_norm(narrow(sums, 15), outer)


def position_rates(rates: int = 8, turn: float = 160.0) -> list[list[int]]:
    """`rates` for x and y that turn once in `turn` pixels at the first rate, and for z and r in radians."""
    falls = [10000 ** (-k / rates) for k in range(rates)]
    place = [round(2**32 / (16 * turn) * fall) for fall in falls]
    size = [round(2**32 / (2 * math.pi * 8192) * fall) for fall in falls]
    return [place, place, size, size]


def level_weights(levels: int = 3, first: int = 1, bits: int = 14) -> tuple[list[list[int]], int]:
    """Table and Q12 logarithm of its first step: from 4 below the first level to 3 above the last, in steps of 1/16."""
    table = []
    for step in range(16 * (levels + 6) + 1):
        at = first - 4 + step / 16
        powers = [math.exp(-((at - first - level) ** 2) / 2) for level in range(levels)]
        table.append([round(power / sum(powers) * 2**bits) for power in powers])
    return table, (first - 4) * 4096


def flat(rows):
    return [value for row in rows for value in row]


def function_cases(rng):
    values = [0, 1, 2, 63, 64, 65, 2**33, 2**47 - 1] + [rng.randrange(1, 2 ** rng.randrange(1, 48)) for _ in range(40)]
    yield "log2", [values], [log2(value) if value else 0 for value in values]
    for bits in (0, 4, 15):
        values = [0, -1, 4095, 4096, -70000] + [rng.randrange(-40000, 60000) for _ in range(30)]
        yield "exp2", [[bits], values], [exp2(value, bits) for value in values]
    values = [-32768, -1, 0, 1, 32767] + [rng.randrange(-32768, 32768) for _ in range(40)]
    yield "sigmoid", [values], [sigmoid(value) for value in values]
    values = [0, 16383, 16384, 32768, 49152, 65535] + [rng.randrange(65536) for _ in range(40)]
    yield "sine", [values], [sine(value) for value in values]


def box_cases(rng):
    extreme = [(-32768, 32767, 0, 65535), (32767, -32768, 65535, 1), (0, 0, 1, 1)]
    ranges = 2 * [(-200, 2800)] + 2 * [(1, 2600)]
    rects = extreme + [tuple(rng.randrange(low, high) for low, high in ranges) for _ in range(20)]
    states = [state_of(r) for r in rects]
    yield "state", [flat(rects)], flat(states)
    yield "rect", [flat(states)], flat(rect_of(state) for state in states)
    edges = [-32768, 32767, 0]
    delta = lambda: rng.choice(edges) if rng.random() < 0.2 else rng.randrange(-6000, 6000)
    deltas = [[delta() for _ in range(4)] for _ in rects]
    yield "refine", [flat(states), flat(deltas)], flat(refined(s, d) for s, d in zip(states, deltas))
    yield "overlap", [[1024, 8192, -500], flat(rects[:10])], overlap_bias([1024, 8192, -500], rects[:10])
    rates = position_rates()
    yield "position", [flat(rates), flat(states[:8])], position_code(rates, states[:8])
    for classes, room in ((3, 72), (3, 10), (1, 0)):
        logits = [rng.choice([-32768, 32767, 5, rng.randrange(-9000, 3000)]) for _ in range(classes * len(states))]
        found = detect(room, classes, (2560, 2400), states, logits)
        yield "detect", [[room, classes, 2560, 2400], flat(states), logits], found


def anchor_cases(rng):
    for region in ((1280, 0, 1280, 1280), (0, 0, 2560, 2560), (-32768, 32767, 65535, 65535)):
        value = lambda: rng.choice([-32768, 32767, 0]) if rng.random() < 0.1 else rng.randrange(-20000, 20000)
        raw = [value() for _ in range(100)]
        yield "decode", [region, [48, 2560, 2560], raw], flat(decode(region, (48, 2560, 2560), raw))
    probing = (-9000, 3470, 320, 5, 3, 20, 20)
    for count, spread in ((40, 2560), (40, 700), (12, 1), (1, 5000), (0, 1)):
        logit = lambda: rng.choice([INVALID, 0, 0, 100, rng.randrange(-12000, 6000)])
        place = lambda: rng.randrange(spread) - spread // 20
        anchor = lambda: (place(), place(), rng.randrange(40, 400), rng.randrange(40, 400), logit())
        anchors = [anchor() for _ in range(count)]
        for room in (0, 4, 15):
            yield "patches", [probing, [room], flat(anchors)], patches(probing, room, anchors)
        for keep, least in ((-9000, 4), (5999, 4), (32767, 100)):
            for used in (probing, ()):
                kept = remaining(keep, least, used, anchors, anchors[:9])
                yield "remaining", [[keep, least], used, flat(anchors), flat(anchors[:9])], flat(kept)
        yield "cap", [[24], flat(anchors)], flat(cap(24, anchors))


def map_cases(rng):
    def map_(rows, columns, stride_log2, low=-128, high=128):
        values = [rng.randrange(low, high) for _ in range(rows * columns * 4)]
        return rows, columns, 4, rng.randrange(-20, 20), stride_log2, values

    maps = [map_(6, 5, 3), map_(3, 3, 4), map_(1, 2, 5)]
    constants = [flat([m[:5] for m in maps]), flat(m[5] for m in maps)]
    rects = [(100, 90, 200, 100), (300, 200, 40, 40), (-100, 0, 500, 30), (640, 768, 400, 500), (0, 0, 2000, 2000)]
    rects += [(-32768, 32767, 65535, 65535), (3000, 0, 10, 10), (320, 384, 0, 0)]
    ranges = 2 * [(-100, 800)] + 2 * [(1, 900)]
    rects += [tuple(rng.randrange(low, high) for low, high in ranges) for _ in range(8)]
    for bins in (4, 7):
        rescales = [(1 << 30, 46), (1_500_000_000, 47), (2147483647, 44)]
        found = pool_regions(maps, (384, 1024), bins, rescales, 3, rects)
        yield "pool", [*constants, [384, 1024], [bins, 3], flat(rescales), flat(rects)], found
    weights, first = level_weights()
    states = [state_of(rect) for rect in rects]
    for reach in (2000, 32767):
        offsets = [rng.randrange(-reach, reach + 1) for _ in range(len(states) * 2 * 3 * 3)]
        found = sample_points(maps, 2, 3, weights, first, 30, states, offsets)
        yield "points", [*constants, [2, 3, first, 30], flat(weights), flat(states), offsets], found


def mix_cases(rng):
    norms = [(32 * 512, 9, 32, 0, 127), (20 * 1024, 10, 32 - 64 * 100, -128, 127)]
    shapes = ((8, 16, 32, -128, 128), (4, 2, 8, -128, 128), (8, 6, 4, 0, 1), (4, 4, 4, 127, 128))
    for inputs, outputs, width, low, high in shapes:
        sizes = (inputs * width, width * width, outputs * inputs)
        lists = [[rng.randrange(low, high) for _ in range(size)] for size in sizes]
        found = mix(inputs, outputs, width, *norms, *lists)
        yield "mix", [[inputs, outputs, width], *norms, *lists], found
    for values in ([0] * 5, [-32768, 3, 200], [32767, -32768], [127, -128], [128, -127, 1], [255, 254, -256]):
        yield "narrow", [values], narrow(values)


def lines() -> Iterator[str]:
    rng = random.Random(20261127)
    for cases in (function_cases, box_cases, anchor_cases, map_cases, mix_cases):
        for name, inputs, output in cases(rng):
            parts = ";".join(" ".join(map(str, part)) for part in inputs)
            yield f"{name};{parts}={' '.join(map(str, output))}\n"


if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        file.writelines(lines())
