"""Export a trained detector: `python export_detector.py RUN OUT`.

What belongs to an anchor is in its ONNX file, what all configs share is in one safetensors file:

| file | content |
|---|---|
| <anchor>.onnx | image -> `lateral8`, `lateral16`, `lateral32`, [1, 64, H, W] each; batch-norm folded |
| head.safetensors | neck and head, tensors as in `docs/detector.md`; geometry and preprocessing in the metadata |
| learned.safetensors | of a run with stitched configs: the stitches, as `stitchnet` reads what was learned |
| family.toml | what `stitchnet compile` reads |
| vectors.safetensors | with --vectors N: lateral maps of N pictures and what the float head makes of them |

Left out: parallel stages but the first, and the relation block's class head unless it is the output. Folded: batch-norm,
position tables into the norm's bias, the stage's embedding into the norm before it.

Of a sparse head, head.safetensors also holds the range of every value, `range.<name>`: the least and the largest that
`head_numpy.py` meets in --calibrate pictures of the training set, in all configs.
"""

import argparse
import json
import os
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import head_numpy
from box_data import BLOOD_CELLS, Pictures, read_coco
from detector import MEAN, SIDE, STD, Detector, normalise
from pyramid import ALONE, ANCHORS, STRIDES, Config, key

CALIBRATION = 256  # pictures at most; with 64, ranges that only platelets reach are met too seldom


class Laterals(nn.Module):
    """Backbone and laterals of one anchor."""

    def __init__(self, net: Detector, config):
        super().__init__()
        self.backbone = net.family.anchors[config.front]
        self.laterals = nn.ModuleList(fuse_conv_bn_eval(*pair) for pair in net.neck.laterals[config.front])

    def forward(self, image):
        return tuple(lateral(tap) for lateral, tap in zip(self.laterals, self.backbone(image)))


def onnx(net: Detector, config, out: Path) -> None:
    torch.onnx.export(
        Laterals(net, config).eval(),
        (torch.zeros(1, 3, SIDE, SIDE),),
        out / f"{config.front}.onnx",
        opset_version=17,
        dynamo=False,
        input_names=["image"],
        output_names=[f"lateral{stride}" for stride in STRIDES],
    )


def affine(tensors: dict, name: str, module: nn.Module) -> None:
    """Weight and, if there is one, bias; a 1x1 convolution becomes a matrix, a depthwise one loses its axis of one."""
    weight = module.weight
    if isinstance(module, nn.Conv2d):
        weight = weight.flatten(1) if weight.shape[2:] == (1, 1) else weight
        weight = weight.squeeze(1) if module.groups > 1 else weight
    tensors[f"{name}.weight"] = weight
    if module.bias is not None:
        tensors[f"{name}.bias"] = module.bias


def stack(tensors: dict, name: str, modules: nn.Sequential) -> None:
    """Linear layers as name.0, name.1, ...; a norm carries the number of the layer before it."""
    number = -1
    for module in modules:
        if isinstance(module, nn.Linear):
            number += 1
            affine(tensors, f"{name}.{number}", module)
        elif isinstance(module, nn.LayerNorm):
            affine(tensors, f"{name}.{number}.norm", module)


def attention(tensors: dict, name: str, module: nn.Module) -> None:
    affine(tensors, f"{name}.attention.qkv", module.attention.qkv)
    affine(tensors, f"{name}.attention.out", module.attention.out)
    affine(tensors, f"{name}.attention_norm", module.attention_norm)
    stack(tensors, f"{name}.ffn", module.ffn)
    affine(tensors, f"{name}.ffn_norm", module.ffn_norm)
    stack(tensors, f"{name}.boxes", module.boxes)


def generator(tensors: dict, net: Detector) -> None:
    module = net.head.generator
    for index, stride in enumerate(module.strides if net.probing else module.strides[:1]):
        affine(tensors, f"generator.compress{stride}.0", module.compress[index][0])
        affine(tensors, f"generator.compress{stride}.1", module.compress[index][2])
        tensors[f"generator.norm{stride}.weight"] = module.norms[index].weight
        tensors[f"generator.norm{stride}.bias"] = module.norms[index].bias + module.tables[index]
    affine(tensors, "generator.whole", module.whole)
    stack(tensors, "generator.base", module.base_mlp)
    if net.probing:
        stack(tensors, "generator.probe", module.probe_mlp)


def sparse(tensors: dict, net: Detector) -> None:
    generator(tensors, net)
    relation = net.head.relation
    affine(tensors, "relation.content", relation.content)
    affine(tensors, "relation.content_norm", relation.content_norm)
    tensors["relation.tau"] = relation.tau
    attention(tensors, "relation", relation)
    if len(net.head.stages) == 0:
        stack(tensors, "relation.classes", relation.classes)
        return
    # The stage reads content + embedding; the box head, which reads the content, takes it off again.
    embedding = net.head.embedding[0]
    tensors["relation.ffn_norm.bias"] = relation.ffn_norm.bias + embedding
    tensors["relation.boxes.0.bias"] = -relation.boxes[0].weight @ embedding
    stage = net.head.stages[0]
    attention(tensors, "stage", stage)
    stack(tensors, "stage.classes", stage.classes)
    affine(tensors, "stage.mixing_norm", stage.mixing_norm)
    if net.kind == "asag-sparse":
        for name in ("generator", "out", "inner_norm", "outer_norm", "out_norm"):
            affine(tensors, f"stage.mixing.{name}", getattr(stage, name))
    else:
        tensors["stage.tau"] = stage.tau
        affine(tensors, "stage.offsets", stage.offsets)
        affine(tensors, "stage.mixing.generator", stage.mixing.generator)
        affine(tensors, "stage.mixing.out", stage.mixing.out)


def head_tensors(net: Detector) -> dict[str, torch.Tensor]:
    """Neck and head by name, float32."""
    tensors: dict[str, torch.Tensor] = {}
    for stride, (depthwise, pointwise) in zip(STRIDES, net.neck.smooth):
        affine(tensors, f"neck.smooth{stride}.0", depthwise)
        affine(tensors, f"neck.smooth{stride}.1", pointwise)
    if net.kind == "dense":
        for stride, norms in zip(STRIDES, net.head.norms):
            for place, pair in enumerate(zip(net.head.filters, norms)):
                affine(tensors, f"dense{stride}.{place // 2}.{place % 2}", fuse_conv_bn_eval(*pair))
        affine(tensors, "dense.predict", net.head.predict)
        tensors["dense.scales"] = net.head.scales
    else:
        sparse(tensors, net)
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def cut(name: str, config: Config) -> str:
    """`small.3`: the cut of an anchor behind the block at which a config changes anchors. Cut 1 is the stem's output."""
    return f"{name}.{1 + sum(ANCHORS[name].depths[: config.stage]) + config.block + 1}"


def path_name(config: Config) -> str:
    """`small` or `small.3>large.3`, as `stitchnet` calls it."""
    if config.front == config.rear:
        return config.front
    return ">".join(cut(name, config) for name in (config.front, config.rear))


def stitches(net: Detector, out: Path) -> None:
    """learned.safetensors; goes with the ONNX files that lie in `out`."""
    tensors = {}
    for config in net.configs:
        if config.front != config.rear:
            module = net.family.stitches[key(config)]
            # [outputs, rows, columns, inputs]
            tensors[f"{path_name(config)}/0/weights"] = module.weight.detach().permute(0, 2, 3, 1).contiguous()
            tensors[f"{path_name(config)}/0/bias"] = module.bias.detach().clone()
    checksum = zlib.crc32(b"".join((out / f"{config.front}.onnx").read_bytes() for config in ALONE))
    tensors["anchors"] = torch.tensor([checksum], dtype=torch.uint32)
    save_file(tensors, out / "learned.safetensors")


@torch.no_grad()
def ranges(net: Detector, tensors: dict, metadata: dict, samples) -> dict[str, torch.Tensor]:
    """Least and largest value of every step of a sparse head over pictures and configs.

    A picture that asks for no patch gives the patches around its best anchors, so that what reads patches has ranges
    whatever the pictures.
    """
    head = head_numpy.Head({name: tensor.double().numpy() for name, tensor in tensors.items()}, metadata)
    pictures = Pictures(samples, SIDE)
    for index in range(len(pictures)):
        image = normalise(pictures.whole(index)[0][None])
        for config in net.configs:
            found = net.neck.lateral(net.family(image, config))
            laterals = {stride: lateral[0].numpy() for stride, lateral in zip(STRIDES, found)}
            head.run(laterals)
            if net.probing and net.kind != "dense" and not head.seen["corners"]:
                maps = head.neck({stride: lateral.astype(np.float64) for stride, lateral in laterals.items()})
                anchors = head.base(maps)
                best = anchors[np.argsort(-anchors[:, 4], kind="stable")[: net.geometry.patch_cap]]
                head.probed(maps, head.patches(best, net.geometry.probe_strides[0]))
    return {f"range.{name}": torch.tensor(extent, dtype=torch.float32) for name, extent in head.ranges.items()}


def family(net: Detector, row: dict, data: Path, out: Path, keep: str) -> str:
    """family.toml; paths are relative to it. `keep`: which configs ship."""

    def coco(split: str) -> str:
        return json.dumps(Path(os.path.relpath(data / f"{split}.json", out)).as_posix())

    refined = f", from run {row['refine']}" if row.get("refine") else ""
    trained = f"{row['epochs']} epochs, seed {row['seed']}{refined}"
    lines = [
        f"# A detector with the head `{net.kind}`, {trained}; written by models/recipe.",
        f"name = {json.dumps(out.resolve().name)}",
        f"labels = {json.dumps(row['classes'], ensure_ascii=False)}",
        *("", "[input]", f"height = {SIDE}", f"width = {SIDE}", "channels = 3"),
        *(f"mean = {list(MEAN)}", f"std = {list(STD)}"),
        *("", "[data]", f"calibration = {coco('train')}", f"test = {coco('test')}"),
    ]
    trained = [path_name(config) for config in net.configs if config.front != config.rear]
    # One stitch, from a block to the next one of the other anchor.
    lines += ["", "[stitch]", 'space = "general"', "hops = 1", 'direction = "both"', "advancing = true"]
    if trained:
        lines += [f"only = {json.dumps(trained)}", 'learned = "learned.safetensors"']
    if keep != "all":
        lines += ["", "[limits]", f'keep = "{keep}"']
    lines += ["", "[detector]", 'head = "head.safetensors"']
    for config in ALONE:
        lines += ["", "[[anchor]]", f'name = "{config.front}"', f'file = "{config.front}.onnx"']
    return "\n".join(lines) + "\n"


def export(
    net: Detector, row: dict, data: Path, out: Path, calibrate: int = CALIBRATION, keep: str = "all"
) -> None:
    """Everything that `stitchnet compile` reads. `row`: what training and scoring said."""
    out.mkdir(parents=True, exist_ok=True)
    for config in ALONE:
        onnx(net, config, out)
    if len(net.configs) > len(ALONE):
        stitches(net, out)
    metadata = {"head": net.kind, "geometry": asdict(net.geometry), "classes": row["classes"]}
    metadata |= {"side": SIDE, "mean": MEAN, "std": STD}
    if "test" in row:
        metadata["float_ap50"] = {path_name(config): row["test"][config.name]["ap50"] for config in net.configs}
    tensors = head_tensors(net)
    if net.kind in head_numpy.KINDS:
        tensors |= ranges(net, tensors, metadata, read_coco(data / "train.json")[1][:calibrate])
    metadata = {name: json.dumps(value) for name, value in metadata.items()}
    save_file(tensors, out / "head.safetensors", metadata)
    (out / "family.toml").write_text(family(net, row, data, out, keep))


@torch.no_grad()
def vectors(net: Detector, config, count: int, folder: Path) -> dict[str, torch.Tensor]:
    """Lateral maps, neck maps, and results of the first pictures of the validation set."""
    pictures = Pictures(read_coco(folder / "val.json")[1][:count], SIDE)
    images = normalise(np.stack([pictures.whole(index)[0] for index in range(count)]))
    laterals = net.neck.lateral(net.family(images, config))
    maps = net.neck(laterals)
    out = {f"lateral{stride}": lateral for stride, lateral in zip(STRIDES, laterals)}
    out |= {f"map{stride}": map_ for stride, map_ in maps.items()}
    if net.kind == "dense":
        out["logits"], out["boxes"], _ = net.head(maps)
    else:
        anchors, outputs = net.head(maps, (SIDE, SIDE), None, net.probing)
        out |= {"anchors": anchors.boxes, "valid": anchors.valid, "proposals": outputs[0][1]}
        out["logits"], out["boxes"] = outputs[-1]
    return {name: tensor.contiguous().clone() for name, tensor in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--vectors", type=int, default=0)
    parser.add_argument("--calibrate", type=int, default=CALIBRATION, help="pictures behind the ranges")
    parser.add_argument("--keep", choices=("all", "frontier", "line"), default="all", help="which configs ship")
    parser.add_argument("--data", type=Path, default=BLOOD_CELLS)
    arguments = parser.parse_args()
    from train_detector import load  # which exports what it has trained

    net, row = load(arguments.run)
    export(net, row, arguments.data, arguments.out, arguments.calibrate, arguments.keep)
    if arguments.vectors:
        found = vectors(net, ALONE[0], arguments.vectors, arguments.data)
        save_file(found, arguments.out / "vectors.safetensors", {"config": ALONE[0].name})


if __name__ == "__main__":
    main()
