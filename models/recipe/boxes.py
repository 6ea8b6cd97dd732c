"""Box arithmetic and sampling of pyramid maps, as the sparse detector and its dense rival use them.

Boxes are pixels of the input picture, `cxcywh` (centre, width, height) unless a name says `xyxy` (corners). A box state
`xyzr` counts in units of UNIT pixels: centre x, y, then z = log2 of the side of the square of equal area and r = half
of log2(height / width), so that w = 2^(z - r), h = 2^(z + r). Maps are a dictionary from stride to [B, C, H, W].

Sources: Gao et al. 2022 (AdaMixer: state, 3-D sampling, IoF bias), He et al. 2017 (RoIAlign), Rezatofighi et al. 2019
(generalised IoU).
"""

import math

import torch
from torch.nn import functional as F

UNIT = 4.0
TINY = 1e-7


def to_corners(boxes):
    """cxcywh -> xyxy."""
    centre, size = boxes[..., :2], boxes[..., 2:4]
    return torch.cat((centre - size / 2, centre + size / 2), -1)


def to_centres(corners):
    """xyxy -> cxcywh."""
    low, high = corners[..., :2], corners[..., 2:4]
    return torch.cat(((low + high) / 2, high - low), -1)


def to_state(boxes):
    """cxcywh in pixels -> xyzr."""
    x, y, w, h = (boxes / UNIT).unbind(-1)
    z = torch.log2(w * h + TINY) / 2
    r = torch.log2(h / (w + TINY) + TINY) / 2
    return torch.stack((x, y, z, r), -1)


def from_state(state):
    """xyzr -> cxcywh in pixels."""
    x, y, z, r = state.unbind(-1)
    return torch.stack((x, y, torch.exp2(z - r), torch.exp2(z + r)), -1) * UNIT


def refine(state, delta):
    """Moves the centre in units of the box's side 2^z, and z and r by addition."""
    side = torch.exp2(state[..., 2:3])
    return torch.cat((state[..., :2] + delta[..., :2] * side, state[..., 2:] + delta[..., 2:]), -1)


def overlaps(a, b):
    """Area common to each a [..., N, 4] and each b [..., M, 4], both xyxy: [..., N, M]."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    return (high - low).clamp(min=0).prod(-1)


def areas(corners):
    return (corners[..., 2:] - corners[..., :2]).prod(-1)


def iof(corners):
    """Intersection over foreground: common area over the area of the row's box. [..., N, 4] -> [..., N, N]."""
    return overlaps(corners, corners) / areas(corners).clamp(min=1e-6)[..., :, None]


def iou(a, b):
    """Every a with every b, xyxy."""
    common = overlaps(a, b)
    return common / (areas(a)[..., :, None] + areas(b)[..., None, :] - common).clamp(min=1e-9)


def paired_iou(a, b):
    """IoU and generalised IoU of a[i] with b[i], xyxy: two tensors [...]."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = (areas(a) + areas(b) - common).clamp(min=1e-9)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1).clamp(min=1e-9)
    plain = common / union
    return plain, plain - (hull - union) / hull


def position_code(state, channels: int, unit: float):
    """Sines and cosines of x/unit, y/unit, z, r: channels/4 features each. [..., 4] -> [..., channels]."""
    features = channels // 4
    exponent = 2 * torch.div(torch.arange(features, device=state.device), 2, rounding_mode="floor") / features
    rates = (1 / 10000**exponent.double()).to(state.dtype)
    scaled = state / torch.tensor((unit, unit, 1, 1), dtype=state.dtype, device=state.device)
    angles = scaled[..., None] * rates
    code = torch.where(torch.arange(features, device=state.device) % 2 == 0, angles.sin(), angles.cos())
    return code.flatten(-2)


def level_of(boxes, sides):
    """Index of the map that a box is pooled from: how many of `sides` the root of its area reaches. [...] long."""
    root = torch.log2((boxes[..., 2] * boxes[..., 3]).clamp(min=1e-12)) / 2
    return sum((root - math.log2(side) + 1e-6 >= 0).long() for side in sides)


def roi_align(maps, boxes, bins: int, samples: int, sides):
    """RoIAlign without the half-pixel shift. Boxes [B, N, 4] -> [B, N, C, bins, bins].

    Each bin is the mean of samples x samples bilinear samples. A sample outside [-1, size] is zero, else its
    coordinate is clamped to [0, size - 1]. The map of a box follows from its size (`level_of`).
    """
    level = level_of(boxes, sides)
    corners = to_corners(boxes)
    count = bins * samples
    steps = (torch.arange(count, dtype=boxes.dtype, device=boxes.device) + 0.5) / count
    pooled = 0
    for index, (stride, map_) in enumerate(sorted(maps.items())):
        low = corners[..., :2] / stride
        size = (corners[..., 2:] / stride - low).clamp(min=1)
        points = low[..., None, :] + size[..., None, :] * steps[:, None]  # [B, N, count, (x, y)]
        x, y = points[..., 0], points[..., 1]
        height, width = map_.shape[-2:]
        inside = ((x >= -1) & (x <= width))[..., None, :] & ((y >= -1) & (y <= height))[..., :, None]
        across, down = x * 2 / max(width - 1, 1) - 1, y * 2 / max(height - 1, 1) - 1
        grid = torch.stack(torch.broadcast_tensors(across[..., None, :], down[..., :, None]), -1)
        batch, boxes_ = grid.shape[:2]
        values = F.grid_sample(
            map_, grid.reshape(batch, boxes_ * count, count, 2), padding_mode="border", align_corners=True
        ).reshape(batch, -1, boxes_, count, count)
        mask = inside & (level == index)[..., None, None]
        pooled = pooled + values * mask[:, None]
    batch, channels, boxes_ = pooled.shape[:3]
    pooled = pooled.reshape(batch, channels, boxes_, bins, samples, bins, samples).mean((4, 6))
    return pooled.transpose(1, 2)


def sample_3d(maps, points, groups: int):
    """AdaMixer's 3-D sampling. Points [B, N, G, P, (x, y, zeta)] in units of UNIT pixels -> [B, N, G, P, C/G].

    On each map a bilinear sample at the point, zero outside; maps are averaged with softmax(-(zeta - log2(stride /
    UNIT))^2 / 2). Group g reads its own slice of the channels.
    """
    strides = sorted(maps)
    levels = torch.tensor([math.log2(stride / UNIT) for stride in strides], dtype=points.dtype, device=points.device)
    weights = torch.softmax(-((points[..., 2:] - levels) ** 2) / 2, -1)
    batch, count, _, each, _ = points.shape
    place = points[..., :2].transpose(1, 2).reshape(batch * groups, count, each, 2)
    out = 0
    for index, stride in enumerate(strides):
        map_ = maps[stride]
        height, width = map_.shape[-2:]
        size = torch.tensor((width, height), dtype=points.dtype, device=points.device)
        grid = place * (UNIT / stride) / size * 2 - 1  # the map coordinate is UNIT * x / stride - 1/2
        values = F.grid_sample(map_.reshape(batch * groups, -1, height, width), grid, align_corners=False)
        values = values.reshape(batch, groups, -1, count, each).permute(0, 3, 1, 4, 2)
        out = out + values * weights[..., index, None]
    return out


def nms(corners, scores, threshold: float):
    """Indices that survive greedy suppression (IoU above the threshold), best first; ties by lower index."""
    order = torch.argsort(scores, descending=True, stable=True)
    alive = iou(corners, corners) <= threshold
    kept = []
    candidates = torch.ones(len(scores), dtype=torch.bool, device=corners.device)
    for index in order.tolist():
        if candidates[index]:
            kept.append(index)
            candidates &= alive[index]
    return torch.tensor(kept, dtype=torch.long, device=corners.device)
