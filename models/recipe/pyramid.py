"""The detector's backbones: residual networks with taps at strides 8, 16 and 32, and the neck that joins them.

Both anchors halve the picture five times at the same places, so maps at a cut differ in channels only and a stitch is
a 1x1 convolution. Convolutions, batch-norm, ReLU and additions: nothing that the importer does not take. A config
names the anchor that makes the early stages, the stage and block where it is left, and the anchor that goes on.

The neck is a feature pyramid (Lin et al. 2017) in which the lateral 1x1 convolution belongs to the anchor and the
level, with a batch-norm that folds into it: it is the adapter through which all configs share one head. From there on,
one set of weights: sums with the coarser map (each value four times), then a depthwise 3x3 and a 1x1 convolution.
"""

from dataclasses import dataclass

import torch
from torch import nn

from net import Block

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Anchor:
    """Channels of the stem (stride 2), and blocks and channels of the stages at strides 4, 8, 16, 32."""

    name: str
    stem: int
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]


ANCHORS = {
    anchor.name: anchor
    for anchor in (
        Anchor("small", 8, (1, 2, 2, 2), (16, 24, 40, 64)),
        Anchor("large", 16, (1, 2, 3, 2), (20, 32, 64, 96)),
    )
}


@dataclass(frozen=True)
class Config:
    """Anchor `front` up to and with block `block` of stage `stage` (0: stride 4), then anchor `rear`.

    An anchor alone has equal front and rear.
    """

    front: str
    rear: str
    stage: int = 0
    block: int = 0

    @property
    def name(self) -> str:
        return self.front if self.front == self.rear else f"{self.front}-{self.stage}.{self.block}-{self.rear}"


ALONE = tuple(Config(name, name) for name in ANCHORS)
# One stitch each way inside the stages at strides 8 and 16: after the block that starts the stage.
STITCHED = tuple(
    Config(front, rear, stage) for stage in (1, 2) for front, rear in (("small", "large"), ("large", "small"))
)


class Backbone(nn.Module):
    """[N, 3, H, W] normalised RGB -> three maps at strides 8, 16, 32."""

    def __init__(self, anchor: Anchor):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, anchor.stem, 3, 2, 1, bias=False), nn.BatchNorm2d(anchor.stem), nn.ReLU()
        )
        stages = []
        inputs = anchor.stem
        for depth, width in zip(anchor.depths, anchor.widths):
            blocks = [Block(inputs if block == 0 else width, width, 2 if block == 0 else 1) for block in range(depth)]
            stages.append(nn.Sequential(*blocks))
            inputs = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x):
        x = self.stem(x)
        taps = []
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        return tuple(taps[1:])


class Family(nn.Module):
    """Anchors and stitches. `forward(images, config)` -> [(anchor's name, map)] for each stride."""

    def __init__(self, configs=ALONE):
        super().__init__()
        self.anchors = nn.ModuleDict({name: Backbone(anchor) for name, anchor in ANCHORS.items()})
        self.stitches = nn.ModuleDict()
        for config in configs:
            if config.front != config.rear:
                widths = [ANCHORS[name].widths[config.stage] for name in (config.front, config.rear)]
                self.stitches[key(config)] = nn.Conv2d(*widths, 1)

    def forward(self, images, config: Config):
        name = config.front
        # Channels last is faster, but in torch 2.15 the gradient of a 1x1 convolution of stride 2 with fewer than 16
        # input channels then writes outside of its memory.
        narrow = ANCHORS[name].stem < 16
        images = images.contiguous(memory_format=torch.contiguous_format if narrow else torch.channels_last)
        x = self.anchors[name].stem(images)
        taps = []
        for stage in range(4):
            # Block by block, because the anchor may change behind any of them.
            blocks = self.anchors[name].stages[stage]
            for block, part in enumerate(blocks):
                x = part(x)
                if config.front != config.rear and (stage, block) == (config.stage, config.block):
                    x = self.stitches[key(config)](x)
                    name = config.rear
                    x = self.anchors[name].stages[stage][block + 1 :](x)
                    break
            taps.append((name, x))
        return taps[1:]


def key(config: Config) -> str:
    return config.name.replace(".", "_")


def twice(x):
    """Each value four times: [N, C, H, W] -> [N, C, 2H, 2W]."""
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Neck(nn.Module):
    """Taps of any config -> maps {stride: [N, C, H, W]}."""

    def __init__(self, channels: int):
        super().__init__()
        self.laterals = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))
                    for width in anchor.widths[1:]
                )
                for name, anchor in ANCHORS.items()
            }
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, channels, 1)
            )
            for _ in STRIDES
        )

    def lateral(self, taps):
        return [self.laterals[name][level](x) for level, (name, x) in enumerate(taps)]

    def forward(self, laterals):
        """Lateral maps, finest first."""
        maps = list(laterals)
        for level in (1, 0):
            maps[level] = maps[level] + twice(maps[level + 1])
        return {stride: smooth(map_) for stride, smooth, map_ in zip(STRIDES, self.smooth, maps)}
