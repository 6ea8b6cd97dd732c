"""Multiply-accumulates and parameters of a detector for one picture, batch-norm folded, training-only parts left out.

Convolutions are counted by hooks on a real pass; what depends on the number of queries and patches is a formula, so
that the worst case (both caps) and the mean can be told. Pooling counts four products a sample, sampling five a map.
"""

import torch
from torch import nn

from asag import AdaMixerStage
from asag_generator import Geometry
from pyramid import Config


def linear(module: nn.Module) -> int:
    """Products of one row through every linear layer inside."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


def attention(geometry: Geometry, module: nn.Module, queries: float) -> float:
    return queries * linear(module) + 2 * queries**2 * geometry.channels


def generator_cost(head, maps: dict[int, int], patches: float) -> float:
    """`maps`: side of the map of each stride. The finer map is compressed inside the patches and their rim only."""
    g, generator = head.geometry, head.generator
    first, last = (generator.compress[0][index].weight.numel() for index in (0, 2))
    side = maps[g.base_stride]
    total = side**2 * (first + last) + g.patch**2 * generator.whole.weight.numel()
    total += 5 * linear(generator.base_mlp)
    rim = (g.patch + 2) ** 2
    return total + patches * (rim * first + g.patch**2 * last + linear(generator.probe_mlp))


def relation_cost(head, queries: float, alone: bool) -> float:
    g, relation = head.geometry, head.relation
    pooled = g.roi**2 * g.channels
    total = queries * (4 * g.roi_samples**2 * pooled + linear(relation.content) + linear(relation.ffn))
    total += attention(g, relation.attention, queries) + queries * linear(relation.boxes)
    return total + (queries * linear(relation.classes) if alone else 0)


def stage_cost(head, queries: float) -> float:
    g, stage = head.geometry, head.stages[0]
    total = attention(g, stage.attention, queries)
    total += queries * (linear(stage.ffn) + linear(stage.classes) + linear(stage.boxes))
    if isinstance(stage, AdaMixerStage):
        width = g.channels // g.groups
        samples = 5 * len(g.strides) * g.points_in * g.channels
        mixing = g.groups * (g.points_in * width**2 + g.points_out * g.points_in * width)
        return total + queries * (linear(stage.offsets) + samples + mixing + linear(stage.mixing))
    pooled = g.roi**2 * g.channels
    mixing = 2 * pooled * g.dynamic
    own = stage.generator.weight.numel() + stage.out.weight.numel()
    return total + queries * (4 * g.roi_samples**2 * pooled + mixing + own)


def convolutions(net, config: Config, side: int) -> tuple[int, int]:
    """Products and parameters of backbone, neck and, if it is dense, head; by hooks."""
    macs = 0
    parameters: dict[int, int] = {}

    def count(module, inputs, output):
        nonlocal macs
        macs += module.weight[0].numel() * output[0].numel()
        parameters[id(module)] = module.weight.numel() + module.weight.shape[0]

    handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        maps = net.maps([(config, torch.zeros(1, 3, side, side))])
        if net.kind == "dense":
            net.head(maps)
    for handle in handles:
        handle.remove()
    return macs, sum(parameters.values())


def cost(net, config: Config, queries: float | None = None, patches: float | None = None, side: int = 160):
    """(multiply-accumulates, parameters). Without counts: the worst case, both caps."""
    macs, parameters = convolutions(net, config, side)
    if net.kind == "dense":
        return macs, parameters
    g, head = net.geometry, net.head
    queries = g.max_anchors if queries is None else queries
    patches = g.patch_cap * len(g.probe_strides) if patches is None else patches
    if not net.probing:
        patches = 0
    alone = len(head.stages) == 0
    maps = {stride: side // stride for stride in g.strides}
    macs += generator_cost(head, maps, patches) + relation_cost(head, queries, alone)
    used = [head.generator, head.relation]
    unused = [] if alone else [head.relation.classes]
    if not net.probing:
        unused += [head.generator.probe_mlp, head.generator.compress[1], head.generator.norms[1]]
        parameters -= head.generator.tables[1].numel()
    if not alone:
        macs += stage_cost(head, queries)
        used.append(head.stages[0])
    parameters += sum(p.numel() for part in used for p in part.parameters())
    return macs, parameters - sum(p.numel() for part in unused for p in part.parameters())
