"""The rival: a dense anchor-free head with non-maximum suppression, on the same maps.

Every cell of every map answers for one box: class logits and the distances to its four sides. Two depthwise-separable
blocks, shared by the levels but for their norms (what is normal differs by level: with one norm, training normalises
each level by itself and evaluation all by their mixture), then a 1x1 convolution. Cells are assigned to boxes by how well they already score and
overlap (Feng et al. 2021, TOOD); the score learns the overlap (Li et al. 2020, quality focal loss).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from asag import Detections
from boxes import iou, nms, paired_iou, to_centres, to_corners

SCORE_POWER, OVERLAP_POWER = 0.5, 6.0
CELLS_PER_BOX = 10
REACH = 8.0  # pixels: half of the least square whose cells may answer for a box
CLASS, OVERLAP = 1.0, 2.0
SUPPRESS = 0.6
LIMIT = 100
FLOOR = 0.01  # scores below this are not looked at


class DenseHead(nn.Module):
    """Maps {stride: [B, C, H, W]} -> logits [B, cells, K], boxes [B, cells, 4] cxcywh, centres [cells, 2]."""

    def __init__(self, channels: int, classes: int, strides):
        super().__init__()
        self.classes = classes
        self.filters = nn.ModuleList()
        for _ in range(2):
            self.filters.append(nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False))
            self.filters.append(nn.Conv2d(channels, channels, 1, bias=False))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(channels) for _ in self.filters) for _ in strides)
        self.predict = nn.Conv2d(channels, classes + 4, 1)
        self.scales = nn.Parameter(torch.ones(len(strides)))
        nn.init.normal_(self.predict.weight, std=0.01)
        nn.init.zeros_(self.predict.bias)
        nn.init.constant_(self.predict.bias[:classes], -math.log(99))

    def forward(self, maps):
        logits, boxes, centres = [], [], []
        for index, (stride, map_) in enumerate(sorted(maps.items())):
            out = map_
            for number, (convolution, norm) in enumerate(zip(self.filters, self.norms[index])):
                out = norm(convolution(out))
                out = F.relu(out) if number % 2 else out
            out = self.predict(out)
            height, width = out.shape[-2:]
            y, x = torch.meshgrid(
                torch.arange(height, device=out.device), torch.arange(width, device=out.device), indexing="ij"
            )
            centre = (torch.stack((x, y), -1).reshape(-1, 2) + 0.5) * stride
            out = out.flatten(2).transpose(1, 2)
            # One cell at the start, never more than e^4 of them.
            distances = (out[..., self.classes :] * self.scales[index]).clamp(max=4).exp() * stride
            corners = torch.cat((centre - distances[..., :2], centre + distances[..., 2:]), -1)
            logits.append(out[..., : self.classes])
            boxes.append(to_centres(corners))
            centres.append(centre)
        return torch.cat(logits, 1), torch.cat(boxes, 1), torch.cat(centres)


@torch.no_grad()
def assign(logits, corners, centres, truth, classes):
    """For one picture: for each cell the index of its box or -1, and the score that it should learn.

    logits [A, K], corners [A, 4], centres [A, 2]; truth [T, 4] xyxy, classes [T].
    """
    overlap = iou(truth, corners)  # [T, A]
    score = logits.sigmoid()[:, classes].T
    # A box too small to hold the centres of some cells still has those nearest to its middle.
    middle, half = (truth[:, None, :2] + truth[:, None, 2:]) / 2, (truth[:, None, 2:] - truth[:, None, :2]) / 2
    inside = ((centres - middle).abs() < half.clamp(min=REACH)).all(-1)
    quality = score**SCORE_POWER * overlap**OVERLAP_POWER * inside
    chosen = torch.zeros_like(inside)
    chosen.scatter_(1, quality.topk(min(CELLS_PER_BOX, quality.shape[1]), 1).indices, True)
    chosen &= inside
    owner = torch.where(chosen, overlap, -1.0)
    best, index = owner.max(0)
    index = torch.where(best >= 0, index, -1)
    own = chosen & (index[None] == torch.arange(len(truth), device=truth.device)[:, None])
    quality = quality * own
    peak = (overlap * own).amax(1, keepdim=True)
    target = (quality / quality.amax(1, keepdim=True).clamp(min=1e-12) * peak).amax(0)
    return index, target


def dense_loss(logits, boxes, centres, targets):
    """Loss of a batch and its parts; targets: one `Targets` a picture."""
    corners = to_corners(boxes)
    wanted = torch.zeros_like(logits)
    overlap_loss = logits.new_zeros(())
    total = logits.new_zeros(())
    for i, target in enumerate(targets):
        if len(target.classes) == 0:
            continue
        truth = to_corners(target.boxes)
        index, score = assign(logits[i].detach(), corners[i].detach(), centres, truth, target.classes)
        cells = (index >= 0).nonzero().squeeze(1)
        wanted[i, cells, target.classes[index[cells]]] = score[cells]
        _, generalised = paired_iou(corners[i, cells], truth[index[cells]])
        overlap_loss = overlap_loss + ((1 - generalised) * score[cells]).sum()
        total = total + score[cells].sum()
    total = total.clamp(min=1)
    distance = (logits.sigmoid() - wanted).abs().detach() ** 2
    classify = (F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * distance).sum() / total
    parts = {"classes": CLASS * classify, "boxes": OVERLAP * overlap_loss / total}
    return sum(parts.values()), parts


def suppressed(logits, boxes) -> list[Detections]:
    """Per class non-maximum suppression of each picture, best first."""
    found = []
    for scores, box in zip(logits.sigmoid(), boxes):
        kept, values, labels = [], [], []
        for label in range(scores.shape[-1]):
            candidates = (scores[:, label] > FLOOR).nonzero().squeeze(1)
            survivors = candidates[nms(to_corners(box[candidates]), scores[candidates, label], SUPPRESS)]
            kept.append(box[survivors])
            values.append(scores[survivors, label])
            labels.append(torch.full_like(survivors, label))
        values = torch.cat(values)
        order = torch.argsort(values, descending=True, stable=True)[:LIMIT]
        found.append(Detections(torch.cat(kept)[order], values[order], torch.cat(labels)[order]))
    return found
