"""A sparse detector with one decoder stage: ASAG (Fu et al. 2023, arXiv 2308.09242), written from the paper's text.

    pyramid maps -> Generator -> anchors -> Relation -> states -> one stage (AdaMixer or Sparse R-CNN) -> scores, boxes

The generator is in `asag_generator`, with `Geometry`: FULL is the paper's, MICRO the one for 160x160 pixels on a
microcontroller. The relation block gives anchors content and lets them see each other; the stage refines once more.
Training runs several stages in parallel on the same input; inference uses the first one.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from asag_generator import Generator, Geometry, activation
from boxes import TINY, from_state, iof, position_code, refine, roi_align, sample_3d, to_corners, to_state


class Attention(nn.Module):
    """Multi-head self-attention with an additive bias [B, heads, N, N] on the logits. [B, N, C] -> [B, N, C]."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def weights(self, x, bias):
        """Attention [B, heads, N, N] and the values [B, heads, N, C/heads]."""
        batch, count, channels = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return torch.softmax(q @ k.transpose(-1, -2) * (channels // self.heads) ** -0.5 + bias, -1), v

    def forward(self, x, bias):
        weights, values = self.weights(x, bias)
        return self.out((weights @ values).transpose(1, 2).flatten(2))


def overlap_bias(boxes, tau, valid):
    """tau_h * ln(IoF), spare columns at -infinity: [B, heads, N, N]."""
    bias = tau[:, None, None] * torch.log(iof(to_corners(boxes)) + TINY)[:, None]
    return bias.masked_fill(~valid[:, None, None, :], -math.inf)


def feed_forward(geometry: Geometry) -> nn.Module:
    return nn.Sequential(
        nn.Linear(geometry.channels, geometry.hidden),
        activation(geometry),
        nn.Linear(geometry.hidden, geometry.channels),
    )


def output_head(geometry: Geometry, layers: int, outputs: int) -> nn.Module:
    """`layers` times linear, norm, activation; then one linear layer with bias."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        channels = geometry.channels
        parts += [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), activation(geometry)]
    return nn.Sequential(*parts, nn.Linear(geometry.channels, outputs))


class Relation(nn.Module):
    """Gives anchors content and lets them see each other: pooling, self-attention, feed-forward, one refinement."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.geometry = g = geometry
        self.content = nn.Linear(g.channels * g.roi**2, g.channels)
        self.content_norm = nn.LayerNorm(g.channels)
        self.tau = nn.Parameter(4 * torch.rand(g.heads))
        self.attention = Attention(g.channels, g.heads)
        self.attention_norm = nn.LayerNorm(g.channels)
        self.ffn = feed_forward(g)
        self.ffn_norm = nn.LayerNorm(g.channels)
        self.boxes = output_head(g, g.box_layers, 4)
        self.classes = output_head(g, 1, g.classes)  # the loss needs it; the stages do not

    def forward(self, maps, boxes, valid):
        """Boxes [B, N, 4] -> content [B, N, C], states [B, N, 4], logits [B, N, K]."""
        g = self.geometry
        pooled = roi_align({s: maps[s] for s in g.strides}, boxes, g.roi, g.roi_samples, g.level_sides)
        content = self.content_norm(self.content(pooled.flatten(2)))
        state = to_state(boxes)
        content = content + position_code(state, g.channels, g.position_unit)
        bias = overlap_bias(boxes, self.tau, valid)
        content = self.attention_norm(content + self.attention(content, bias))
        content = self.ffn_norm(content + self.ffn(content))
        return content, refine(state, self.boxes(content)), self.classes(content)


class Mixing(nn.Module):
    """AdaMixer's adaptive mixing: per query and group a channel matrix, then a point matrix, made from the content."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.geometry = g = geometry
        self.width = g.channels // g.groups
        each = self.width**2 + g.points_out * g.points_in
        self.generator = nn.Linear(g.channels, g.groups * each)
        self.out = nn.Linear(g.channels * g.points_out, g.channels)
        self.activation = activation(g)

    def forward(self, sampled, content):
        """Sampled [B, N, G, P_in, C/G], content [B, N, C] -> content plus what was mixed."""
        g = self.geometry
        batch, count = content.shape[:2]
        matrices = self.generator(content).reshape(batch, count, g.groups, -1)
        channel, point = matrices.split((self.width**2, g.points_out * g.points_in), -1)
        mixed = sampled @ channel.reshape(batch, count, g.groups, self.width, self.width)
        mixed = self.activation(F.layer_norm(mixed, mixed.shape[-2:]))
        mixed = point.reshape(batch, count, g.groups, g.points_out, g.points_in) @ mixed
        mixed = self.activation(F.layer_norm(mixed, mixed.shape[-2:]))
        return content + self.out(mixed.flatten(2))


class AdaMixerStage(nn.Module):
    """Self-attention with overlap bias, 3-D sampling, adaptive mixing, feed-forward, heads."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.geometry = g = geometry
        self.tau = nn.Parameter(4 * torch.rand(g.heads))
        self.attention = Attention(g.channels, g.heads)
        self.attention_norm = nn.LayerNorm(g.channels)
        self.ffn = feed_forward(g)
        self.ffn_norm = nn.LayerNorm(g.channels)
        self.classes = output_head(g, 1, g.classes)
        self.boxes = output_head(g, g.box_layers, 4)
        self.offsets = nn.Linear(g.channels, g.groups * g.points_in * 3)
        self.mixing_norm = nn.LayerNorm(g.channels)
        self.mixing = Mixing(g)

    def points(self, content, state):
        """Points [B, N, G, P, (x, y, zeta)]: offsets in units of the box's width, height and of one level."""
        g = self.geometry
        offsets = self.offsets(content).reshape(*content.shape[:2], g.groups, g.points_in, 3)
        x, y, z, r = (part[..., None, None] for part in state.unbind(-1))
        dx, dy, dz = offsets.unbind(-1)
        return torch.stack((x + dx * torch.exp2(z - r), y + dy * torch.exp2(z + r), z + dz), -1)

    def forward(self, maps, content, state, valid):
        """Content [B, N, C], states [B, N, 4] -> logits [B, N, K], boxes [B, N, 4], content."""
        g = self.geometry
        with torch.no_grad():
            code = position_code(state, g.channels, g.position_unit)
        content = content + code
        bias = overlap_bias(from_state(state).detach(), self.tau, valid)
        content = self.attention_norm(content + self.attention(content, bias))
        sampled = sample_3d({s: maps[s] for s in g.strides}, self.points(content, state), g.groups)
        content = self.mixing_norm(self.mixing(sampled, content))
        content = self.ffn_norm(content + self.ffn(content))
        return self.classes(content), from_state(refine(state, self.boxes(content))), content


class SparseStage(nn.Module):
    """Sparse R-CNN's stage (Sun et al. 2021): plain self-attention, pooling, dynamic convolution, heads."""

    LARGEST = math.log(100000 / 16)  # of the logarithm of a side's growth

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.geometry = g = geometry
        channels = g.channels
        self.attention = Attention(channels, g.heads)
        self.attention_norm = nn.LayerNorm(channels)
        self.generator = nn.Linear(channels, 2 * channels * g.dynamic)
        self.inner_norm = nn.LayerNorm(g.dynamic)
        self.outer_norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels * g.roi**2, channels)
        self.out_norm = nn.LayerNorm(channels)
        self.mixing_norm = nn.LayerNorm(channels)
        self.ffn = feed_forward(g)
        self.ffn_norm = nn.LayerNorm(channels)
        self.classes = output_head(g, 1, g.classes)
        self.boxes = output_head(g, g.box_layers, 4)

    def forward(self, maps, content, state, valid):
        g = self.geometry
        boxes = from_state(state)
        spare = torch.zeros(valid.shape, dtype=content.dtype, device=content.device).masked_fill(~valid, -math.inf)
        content = self.attention_norm(content + self.attention(content, spare[:, None, None, :]))
        pooled = roi_align({s: maps[s] for s in g.strides}, boxes, g.roi, g.roi_samples, g.level_sides)
        first, second = self.generator(content).chunk(2, -1)
        mixed = pooled.flatten(3).transpose(2, 3) @ first.unflatten(-1, (g.channels, g.dynamic))
        mixed = F.relu(self.inner_norm(mixed)) @ second.unflatten(-1, (g.dynamic, g.channels))
        mixed = F.relu(self.outer_norm(mixed)).flatten(2)
        content = self.mixing_norm(content + F.relu(self.out_norm(self.out(mixed))))
        content = self.ffn_norm(content + self.ffn(content))
        dx, dy, dw, dh = (self.boxes(content) / self.boxes[-1].weight.new_tensor((2, 2, 1, 1))).unbind(-1)
        cx, cy, w, h = boxes.unbind(-1)
        grown = (w * dw.clamp(max=self.LARGEST).exp(), h * dh.clamp(max=self.LARGEST).exp())
        return self.classes(content), torch.stack((cx + dx * w, cy + dy * h, *grown), -1), content


STAGES = {"adamixer": AdaMixerStage, "sparse": SparseStage}


class Asag(nn.Module):
    """The whole head. `stages` parallel stages in training (0: generator and relation block only)."""

    def __init__(self, geometry: Geometry, stage: str = "adamixer", stages: int = 1):
        super().__init__()
        self.geometry = geometry
        self.generator = Generator(geometry)
        self.relation = Relation(geometry)
        self.stages = nn.ModuleList(STAGES[stage](geometry) for _ in range(stages))
        self.embedding = nn.Parameter(torch.zeros(stages, geometry.channels))
        initialise(self)

    def forward(self, maps, size, supply=None, probing: bool = True):
        """-> anchors, and a list of (logits [B, N, K], boxes [B, N, 4]): the relation block's, then each stage's."""
        anchors = self.generator(maps, size, supply, probing)
        content, state, logits = self.relation(maps, anchors.boxes, anchors.valid)
        outputs = [(logits, from_state(state))]
        used = self.stages if self.training else self.stages[:1]
        for stage, embedding in zip(used, self.embedding):
            logits, boxes, _ = stage(maps, content + embedding, state.detach(), anchors.valid)
            outputs.append((logits, boxes))
        return anchors, outputs


def initialise(head: Asag) -> None:
    """Start of training: rare classes, boxes unchanged, points spread over the box, mixing the same for all queries."""
    for module in head.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight)
    for part in (head.relation, *head.stages):
        nn.init.constant_(part.classes[-1].bias, -math.log(99))
        nn.init.zeros_(part.boxes[-1].weight)
        nn.init.zeros_(part.boxes[-1].bias)
        if isinstance(part, AdaMixerStage):
            nn.init.zeros_(part.offsets.weight)
            bias = part.offsets.bias.detach().view(-1, 3)
            nn.init.uniform_(bias[:, :2], -0.5, 0.5)
            nn.init.constant_(bias[:, 2], -1)
            nn.init.zeros_(part.mixing.generator.weight)


@dataclass
class Detections:
    """Of one image, best first: boxes [D, 4] cxcywh in pixels, scores [D], classes [D]."""

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor


def best(logits, boxes, valid, limit: int = 100) -> list[Detections]:
    """The `limit` best (query, class) pairs of each image, classes independent; ties by lower index."""
    found = []
    for scores, box, mask in zip(logits, boxes, valid):
        flat = scores[mask].flatten()
        order = torch.argsort(flat, descending=True, stable=True)[:limit]
        query = torch.div(order, scores.shape[-1], rounding_mode="floor")
        found.append(Detections(box[mask][query], flat[order].sigmoid(), order % scores.shape[-1]))
    return found
