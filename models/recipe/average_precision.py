"""Average precision of detections, the COCO way: 101 recall levels, greedy matching by score, mean over classes.

Own code, so that the recipe needs no compiled package; a test compares it with pycocotools. Boxes are xyxy.
"""

from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # to the bit those of pycocotools: an overlap may be 3/5
RECALLS = np.linspace(0, 1, 101)
LIMIT = 100  # detections of a picture and class that count


@dataclass
class Boxes:
    """Of one picture: boxes [N, 4], classes [N], and scores [N] of detections."""

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-12)


def hits(found: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """Which detections, best first, take a truth of their own: the free one that overlaps most."""
    overlap = iou(found, truth)
    free = np.ones(len(truth), bool)
    taken = np.zeros(len(found), bool)
    for row, overlaps in enumerate(overlap):
        candidates = np.where(free, overlaps, -1)
        if len(candidates) and candidates.max() >= min(threshold, 1 - 1e-10):
            # Among equal overlaps the last one, as pycocotools does.
            free[len(candidates) - 1 - candidates[::-1].argmax()] = False
            taken[row] = True
    return taken


def curve(correct: np.ndarray, scores: np.ndarray, truths: int) -> float:
    """Mean over the recall levels of the best precision at that recall or above."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(correct[order])
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(right / truths, RECALLS, side="left")
    return float(np.where(index < len(right), np.append(precision, 0)[np.minimum(index, len(right))], 0).mean())


def average_precision(detections: list[Boxes], truths: list[Boxes], classes: int) -> np.ndarray:
    """[classes, thresholds]; a class that no picture has is NaN."""
    table = np.full((classes, len(THRESHOLDS)), np.nan)
    for label in range(classes):
        pairs = []
        for found, truth in zip(detections, truths):
            chosen = np.flatnonzero(found.classes == label)
            chosen = chosen[np.argsort(-found.scores[chosen], kind="stable")[:LIMIT]]
            pairs.append((found.boxes[chosen], found.scores[chosen], truth.boxes[truth.classes == label]))
        total = sum(len(truth) for _, _, truth in pairs)
        if total == 0:
            continue
        scores = np.concatenate([score for _, score, _ in pairs])
        for column, threshold in enumerate(THRESHOLDS):
            correct = np.concatenate([hits(box, truth, threshold) for box, _, truth in pairs])
            table[label, column] = curve(correct, scores, total) if len(scores) else 0.0
    return table


def recall(proposals: list[np.ndarray], truths: list[Boxes]) -> tuple[float, float]:
    """Part of all truths that some proposal overlaps by half; and the mean of that over the thresholds."""
    best = np.concatenate(
        [
            iou(box, truth.boxes).max(0) if len(box) else np.zeros(len(truth.boxes))
            for box, truth in zip(proposals, truths)
        ]
    )
    parts = [(best >= threshold).mean() for threshold in THRESHOLDS]
    return float(parts[0]), float(np.mean(parts))
