"""Adaptive sparse anchor generation, and the sizes of the whole head.

A perceptron looks at fixed patches of compressed maps: the four quadrants of the coarsest map that it reads and that
map as a whole. Anchors that are small and neither sure nor absent are looked at again, in a patch of the next finer
map around them; what is found there stands in for them.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Geometry:
    """Every number of the head. Lengths in pixels of the input, thresholds as probabilities."""

    strides: tuple[int, ...] = (4, 8, 16, 32)  # maps that pooling and sampling read
    base_stride: int = 32  # map that the base patches come from
    probe_strides: tuple[int, ...] = (16, 8)  # maps that are probed, in this order
    channels: int = 256
    heads: int = 8
    hidden: int = 2048  # of the feed-forward networks
    classes: int = 80
    activation: str = "gelu"
    # generator
    patch: int = 15  # side in cells; the base map is resized to twice that
    compressed: int = 8  # channels
    generator_hidden: int = 1000
    base_anchors: int = 50  # per base patch
    probe_anchors: int = 20  # per probed patch
    probe_low: float = 0.1
    probe_high: float = 0.7
    probe_side: float = 0.5  # of a patch's side: larger anchors are no reason to look closer
    keep: float = 0.1
    patch_overlap: float = 0.25
    patch_cap: int = 15  # probed patches per map
    min_selected: int = 3  # probing stops when fewer anchors ask for it
    min_anchors: int = 5
    max_anchors: int = 200
    smallest: float = 3.0  # sides below this are no anchors
    # relation block and stages
    roi: int = 7
    roi_samples: int = 2
    level_sides: tuple[float, ...] = (112.0, 224.0, 448.0)
    position_unit: float = 1000.0
    box_layers: int = 3
    groups: int = 4
    points_in: int = 32
    points_out: int = 128
    dynamic: int = 64  # inner width of the Sparse R-CNN stage


FULL = Geometry()
MICRO = Geometry(
    strides=(8, 16, 32),
    base_stride=16,
    probe_strides=(8,),
    channels=64,
    heads=4,
    hidden=128,
    classes=3,
    activation="relu",
    patch=5,
    generator_hidden=128,
    base_anchors=8,
    probe_anchors=5,
    patch_cap=4,
    min_selected=1,
    min_anchors=4,
    max_anchors=20,
    roi=4,
    roi_samples=1,
    level_sides=(24.0, 64.0),
    position_unit=160 / (8 * math.pi),  # x in units of 4 pixels spans 0..40: angles 0..2 pi
    box_layers=2,
    groups=2,
    points_in=8,
    points_out=16,
    dynamic=16,
)


def activation(geometry: Geometry) -> nn.Module:
    return {"gelu": nn.GELU, "relu": nn.ReLU}[geometry.activation]()


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


@dataclass
class Probe:
    """Patches of one map, for the loss: image and cell of each, and the raw predictions [M, A, 5]."""

    stride: int
    image: np.ndarray
    corners: np.ndarray  # [M, (u, v)], cells
    raw: torch.Tensor
    generated: np.ndarray  # [M] bool: asked for by anchors, not supplied by training


@dataclass
class Anchors:
    """Result of the generator: boxes [B, N, 4] with `valid` [B, N]; predictions for the loss."""

    boxes: torch.Tensor
    valid: torch.Tensor
    base: torch.Tensor  # [B, 5, A, 5] raw; 8 patches in training
    probes: list[Probe]


class Generator(nn.Module):
    """Adaptive sparse anchor generation. Anchors inside are arrays [A, 5]: cx, cy, w, h in pixels, logit."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.geometry = g = geometry
        self.strides = (g.base_stride, *g.probe_strides)  # order of the lists below
        middle, cells = g.channels // 2, g.patch**2
        self.compress = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(g.channels, middle, 1), activation(g), nn.Conv2d(middle, g.compressed, 3, padding=1)
            )
            for _ in self.strides
        )
        self.whole = nn.Conv2d(g.compressed, g.compressed, 3, stride=2, padding=2, dilation=2)
        self.norms = nn.ModuleList(nn.LayerNorm((cells, g.compressed)) for _ in self.strides)
        self.tables = nn.ParameterList(torch.zeros(cells, g.compressed) for _ in self.strides)
        self.base_mlp = self.mlp(5 * g.base_anchors)
        self.probe_mlp = self.mlp(5 * g.probe_anchors)

    def mlp(self, outputs: int) -> nn.Module:
        g = self.geometry
        inputs, hidden = g.patch**2 * g.compressed, g.generator_hidden
        return nn.Sequential(
            nn.Linear(inputs, hidden),
            activation(g),
            nn.Linear(hidden, hidden),
            activation(g),
            nn.Linear(hidden, outputs),
        )

    def tokens(self, patches, stride: int):
        """Patches [M, c, p, p] -> [M, p*p*c], cell-major, normalised jointly, position table added."""
        index = self.strides.index(stride)
        cells = patches.flatten(2).transpose(1, 2)
        return (self.norms[index](cells) + self.tables[index]).flatten(1)

    def base(self, map_, size):
        """Raw predictions [B, 5, A, 5] of the patches top left, top right, bottom left, bottom right, whole.

        In training three more: the whole mirrored left-right, top-bottom, and both.
        """
        g = self.geometry
        width, height = (round(side / g.base_stride) for side in size)
        valid = self.compress[self.strides.index(g.base_stride)](map_)[..., :height, :width]
        side = 2 * g.patch
        whole = valid
        if valid.shape[-2:] != (side, side):
            whole = F.interpolate(valid, (side, side), mode="bilinear", align_corners=False)
        p = g.patch
        quadrants = [whole[..., v : v + p, u : u + p] for v in (0, p) for u in (0, p)]
        globals_ = [self.whole(F.relu(whole))]
        if self.training:
            globals_ += [globals_[0].flip(axes) for axes in ((-1,), (-2,), (-1, -2))]
        patches = torch.stack((*quadrants, *globals_), 1)
        raw = self.base_mlp(self.tokens(patches.flatten(0, 1), g.base_stride))
        return raw.reshape(*patches.shape[:2], g.base_anchors, 5)

    def probe(self, compressed, image, corners, stride: int):
        """Raw predictions [M, A, 5] of the patches at cells `corners` [M, (u, v)] of images `image` [M]."""
        g = self.geometry
        patches = torch.stack(
            [compressed[i, :, v : v + g.patch, u : u + g.patch] for i, (u, v) in zip(image.tolist(), corners.tolist())]
        )
        return self.probe_mlp(self.tokens(patches, stride)).reshape(len(image), g.probe_anchors, 5)

    def decode_base(self, raw, size) -> np.ndarray:
        """[B, 5 or more, A, 5] -> anchors [B, 5*A, 5]."""
        raw = raw[:, :5]
        unit = torch.tensor((*size, *size), dtype=raw.dtype, device=raw.device)
        share = torch.tensor((0.5, 0.5, 0.5, 0.5, 1.0), dtype=raw.dtype, device=raw.device)[:, None, None]
        offset = torch.zeros(5, 1, 4, dtype=raw.dtype, device=raw.device)
        offset[1, :, 0] = offset[3, :, 0] = offset[2, :, 1] = offset[3, :, 1] = 0.5
        boxes = unit * (share * raw[..., :4].sigmoid() + offset)
        return self.anchors(boxes, raw[..., 4]).reshape(len(raw), -1, 5)

    def decode_probe(self, raw, corners, stride: int, size) -> np.ndarray:
        """[M, A, 5] at `corners` -> anchors [M, A, 5]."""
        g = self.geometry
        boxes = stride * g.patch * raw[..., :4].sigmoid()
        boxes[..., :2] += stride * torch.as_tensor(corners, dtype=raw.dtype, device=raw.device)[:, None]
        anchors = self.anchors(boxes, raw[..., 4])
        outside = (anchors[..., 0] >= size[0]) | (anchors[..., 1] >= size[1])
        anchors[..., 4] = np.where(outside, -np.inf, anchors[..., 4])
        return anchors

    def anchors(self, boxes, logits) -> np.ndarray:
        anchors = torch.cat((boxes, logits[..., None]), -1).cpu().numpy().copy()
        small = (anchors[..., 2:4] < self.geometry.smallest).any(-1)
        anchors[..., 4] = np.where(small, -np.inf, anchors[..., 4])
        return anchors

    def selected(self, anchors, stride: int) -> np.ndarray:
        """Mask [A] of the anchors that ask for a look at the map of this stride: unsure and small."""
        g = self.geometry
        unsure = (anchors[:, 4] > logit(g.probe_low)) & (anchors[:, 4] < logit(g.probe_high))
        return unsure & (anchors[:, 2:4] < g.probe_side * g.patch * stride).all(-1)

    def corners(self, anchors, stride: int, size) -> np.ndarray:
        """Cells [M, (u, v)] of the patches around the anchors, best first, overlapping ones dropped, capped."""
        g = self.geometry
        kept = separate(anchors[:, :2], anchors[:, 4], g.patch * stride, g.patch_overlap)[: g.patch_cap]
        corner = np.floor(anchors[kept, :2] / stride - g.patch / 2).astype(np.int64)
        cells = np.array([math.ceil(side / stride) for side in size])
        return np.maximum(np.minimum(corner, cells - g.patch), 0)

    def remaining(self, anchors, selected, first: bool) -> np.ndarray:
        """Anchors that go on: sure enough and not probed; on the base map at least `min_anchors`."""
        g = self.geometry
        kept = anchors[(anchors[:, 4] > logit(g.keep)) & ~selected]
        if first and len(kept) < g.min_anchors:
            kept = anchors[np.argsort(-anchors[:, 4], kind="stable")[: g.min_anchors]]
        return kept

    def forward(self, maps, size, supply=None, probing: bool = True) -> Anchors:
        """Maps by stride, size (width, height) of the picture. `supply`: the patches that training adds.

        `supply.patches(image, stride, generated)` returns more corners [K, 2] for the loss. While `supply.replaces`
        is set, anchors go on from those in place of the generated ones, and probed anchors stay.
        """
        g = self.geometry
        base = self.base(maps[g.base_stride], size)
        current = list(self.decode_base(base.detach(), size))
        open_ = [True] * len(current)  # images that still probe
        out = [[] for _ in current]
        probes = []
        for step, stride in enumerate(g.probe_strides if probing else ()):
            image, corners, generated = [], [], []
            for i, anchors in enumerate(current):
                mask = self.selected(anchors, stride) & open_[i]
                open_[i] = bool(mask.sum() >= g.min_selected)
                asked = np.zeros((0, 2), np.int64)
                if open_[i]:
                    asked = self.corners(anchors[mask], stride, size)
                added = np.zeros((0, 2), np.int64)
                if supply is not None:
                    added = supply.patches(i, stride, asked)
                    if supply.replaces:
                        asked, mask, open_[i] = asked[:0], mask & False, len(added) > 0
                for patch, own in ((asked, True), (added, supply is not None and supply.replaces)):
                    image += [i] * len(patch)
                    corners += patch.tolist()
                    generated += [own] * len(patch)
                if open_[i]:
                    out[i].append(self.remaining(anchors, mask, step == 0))
            if not image:
                break
            image, corners = np.array(image), np.array(corners)
            compressed = self.compress[self.strides.index(stride)](maps[stride])
            raw = self.probe(compressed, image, corners, stride)
            generated = np.array(generated)
            probes.append(Probe(stride, image, corners, raw, generated))
            fresh = self.decode_probe(raw.detach(), corners, stride, size)
            for i in np.flatnonzero(open_):
                current[i] = fresh[(image == i) & generated].reshape(-1, 5)
        for i, anchors in enumerate(current):
            out[i].append(self.remaining(anchors, np.zeros(len(anchors), bool), not out[i]))
        boxes, valid = pack([self.capped(np.concatenate(parts)) for parts in out])
        return Anchors(boxes.to(base), valid.to(base.device), base, probes)

    def capped(self, anchors) -> np.ndarray:
        limit = self.geometry.max_anchors
        return anchors if len(anchors) <= limit else anchors[np.argsort(-anchors[:, 4], kind="stable")[:limit]]


def separate(centres, scores, side: float, threshold: float) -> list[int]:
    """Greedy suppression among squares of equal side: indices kept, best first, ties by lower index."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        gap = np.abs(centres[kept] - centres[index])
        common = np.maximum(side - gap, 0).prod(-1)
        if not (common / (2 * side**2 - common) > threshold).any():
            kept.append(index)
    return kept


def pack(anchors: list[np.ndarray]):
    """Arrays [N_i, 5] -> boxes [B, max N, 4] and valid [B, max N]. Spare rows hold a harmless box."""
    count = max(len(part) for part in anchors)
    boxes = np.full((len(anchors), count, 4), 16.0)
    valid = np.zeros((len(anchors), count), bool)
    for i, part in enumerate(anchors):
        boxes[i, : len(part)] = part[:, :4]
        valid[i, : len(part)] = True
    return torch.from_numpy(boxes), torch.from_numpy(valid)
