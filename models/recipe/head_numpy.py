"""A head from its exported file alone, step by step as `docs/detector.md` numbers them, one picture, NumPy.

Written from that page, not from `asag.py`; a test compares the two. It is what an integer head is checked against: it
keeps every intermediate result by name, and the range of each over all runs.
"""

import json
import math

import numpy as np
from safetensors import safe_open

TINY = 1e-7
KINDS = ("generator", "asag", "asag-no-probing", "dense")


def read(file):
    """Tensors by name and metadata of an exported head."""
    with safe_open(file, "np") as opened:
        tensors = {name: opened.get_tensor(name).astype(np.float64) for name in opened.keys()}
        return tensors, {name: json.loads(value) for name, value in opened.metadata().items()}


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logit(p):
    return math.log(p / (1 - p))


def norm(x, axes=-1):
    """Without weights."""
    x = x - x.mean(axes, keepdims=True)
    return x / np.sqrt((x**2).mean(axes, keepdims=True) + 1e-5)


def bilinear(map_, x, y):
    """[C, H, W] at map coordinates [...], centres on whole numbers -> [C, ...]; zero outside."""
    height, width = map_.shape[1:]
    x, y = np.clip(x, -2, width + 1), np.clip(y, -2, height + 1)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    out = 0
    for i, down in ((row, row + 1 - y), (row + 1, y - row)):
        for j, across in ((column, column + 1 - x), (column + 1, x - column)):
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            out = out + down * across * inside * map_[:, np.where(inside, i, 0), np.where(inside, j, 0)]
    return out


class Head:
    """A head of one of KINDS. `run(laterals)` -> logits [N, K], boxes [N, 4]."""

    def __init__(self, tensors, metadata):
        self.t, self.g, self.kind, self.side = tensors, metadata["geometry"], metadata["head"], metadata["side"]
        self.strides = self.g["strides"]
        self.seen = {}  # the last value of each name
        self.ranges = {}  # least and largest value of each name since the head was made

    def note(self, name: str, x):
        """Keeps a value that an integer head has too; returns it."""
        self.seen[name] = x
        low, high = self.ranges.get(name, (np.inf, -np.inf))
        self.ranges[name] = (min(low, float(np.min(x))), max(high, float(np.max(x))))
        return x

    def linear(self, name: str, x):
        return x @ self.t[f"{name}.weight"].T + self.t.get(f"{name}.bias", 0)

    def normed(self, name: str, x):
        return norm(x) * self.t[f"{name}.weight"] + self.t[f"{name}.bias"]

    def layers(self, name: str, x, count: int):
        """Linear layers with ReLU between them, and a norm before it where there is one."""
        for index in range(count):
            layer = f"{name}.{index}"
            noted = layer.removeprefix("generator.")
            x = self.linear(layer, x)
            if f"{layer}.norm.weight" in self.t:
                self.note(noted, x)
                x = self.note(f"{noted}.norm", relu(self.normed(f"{layer}.norm", x)))
            else:
                x = self.note(noted, relu(x) if index + 1 < count else x)
        return x

    def convolve(self, name: str, map_, stride=1, padding=1, dilation=1):
        """3x3, [C, H, W] -> [O, H', W'], zero padding."""
        weight = self.t[f"{name}.weight"]
        padded = np.pad(map_, ((0, 0), (padding, padding), (padding, padding)))
        rows = (padded.shape[1] - 2 * dilation - 1) // stride + 1
        columns = (padded.shape[2] - 2 * dilation - 1) // stride + 1
        out = self.t[f"{name}.bias"][:, None, None]
        for i in range(3):
            for j in range(3):
                part = padded[:, i * dilation :, j * dilation :][:, : (rows - 1) * stride + 1 : stride]
                part = part[:, :, : (columns - 1) * stride + 1 : stride]
                kernel = weight[..., i, j]
                depthwise = kernel.ndim == 1
                out = out + (kernel[:, None, None] * part if depthwise else np.einsum("oc,chw->ohw", kernel, part))
        return out

    def pointwise(self, name: str, map_):
        return np.einsum("oc,chw->ohw", self.t[f"{name}.weight"], map_) + self.t[f"{name}.bias"][:, None, None]

    def neck(self, laterals):
        """Steps 1 and 2: {stride: [64, H, W]} -> the same."""
        sums = dict(laterals)
        for fine, coarse in ((16, 32), (8, 16)):
            sums[fine] = self.note(f"sum{fine}", sums[fine] + sums[coarse].repeat(2, 1).repeat(2, 2))
        maps = {}
        for stride, sum_ in sums.items():
            name = f"smooth{stride}"
            middle = self.note(f"{name}.0", self.convolve(f"neck.{name}.0", sum_))
            maps[stride] = self.note(f"{name}.1", self.pointwise(f"neck.{name}.1", middle))
        return maps

    def dense(self, maps):
        """{stride: [64, H, W]} -> logits [cells, K], boxes [cells, 4] cxcywh, finest map first."""
        predict, bias = self.t["dense.predict.weight"], self.t["dense.predict.bias"]
        logits, boxes = [], []
        for level, (stride, map_) in enumerate(sorted(maps.items())):
            for block in range(2):
                name = f"dense{stride}.{block}"
                map_ = self.note(f"{name}.0", self.convolve(f"{name}.0", map_))
                map_ = self.note(f"{name}.1", relu(self.pointwise(f"{name}.1", map_)))
            out = np.einsum("oc,chw->hwo", predict, map_) + bias
            sides = stride * np.exp(np.minimum(out[..., -4:] * self.t["dense.scales"][level], 4))
            y, x = (np.indices(map_.shape[1:]) + 0.5) * stride
            corners = np.stack((x - sides[..., 0], y - sides[..., 1], x + sides[..., 2], y + sides[..., 3]), -1)
            centred = ((corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2])
            logits.append(out[..., :-4].reshape(-1, out.shape[-1] - 4))
            boxes.append(np.concatenate(centred, -1).reshape(-1, 4))
        return np.concatenate(logits), np.concatenate(boxes)

    def predictions(self, patch, stride: int, mlp: str):
        """Steps 6 and 7: a patch [8, 5, 5] -> [A, 5]."""
        cells = patch.reshape(patch.shape[0], -1).T
        tokens = norm(cells, (0, 1)) * self.t[f"generator.norm{stride}.weight"] + self.t[f"generator.norm{stride}.bias"]
        return self.layers(f"generator.{mlp}", self.note(f"norm{stride}", tokens).ravel(), 3).reshape(-1, 5)

    def base(self, maps):
        """Steps 3 to 9: anchors [40, 5]."""
        stride, p = self.g["base_stride"], self.g["patch"]
        name = f"compress{stride}"
        squeezed = self.note(f"{name}.0", relu(self.pointwise(f"generator.{name}.0", maps[stride])))
        squeezed = self.note(f"{name}.1", self.convolve(f"generator.{name}.1", squeezed))
        anchors = []
        for i in (0, 1):
            for j in (0, 1):
                raw = self.predictions(squeezed[:, i * p : i * p + p, j * p : j * p + p], stride, "base")
                corner = np.array((j, i, 0, 0)) / 2
                anchors.append(np.column_stack((self.side * (sigmoid(raw[:, :4]) / 2 + corner), raw[:, 4])))
        whole = self.note("whole", self.convolve("generator.whole", relu(squeezed), 2, 2, 2))
        raw = self.predictions(whole, stride, "base")
        anchors.append(np.column_stack((self.side * sigmoid(raw[:, :4]), raw[:, 4])))
        return self.invalid(np.concatenate(anchors))

    def invalid(self, anchors):
        small = (anchors[:, 2:4] < self.g["smallest"]).any(1)
        anchors[small, 4] = -np.inf
        return anchors

    def window(self, map_, u: int, v: int):
        """Step 12: compress inside the patch and its rim only; beyond the map zero after the ReLU."""
        p = self.g["patch"]
        rim = np.zeros((map_.shape[0] // 2, p + 2, p + 2))
        for i in range(p + 2):
            for j in range(p + 2):
                row, column = v + i - 1, u + j - 1
                if 0 <= row < map_.shape[1] and 0 <= column < map_.shape[2]:
                    rim[:, i, j] = relu(self.linear("generator.compress8.0", map_[:, row, column]))
        self.note("compress8.0", rim)
        return self.note("compress8.1", self.convolve("generator.compress8.1", rim, padding=0))

    def probed(self, maps, corners):
        """Steps 12 to 14: anchors [5M, 5] of patches."""
        stride, p = 8, self.g["patch"]
        parts = [np.zeros((0, 5))]
        for u, v in corners:
            raw = self.predictions(self.window(maps[stride], u, v), stride, "probe")
            boxes = stride * (p * sigmoid(raw[:, :4]) + np.array((u, v, 0, 0)))
            outside = (boxes[:, :2] >= self.side).any(1)
            parts.append(self.invalid(np.column_stack((boxes, np.where(outside, -np.inf, raw[:, 4])))))
        return np.concatenate(parts)

    def anchors(self, maps):
        """Steps 3 to 15: boxes [N, 4]."""
        g = self.g
        base = self.base(maps)
        score = base[:, 4]
        chosen = np.zeros(len(base), bool)
        stride, p = 8, g["patch"]
        corners = []
        if self.kind != "asag-no-probing":
            chosen = (score > logit(g["probe_low"])) & (score < logit(g["probe_high"]))
            chosen &= (base[:, 2:4] < g["probe_side"] * p * stride).all(1)
            corners = self.patches(base[chosen], stride)
        self.seen["corners"] = corners
        fresh = self.probed(maps, corners)
        rest = base[(score > logit(g["keep"])) & ~chosen]
        if len(rest) < g["min_anchors"]:
            rest = base[np.argsort(-score, kind="stable")[: g["min_anchors"]]]
        found = np.concatenate((rest, fresh[fresh[:, 4] > logit(g["keep"])]))
        if len(found) > g["max_anchors"]:
            found = found[np.argsort(-found[:, 4], kind="stable")[: g["max_anchors"]]]
        return found[:, :4]

    def patches(self, anchors, stride: int):
        """Step 11: corners (u, v)."""
        side, cells = self.g["patch"] * stride, self.side // stride
        kept = []
        for x, y in anchors[np.argsort(-anchors[:, 4], kind="stable"), :2]:
            common = [max(side - abs(x - a), 0) * max(side - abs(y - b), 0) for a, b in kept]
            if all(5 * area <= 2 * side**2 for area in common):
                kept.append((x, y))
        last = cells - self.g["patch"]
        return [
            tuple(min(max(math.floor(c / stride - self.g["patch"] / 2), 0), last) for c in centre)
            for centre in kept[: self.g["patch_cap"]]
        ]

    def pooled(self, maps, box):
        """Step 16: [64, 4, 4] of one box."""
        stride = self.strides[sum(math.sqrt(box[2] * box[3]) >= side for side in self.g["level_sides"])]
        map_, bins = maps[stride], self.g["roi"]
        height, width = map_.shape[1:]
        low = (box[:2] - box[2:] / 2) / stride
        size = np.maximum(box[2:] / stride, 1)
        x, y = (low[:, None] + size[:, None] * (np.arange(bins) + 0.5) / bins)
        x, y = np.meshgrid(x, y)
        inside = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)
        return inside * bilinear(map_, x.clip(0, width - 1), y.clip(0, height - 1))

    def code(self, state):
        """Step 18."""
        features = self.g["channels"] // 4
        unit = self.g["position_unit"]
        angles = (state / (unit, unit, 1, 1))[..., None] / 10000 ** (2 * (np.arange(features) // 2) / features)
        return np.where(np.arange(features) % 2 == 0, np.sin(angles), np.cos(angles)).reshape(len(state), -1)

    def attend(self, name: str, content, state, boxes):
        """Steps 18 and 19 and the sum and norm behind them."""
        x = self.note(f"{name}.sum", content + self.code(state))
        heads = self.g["heads"]
        width = x.shape[1] // heads
        qkv = self.linear(f"{name}.attention.qkv", x).reshape(len(x), 3, heads, width).transpose(1, 2, 0, 3)
        q, k, v = (self.note(f"{name}.{part}", values) for part, values in zip("qkv", qkv))
        low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
        common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
        iof = relu(common).prod(-1) / np.maximum(boxes[:, 2:].prod(-1), 1e-6)[:, None]
        logits = q @ k.transpose(0, 2, 1) / math.sqrt(width)
        logits = logits + self.t[f"{name}.tau"][:, None, None] * np.log(iof + TINY)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mean = self.note(f"{name}.attention", (weights @ v).transpose(1, 0, 2).reshape(len(x), -1))
        out = self.note(f"{name}.attention.out", self.linear(f"{name}.attention.out", mean))
        return self.joined(f"{name}.attention", x, out)

    def joined(self, name: str, x, y):
        """norm(x + y)."""
        return self.note(f"{name}_norm", self.normed(f"{name}_norm", self.note(f"{name}_sum", x + y)))

    def refined(self, name: str, state, content):
        """Step 21."""
        delta = self.layers(f"{name}.boxes", content, self.g["box_layers"] + 1)
        side = 2.0 ** state[:, 2:3]
        return np.concatenate((state[:, :2] + delta[:, :2] * side, state[:, 2:] + delta[:, 2:]), 1)

    def mixed(self, maps, content, state):
        """Steps 23 to 26."""
        g = self.g
        groups, inside, outside = g["groups"], g["points_in"], g["points_out"]
        width = g["channels"] // groups
        offsets = self.note("stage.offsets", self.linear("stage.offsets", content)).reshape(-1, groups, inside, 3)
        matrices = self.note("stage.matrices", self.linear("stage.mixing.generator", content))
        matrices = matrices.reshape(len(content), groups, -1)
        levels = np.log2(np.array(self.strides) / 4)
        rows = []
        for n, (x, y, z, r) in enumerate(state):
            parts = []
            for group in range(groups):
                dx, dy, dz = offsets[n, group].T
                weights = np.exp(-((z + dz - levels[:, None]) ** 2) / 2)
                weights /= weights.sum(0)
                px, py = x + dx * 2 ** (z - r), y + dy * 2 ** (z + r)
                sampled = np.zeros((inside, width))
                for stride, weight in zip(self.strides, weights):
                    map_ = maps[stride][group * width : (group + 1) * width]
                    sampled += (weight * bilinear(map_, 4 * px / stride - 0.5, 4 * py / stride - 0.5)).T
                self.note("stage.samples", sampled)
                channel, spatial = np.split(matrices[n, group], [width**2])
                sampled = relu(norm(sampled @ channel.reshape(width, width), (0, 1)))
                parts.append(relu(norm(spatial.reshape(outside, inside) @ sampled, (0, 1))).ravel())
            rows.append(np.concatenate(parts))
        out = self.linear("stage.mixing.out", self.note("stage.mixed", np.array(rows)))
        return self.joined("stage.mixing", content, self.note("stage.mixing.out", out))

    def run(self, laterals):
        """Laterals {stride: [64, H, W]} -> logits [N, K], boxes [N, 4]; steps 1 to 28."""
        maps = self.neck({stride: map_.astype(np.float64) for stride, map_ in laterals.items()})
        if self.kind == "dense":
            return self.dense(maps)
        boxes = self.anchors(maps)
        self.seen["anchors"] = boxes
        pooled = self.note("pooled", np.stack([self.pooled(maps, box) for box in boxes])).reshape(len(boxes), -1)
        content = self.note("relation.content", self.linear("relation.content", pooled))
        content = self.note("relation.content_norm", self.normed("relation.content_norm", content))
        w, h = boxes[:, 2] / 4, boxes[:, 3] / 4
        scale, ratio = np.log2(w * h + TINY) / 2, np.log2(h / (w + TINY) + TINY) / 2
        state = np.column_stack((boxes[:, 0] / 4, boxes[:, 1] / 4, scale, ratio))
        content = self.attend("relation", content, state, boxes)
        content = self.joined("relation.ffn", content, self.layers("relation.ffn", content, 2))
        state = self.refined("relation", state, content)
        self.seen["proposals"] = self.boxes(state)
        if self.kind == "generator":
            return self.layers("relation.classes", content, 2), self.boxes(state)
        content = self.mixed(maps, self.attend("stage", content, state, self.boxes(state)), state)
        content = self.joined("stage.ffn", content, self.layers("stage.ffn", content, 2))
        return self.layers("stage.classes", content, 2), self.boxes(self.refined("stage", state, content))

    @staticmethod
    def boxes(state):
        x, y, z, r = state.T
        return 4 * np.column_stack((x, y, 2 ** (z - r), 2 ** (z + r)))
