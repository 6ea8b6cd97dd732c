"""Training of the sparse head: one-to-one matching, Query Weighting, losses of anchors and of queries.

Every ground-truth box is matched to one query (Hungarian method). A matched pair counts by how good it already is
(Query Weighting): `weights` turns class probability and IoU into the weights of the positive and the negative term, so
that poor anchors neither teach nor are punished much. Small objects count up to four times (`emphasis`).

Targets of a picture: boxes [T, 4] cxcywh in pixels and classes [T]. Anchors are matched per patch, without classes, in
units of the patch; a patch answers for the objects whose centre it holds, clipped to it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from asag_generator import Anchors, Geometry, separate
from boxes import iou, paired_iou, to_corners

CLASS, DISTANCE, OVERLAP = 2.0, 5.0, 2.0  # weights of the terms for queries, and of the matching cost
ANCHOR_CLASS, ANCHOR_DISTANCE, ANCHOR_OVERLAP = 8.0, 4.0, 2.0
QUALITY_CLASS, QUALITY_OVERLAP = 0.4, 0.6  # exponents of class probability and IoU
CERTAIN = 1 / (1 + np.exp(-3.0))
OFFSET = 1 / (1 + np.exp(1.5)) / CERTAIN  # of the negative weight: zero for a pair without any quality
TINY = 1e-8


@dataclass
class Targets:
    """Of one picture: boxes [T, 4] cxcywh in pixels, classes [T]."""

    boxes: torch.Tensor
    classes: torch.Tensor


def rise(x):
    """Maps quality 0..1 to 0.19..1."""
    return torch.sigmoid(4.5 * (x - 1 / 3)) / CERTAIN


def weights(probability, overlap):
    """Query Weighting: weights of the positive and of the negative term of a matched pair."""
    certain, placed = probability**QUALITY_CLASS, overlap**QUALITY_OVERLAP
    doubt = torch.where(placed < 0.5, torch.ones_like(placed), 4 / 3 * (1 - placed**2))
    return rise(certain * placed), rise(certain * doubt) - OFFSET


def emphasis(boxes, whole: bool = False):
    """4 for the smallest box to 1 for one that fills the picture; the other way round for the whole-picture patch."""
    side = (boxes[..., 2] * boxes[..., 3]).clamp(min=0).sqrt()
    return 1 + 3 * side if whole else 4 - 3 * side


def pairwise_cost(probabilities, boxes, target_boxes, target_classes, whole: bool = False):
    """Cost of each query for each target, boxes in units of the picture. [..., N, K], [..., N, 4] -> [..., N, T]."""
    present = 0.25 * (1 - probabilities) ** 2 * -torch.log(probabilities + TINY)
    absent = 0.75 * probabilities**2 * -torch.log(1 - probabilities + TINY)
    index = target_classes[..., None, :].expand(*probabilities.shape[:-1], -1)
    classify = (present - absent).gather(-1, index)
    distance = (boxes[..., :, None, :] - target_boxes[..., None, :, :]).abs().sum(-1)
    _, overlap = paired_iou(to_corners(boxes)[..., :, None, :], to_corners(target_boxes)[..., None, :, :])
    cost = CLASS * classify + DISTANCE * distance - OVERLAP * overlap
    return cost * emphasis(target_boxes, whole)[..., None, :]


def match(cost, valid, counts):
    """Cost [B, N, T] -> image, query and target of each matched pair, [M] each."""
    found = []
    for i, (matrix, mask, count) in enumerate(zip(cost.detach().cpu().numpy(), valid.cpu().numpy(), counts)):
        rows = np.flatnonzero(mask)
        query, target = linear_sum_assignment(matrix[rows, :count])
        found.append(np.stack((np.full(len(query), i), rows[query], target)))
    return torch.from_numpy(np.concatenate(found, 1)).to(cost.device)


def pad(targets: list[Targets]):
    """-> boxes [B, T, 4], classes [B, T], counts."""
    counts = [len(target.classes) for target in targets]
    longest = max(1, *counts)
    boxes = torch.stack([F.pad(target.boxes, (0, 0, 0, longest - count)) for target, count in zip(targets, counts)])
    classes = torch.stack([F.pad(target.classes, (0, longest - count)) for target, count in zip(targets, counts)])
    return boxes, classes, counts


def absent_loss(logits):
    """p^2 times the cross-entropy against absence, elementwise."""
    return logits.sigmoid() ** 2 * F.softplus(logits)


def query_loss(logits, boxes, valid, targets, total: float):
    """Class, distance and overlap terms of one output; boxes and targets in units of the picture.

    logits [B, N, K], boxes [B, N, 4], valid [B, N]; targets: what `pad` gives. Sums over pairs, divided by `total`.
    """
    target_boxes, target_classes, counts = targets
    probabilities = logits.sigmoid()
    with torch.no_grad():
        cost = pairwise_cost(probabilities, boxes, target_boxes, target_classes)
        image, query, target = match(cost, valid, counts)
    paired, wanted = boxes[image, query], target_boxes[image, target]
    overlap, generalised = paired_iou(to_corners(paired), to_corners(wanted))
    label = target_classes[image, target]
    with torch.no_grad():
        positive, negative = weights(probabilities[image, query, label], overlap)
        positive, negative = positive * emphasis(wanted), negative * emphasis(wanted)
    loss = absent_loss(logits) * valid[..., None]
    own = logits[image, query, label]
    terms = positive * F.softplus(-own) + negative * F.softplus(own) - loss[image, query, label]
    classify = (loss.sum() + terms.sum()) / total
    distance = ((paired - wanted).abs().sum(-1) * positive).sum() / total
    return classify, distance, ((1 - generalised) * positive).sum() / total


def anchor_loss(raw, boxes: list[np.ndarray], whole: bool = False):
    """Weighted loss of the raw predictions [P, A, 5] of patches whose targets [t, 4] are in units of the patch."""
    targets = [Targets(torch.from_numpy(box).to(raw), torch.zeros(len(box), dtype=torch.long)) for box in boxes]
    target_boxes, target_classes, counts = pad(targets)
    target_classes = target_classes.to(raw.device)
    predicted, logits = raw[..., :4].sigmoid(), raw[..., 4]
    with torch.no_grad():
        cost = pairwise_cost(logits.sigmoid()[..., None], predicted, target_boxes, target_classes, whole)
        image, query, target = match(cost, torch.ones_like(logits, dtype=torch.bool), counts)
        near = iou(to_corners(predicted), to_corners(target_boxes)).amax(-1) >= 0.5
    paired, wanted = predicted[image, query], target_boxes[image, target]
    overlap, generalised = paired_iou(to_corners(paired), to_corners(wanted))
    factor = emphasis(wanted, whole)
    own = logits[image, query]
    with torch.no_grad():
        quality = overlap.clamp(0, 1)
        positive = rise(own.sigmoid() ** QUALITY_CLASS * quality**QUALITY_OVERLAP) * factor
    loss = absent_loss(logits) * ~near
    focal = (quality - own.sigmoid()) ** 2 * F.binary_cross_entropy_with_logits(own, quality, reduction="none")
    total = max(sum(counts), 1)
    classify = (loss.sum() - loss[image, query].sum() + (focal * factor).sum()) / total
    distance = ((paired - wanted).abs().sum(-1) * positive).sum() / total
    return (
        ANCHOR_CLASS * classify
        + ANCHOR_DISTANCE * distance
        + ANCHOR_OVERLAP * ((1 - generalised) * positive).sum() / total
    )


def in_patch(boxes: np.ndarray, corner, side, only_small: bool = False) -> np.ndarray:
    """Targets of a patch (corner and side (x, y) in pixels): centre inside, clipped, in units of the patch."""
    corner, side = np.asarray(corner, float), np.asarray(side, float)
    inside = ((boxes[:, :2] >= corner) & (boxes[:, :2] < corner + side)).all(-1)
    if only_small:
        inside &= (boxes[:, 2:] <= side).all(-1)
    boxes = boxes[inside]
    low = np.clip((boxes[:, :2] - boxes[:, 2:] / 2 - corner) / side, 0, 1)
    high = np.clip((boxes[:, :2] + boxes[:, 2:] / 2 - corner) / side, 0, 1)
    return np.concatenate(((low + high) / 2, high - low), 1)


def flipped(boxes: np.ndarray) -> list[np.ndarray]:
    """Boxes in units of the picture as they are, mirrored left-right, top-bottom, and both."""
    out = []
    for vertical in (False, True):
        for horizontal in (False, True):
            centre = np.where((horizontal, vertical), 1 - boxes[:, :2], boxes[:, :2])
            out.append(np.concatenate((centre, boxes[:, 2:]), 1))
    return out


def generator_loss(geometry: Geometry, anchors: Anchors, boxes: list[np.ndarray], size):
    """Losses of the base patches and of the probed ones; boxes [T, 4] in pixels of each image."""
    half = np.array(size) / 2
    quadrants, wholes = [], []
    for box in boxes:
        for v in (0, 1):
            for u in (0, 1):
                quadrants.append(in_patch(box, half * (u, v), half))
        wholes += flipped(box / np.array((*size, *size)))
    loss = anchor_loss(anchors.base[:, :4].flatten(0, 1), quadrants)
    loss = loss + anchor_loss(anchors.base[:, 4:8].flatten(0, 1), wholes, whole=True)
    for probe in anchors.probes:
        side = np.full(2, probe.stride * geometry.patch)
        patches = [
            in_patch(boxes[i], corner * probe.stride, side, only_small=True)
            for i, corner in zip(probe.image, probe.corners)
        ]
        # As many objects as patches would hold if each image had four: rare small objects do not shout.
        loss = loss + anchor_loss(probe.raw, patches) * min(1.0, 4 * len(boxes) / len(patches))
    return loss


class Supply:
    """Patches that training adds to the generated ones: around small objects, then random ones, until `least`."""

    def __init__(self, geometry: Geometry, boxes: list[np.ndarray], size, generator, replaces: bool, least: int = 4):
        self.geometry, self.boxes, self.size = geometry, boxes, size
        self.generator, self.replaces, self.least = generator, replaces, least

    def patches(self, image: int, stride: int, generated: np.ndarray) -> np.ndarray:
        g, random = self.geometry, self.generator
        side = g.patch * stride
        boxes = self.boxes[image]
        small = boxes[(boxes[:, 2:] < side / 2).all(-1), :2]
        kept = small[separate(small, random.random(len(small)), side, g.patch_overlap)]
        wanted = max(0, self.least - len(generated))
        centres = (kept + random.uniform(-side / 4, side / 4, kept.shape))[:wanted]
        if not self.replaces:
            spare = random.uniform(0, 1, (wanted - len(centres), 2)) * self.size
            centres = np.concatenate((centres, spare))
        cells = np.array([-(-edge // stride) for edge in self.size])
        return np.clip(np.floor(centres / stride - g.patch / 2), 0, cells - g.patch).astype(np.int64)


def total_loss(geometry: Geometry, anchors: Anchors, outputs, targets: list[Targets], size):
    """The loss of a step and its parts by name."""
    unit = outputs[0][1].new_tensor((*size, *size))
    padded = pad([Targets(target.boxes / unit, target.classes) for target in targets])
    total = max(1, sum(padded[2]))
    parts = {"anchors": generator_loss(geometry, anchors, [t.boxes.cpu().numpy() for t in targets], size)}
    for index, (logits, boxes) in enumerate(outputs):
        classify, distance, overlap = query_loss(logits, boxes / unit, anchors.valid, padded, total)
        name = "relation" if index == 0 else f"stage{index}"
        parts[name] = CLASS * classify + DISTANCE * distance + OVERLAP * overlap
    return sum(parts.values()), parts
