"""The vision-transformer family: DeiT-style (Touvron et al. 2021), stride 4, 32x32 input, equal depth, three widths.

It is a hybrid (Dosovitskiy et al. 2021, section 3.1): a patch is not 4x4 pixels but what the first two stages of the
CNN family's small anchor make of the image, embedded by one 3x3 convolution of stride 2. That stem comes with its
weights and is not trained again, so that epochs go into blocks: medium has 87 % after 6 epochs, and had 65 % after 5
with three convolutions trained from nothing. A class token joins the 64 patch tokens; blocks are pre-norm with exact
GELU; the head reads the class token behind a last norm.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

import net

CLASSES = 10
TOKENS = 64
HEAD = 32  # channels per attention head
STEM_ANCHOR = net.ANCHORS["small"]
STEM = STEM_ANCHOR.widths[1]  # channels behind the stem


@dataclass(frozen=True)
class Anchor:
    """Blocks, and channels per token (a multiple of HEAD)."""

    name: str
    depth: int
    width: int


ANCHORS = {
    anchor.name: anchor for anchor in (Anchor("small", 6, 64), Anchor("medium", 6, 96), Anchor("large", 6, 128))
}


class Attention(nn.Module):
    """Multi-head self-attention. [N, T, C] -> [N, T, C]."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = width // HEAD
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        count, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(count, tokens, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(count, tokens, width))


class Block(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)) with four times the width inside."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def stem(cnn: net.Net) -> nn.Module:
    """The part of a CNN anchor that makes patches: [N, 3, 32, 32] -> [N, STEM, 16, 16]. Not trained again."""
    part = nn.Sequential(OrderedDict(stem=cnn.stem, stage0=cnn.stages[0], stage1=cnn.stages[1])).eval()
    return part.requires_grad_(False)


class ViT(nn.Module):
    """What follows the stem: [N, STEM, 16, 16] features -> [N, 10] logits."""

    def __init__(self, anchor: Anchor):
        super().__init__()
        width = anchor.width
        self.embed = nn.Sequential(nn.Conv2d(STEM, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width))
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(positions(width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(anchor.depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)
        for block in self.blocks:
            mimic(block.attention)

    def forward(self, x, keep: torch.Tensor | None = None):
        """`keep`: indices of the patch tokens that take part, all if none (training only)."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        position = self.position
        if keep is not None:
            x, position = x[:, keep], position[:, torch.cat((keep.new_zeros(1), keep + 1))]
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + position
        return self.head(self.norm(self.blocks(x))[:, 0])


def positions(width: int) -> torch.Tensor:
    """Sines and cosines of row and column, half of the channels each; the class token's row is zero."""
    side = round(TOKENS**0.5)
    rates = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    table = torch.cat((angles.sin(), angles.cos()), 1)
    rows = table[:, None].expand(side, side, -1)
    columns = table[None].expand(side, side, -1)
    patches = torch.cat((rows, columns), 2).reshape(1, TOKENS, width)
    return torch.cat((torch.zeros(1, 1, width), 0.3 * patches), 1)


@torch.no_grad()
def mimic(attention: Attention) -> None:
    """Mimetic start (Trockman and Kolter 2023): queries match keys of the same token, values are passed on turned."""
    width = attention.proj.weight.shape[0]
    nn.init.zeros_(attention.qkv.bias)
    nn.init.zeros_(attention.proj.bias)
    query, key, value = attention.qkv.weight.split(width)
    noise = torch.randn(width, width) / width**0.5
    left, sizes, right = torch.linalg.svd(0.4 * noise - 0.4 * torch.eye(width))
    attention.proj.weight.copy_(left * sizes.sqrt())
    value.copy_(sizes.sqrt()[:, None] * right)
    for head in range(attention.heads):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        noise = torch.randn(width, width) / width**0.5
        left, sizes, right = torch.linalg.svd(0.7 * noise + 0.7 * torch.eye(width))
        query[rows] = (left[:, :HEAD] * sizes[:HEAD].sqrt()).T
        key[rows] = sizes[:HEAD].sqrt()[:, None] * right[:HEAD]


def cost(anchor: Anchor) -> tuple[int, int]:
    """Multiply-accumulates per image, products of attention included, and parameters with batch-norm folded."""
    vit = ViT(anchor)
    whole = nn.Sequential(stem(net.Net(STEM_ANCHOR)), vit).eval()
    macs = 2 * anchor.depth * (TOKENS + 1) ** 2 * anchor.width
    parameters = vit.token.numel() + vit.position.numel()

    def count(module, inputs, output):
        nonlocal macs, parameters
        parameters += sum(parameter.numel() for parameter in module.parameters())
        if isinstance(module, nn.Conv2d):
            macs += module.weight[0].numel() * output[0].numel()
            parameters += module.weight.shape[0]
        elif isinstance(module, nn.Linear):
            macs += module.weight.shape[1] * output[0].numel()

    for module in whole.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.LayerNorm)):
            module.register_forward_hook(count)
    with torch.no_grad():
        whole(torch.zeros(1, 3, 32, 32))
    return macs, parameters
