"""A detector: a stitchable backbone, the neck, and one of the heads that the comparison is about.

| head | what it is |
|---|---|
| dense | anchor-free cells, non-maximum suppression |
| generator | anchors and relation block only; classes and boxes come from the relation block |
| asag | the whole sparse head, AdaMixer-style stage |
| asag-no-probing | the same without patches of the finer map, in training and after |
| asag-sparse | the whole sparse head, Sparse R-CNN-style stage |

BLOOD is the geometry for blood cells: MICRO with room for 24 objects, because pictures hold up to 30, and with a closer
look at anchors of up to 0.65 of a patch: the base patches see a platelet (12 pixels) as something of the size of the
smallest red cells (22 to 26 pixels), so at half a patch (20 pixels) no anchor ever asked for one.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

import asag_loss
from asag import Asag, Detections, best
from asag_generator import MICRO, Geometry
from boxes import to_corners
from dense import DenseHead, dense_loss, suppressed
from pyramid import ALONE, STRIDES, Config, Family, Neck

SIDE = 160  # pixels of the input, both ways
MEAN = (0.66, 0.64, 0.68)
STD = (0.25, 0.25, 0.22)
BLOOD = replace(MICRO, max_anchors=24, probe_side=0.65)
STAGES = 3  # parallel stages in training, of which the first is used after
IMITATION = 2.0  # weight of the term that brings the maps of stitched configs to those of the large anchor
HEADS = ("dense", "generator", "asag", "asag-no-probing", "asag-sparse")


@dataclass
class Found:
    """Of one picture: detections, and the boxes that the generator and the relation block gave (sparse heads only)."""

    detections: Detections
    anchors: torch.Tensor | None = None
    proposals: torch.Tensor | None = None
    patches: int = 0


def normalise(pixels: np.ndarray) -> torch.Tensor:
    """[N, H, W, 3] u8 -> [N, 3, H, W] float."""
    scaled = (torch.from_numpy(pixels).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return scaled.permute(0, 3, 1, 2)


def imitation(maps, same: list[int]):
    """How far the last maps are from those of the same pictures before, with indices `same`.

    Mean over the levels of the squared difference, in units of the variance.
    """
    terms = []
    for level in maps.values():
        taught, teacher = level[-len(same) :], level[same].detach()
        terms.append((taught - teacher).square().mean() / teacher.var())
    return torch.stack(terms).mean()


class Detector(nn.Module):
    def __init__(self, head: str, geometry: Geometry = BLOOD, configs=ALONE):
        super().__init__()
        self.kind, self.geometry, self.configs = head, geometry, tuple(configs)
        self.family = Family(self.configs)
        self.neck = Neck(geometry.channels)
        if head == "dense":
            self.head = DenseHead(geometry.channels, geometry.classes, STRIDES)
        else:
            stage = "sparse" if head == "asag-sparse" else "adamixer"
            self.head = Asag(geometry, stage, 0 if head == "generator" else STAGES)
        self.probing = head != "asag-no-probing"
        self.settled = False  # batch norms keep their statistics, also in training

    def train(self, mode: bool = True):
        super().train(mode)
        for norm in self.norms() if self.settled else ():
            norm.eval()
        return self

    def norms(self):
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def maps(self, shares: list[tuple[Config, torch.Tensor]]):
        """Maps of the images of all shares, in their order: each share runs in its own config."""
        parts = [self.neck.lateral(self.family(images, config)) for config, images in shares]
        return self.neck([torch.cat(level) for level in zip(*parts)])

    def loss(self, shares, targets, random: np.random.Generator, first: bool, same: list[int] = ()):
        """Loss and parts. `first`: the generator is not to be trusted yet; patches come from the targets.

        The last pictures are those with the indices `same` once more, in other configs: their maps learn from these.
        """
        maps = self.maps(shares)
        loss, parts = self.head_loss(maps, targets, random, first)
        if same:
            parts["imitation"] = IMITATION * imitation(maps, same)
            loss = loss + parts["imitation"]
        return loss, parts

    def head_loss(self, maps, targets, random, first: bool):
        if self.kind == "dense":
            return dense_loss(*self.head(maps), targets)
        size = (SIDE, SIDE)
        supply = None
        if self.probing:
            boxes = [target.boxes.cpu().numpy().astype(float) for target in targets]
            supply = asag_loss.Supply(self.geometry, boxes, size, random, first, self.geometry.patch_cap + 2)
        anchors, outputs = self.head(maps, size, supply, self.probing)
        return asag_loss.total_loss(self.geometry, anchors, outputs, targets, size)

    @torch.no_grad()
    def find(self, images, config: Config) -> list[Found]:
        maps = self.maps([(config, images)])
        if self.kind == "dense":
            logits, boxes, _ = self.head(maps)
            return [Found(detections) for detections in suppressed(logits, boxes)]
        anchors, outputs = self.head(maps, (SIDE, SIDE), None, self.probing)
        logits, boxes = outputs[-1]
        patches = np.zeros(len(images), int)
        for probe in anchors.probes:
            patches += np.bincount(probe.image, minlength=len(images))
        return [
            Found(detections, to_corners(anchors.boxes[i][mask]), to_corners(outputs[0][1][i][mask]), int(patches[i]))
            for i, (detections, mask) in enumerate(zip(best(logits, boxes, anchors.valid), anchors.valid))
        ]
