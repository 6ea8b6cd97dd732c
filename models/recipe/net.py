"""The residual CNN family: one stem, three stages at 32x32, 16x16 and 8x8, global pooling, one linear layer.

Anchors differ in width and in depth; no stage is shallower than that of a smaller anchor, which is what stage-wise
stitching asks for: a smaller anchor's block answers several of the larger one's. The large anchor spends its work
in the last stage, where a weight costs 64 multiply-accumulates instead of 1,024.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 10


@dataclass(frozen=True)
class Anchor:
    """Blocks and channels per stage."""

    name: str
    depths: tuple[int, int, int]
    widths: tuple[int, int, int]


ANCHORS = {
    anchor.name: anchor
    for anchor in (
        Anchor("small", (1, 2, 2), (12, 24, 48)),
        Anchor("medium", (2, 3, 4), (16, 32, 64)),
        Anchor("large", (2, 4, 5), (32, 48, 112)),
    )
}


class Block(nn.Module):
    """conv-bn-relu-conv-bn plus shortcut, then relu. [N, C, H, W] -> [N, C', H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class Net(nn.Module):
    """[N, 3, 32, 32] normalised RGB -> [N, 10] logits."""

    def __init__(self, anchor: Anchor):
        super().__init__()
        width = anchor.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        stages = []
        inputs = width
        for stage, (depth, width) in enumerate(zip(anchor.depths, anchor.widths)):
            blocks = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Block(inputs, width, stride))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, x):
        x = self.stages(self.stem(x))
        return self.head(x.mean((2, 3)))


def cost(anchor: Anchor) -> tuple[int, int]:
    """Multiply-accumulates per image and parameters with batch-norm folded, counted by hooks."""
    net = Net(anchor).eval()
    macs = 0
    parameters = 0

    def count(module, inputs, output):
        nonlocal macs, parameters
        per_output = module.weight[0].numel()
        macs += per_output * output[0].numel()
        parameters += module.weight.numel() + module.weight.shape[0]

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 3, 32, 32))
    return macs, parameters
