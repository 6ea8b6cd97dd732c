"""Train one anchor of the transformer family on CIFAR-10: `python train_vit.py large --epochs 10`.

The teacher is the medium anchor of the CNN family. Orthogonalised momentum (Muon) on matrices and filters, Adam on the
rest, an average of the last weights. After a warm-up the rate stays level for a while and then falls in a line. In the
earlier steps only a random part of the patches takes part (Liu et al. 2022, PatchDropout): they cost less.

A checkpoint is written every 100 steps; starting again goes on from it. Nothing is selected on the test images: they
are scored, no more. `python train_vit.py export OUT` writes OUT/<anchor>.onnx and the table OUT/anchors.md.
"""

import argparse
import json
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

import data
from net import ANCHORS as CNN_ANCHORS
from net import Net
from train import RUNS, Muon, accuracy, augment, normalise
from vit import ANCHORS, TOKENS, ViT, cost, stem

PREPARED = data.CACHE / "vit"
EVERY = 100  # steps between checkpoints


def cnn(name: str) -> Net:
    """An anchor of the CNN family, from its ONNX file.

    A file with batch-norm (medium) names its tensors as the network does. In the others batch-norm is folded: they hold
    each convolution's weights and bias in the order of the modules, and the norms become plain sums.
    """
    file = onnx.load(Path(__file__).resolve().parent.parent / "cifar-cnn" / f"{name}.onnx")
    weights = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in file.graph.initializer}
    net = Net(CNN_ANCHORS[name])
    convolutions = [node for node in file.graph.node if node.op_type == "Conv"]
    if len(convolutions[0].input) == 3:
        modules = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for node, module, norm in zip(convolutions, modules, norms, strict=True):
            module.weight.data.copy_(weights[node.input[1]])
            norm.bias.data.copy_(weights[node.input[2]])
            norm.running_var.fill_(1 - norm.eps)
        net.head.load_state_dict({"weight": weights["head.weight"], "bias": weights["head.bias"]})
    else:
        # Equal tensors are stored once and named again.
        named = (node for node in file.graph.node if node.op_type == "Identity" and node.input[0] in weights)
        weights |= {node.output[0]: weights[node.input[0]] for node in named}
        missing, _ = net.load_state_dict(weights, strict=False)
        if any(not name.endswith("num_batches_tracked") for name in missing):
            raise SystemExit(f"{name}.onnx of the CNN family lacks {missing}")
    return net.eval().to(memory_format=torch.channels_last)


@torch.no_grad()
def prepare(variants: int, seed: int, device: str) -> None:
    """What all anchors learn from, made once: per variant the stem's features and the teacher's logits of every image.

    A variant is one draw of shifts, each image mirrored in every other one. Writes cache/vit/<variant>.npz with f16
    `features` [50000, STEM, 16, 16] and `logits` [50000, 10], about 0.6 GB.
    """
    images, *_ = data.load()
    images = normalise(images)
    front, knows = stem(cnn("small")).to(device), cnn("medium").to(device)
    PREPARED.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    for variant in range(variants):
        file = PREPARED / f"{variant}.npz"
        generator.manual_seed(seed + variant)
        if file.exists():
            continue
        features, logits = [], []
        started = time.time()
        for some, flip in zip(images.split(500), (mirrored ^ (variant % 2 == 1)).split(500)):
            pictures = augment(some, flip, 0, generator).to(device)
            features.append(front(pictures).half().contiguous().cpu().numpy())
            logits.append(knows(pictures).half().cpu().numpy())
        temporary = file.with_suffix(".tmp.npz")
        np.savez(temporary, features=np.concatenate(features), logits=np.concatenate(logits))
        temporary.rename(file)
        print(f"prepared variant {variant + 1}/{variants} in {time.time() - started:.0f} s", flush=True)


def load_prepared(variant: int) -> tuple[torch.Tensor, torch.Tensor]:
    file = PREPARED / f"{variant}.npz"
    if not file.exists():
        raise SystemExit(f"{file} is missing; `python train_vit.py prepare` writes it")
    with np.load(file) as arrays:
        return torch.from_numpy(arrays["features"]), torch.from_numpy(arrays["logits"])


def optimizers(net: ViT, arguments) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in net.named_parameters() if p.ndim in (2, 4) and "head" not in name]
    matrix = {id(p) for p in matrices}
    others = [p for p in net.parameters() if id(p) not in matrix]
    return [
        Muon(matrices, arguments.lr, 0.95, arguments.weight_decay),
        torch.optim.AdamW(others, arguments.adam_lr, (0.9, 0.98), weight_decay=0.0),
    ]


def train(arguments) -> None:
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    images, labels, test_images, test_labels = data.load()
    labels, count = torch.from_numpy(labels), len(images)
    test_images, test_labels = normalise(test_images), torch.from_numpy(test_labels)

    anchor = ANCHORS[arguments.anchor]
    device = arguments.device
    net = ViT(anchor).to(device)
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(arguments.average), use_buffers=True
    )
    both = optimizers(net, arguments)
    base = [group["lr"] for optimizer in both for group in optimizer.param_groups]

    steps_per_epoch = count // arguments.batch
    total = arguments.epochs * steps_per_epoch
    checkpoint = RUNS / f"vit-{anchor.name}.pt"
    RUNS.mkdir(parents=True, exist_ok=True)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(both, state["optimizers"]):
            optimizer.load_state_dict(saved)
        generator.set_state(state["generator"].cpu())
        order, first = state["order"].cpu(), state["step"]
        print(f"resuming {checkpoint.name} after step {first} of {total}", flush=True)

    started = time.time()
    losses = 0.0
    for step in range(first, total):
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0:
            order = torch.randperm(count, generator=generator)
        if place == 0 or step == first:
            features, taught = load_prepared(epoch % arguments.variants)
        progress = step / total
        factor = max(min((step + 1) / 300, (1 - progress) / arguments.fall, 1), 1e-3)
        for group, lr in zip((g for o in both for g in o.param_groups), base):
            group["lr"] = lr * factor
        chosen = order[place * arguments.batch : (place + 1) * arguments.batch]
        seen, targets = features[chosen].to(device).float(), taught[chosen].to(device).float()
        keep = None
        if progress < 1 - arguments.whole:
            keep = torch.randperm(TOKENS, generator=generator)[: arguments.patches].to(device)
        logits = net(seen, keep)
        targets = F.softmax(targets / arguments.temperature, 1)
        soft = F.log_softmax(logits / arguments.temperature, 1)
        distilled = F.kl_div(soft, targets, reduction="batchmean") * arguments.temperature**2
        loss = 0.2 * F.cross_entropy(logits, labels[chosen].to(device)) + 0.8 * distilled
        for optimizer in both:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in both:
            optimizer.step()
        average.update_parameters(net)
        losses += loss.item()
        if (step + 1) % EVERY == 0 or step + 1 == total:
            state = {
                "net": net.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in both],
                "generator": generator.get_state(),
                "order": order.cpu(),
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            left = (time.time() - started) / (step + 1 - first) * (total - step - 1)
            shown = losses / min(EVERY, step + 1 - first)
            print(f"{anchor.name} step {step + 1}/{total} loss {shown:.3f} minutes left {left / 60:.0f}", flush=True)
            losses = 0.0

    final = average.module.cpu()
    top1 = accuracy(nn.Sequential(stem(cnn("small")), final), test_images, test_labels)
    torch.save(final.state_dict(), RUNS / f"vit-{anchor.name}.final.pt")
    macs, parameters = cost(anchor)
    row = {"anchor": anchor.name, "macs": macs, "parameters": parameters, "top1": top1}
    row |= {key: value for key, value in vars(arguments).items() if key not in ("anchor", "command")}
    (RUNS / f"vit-{anchor.name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(f"{anchor.name}: top-1 {top1:.4f} on {len(test_labels)} test images", flush=True)


def export(out: Path) -> None:
    """Writes OUT/<anchor>.onnx of each trained anchor and the table OUT/anchors.md."""
    out.mkdir(parents=True, exist_ok=True)
    table = ["| anchor | MACs | parameters | top-1, 10,000 test images | epochs | seed |", "|---|---:|---:|---:|---:|---:|"]
    for name, anchor in ANCHORS.items():
        if not (RUNS / f"vit-{name}.final.pt").exists():
            print(f"{name}: not trained yet, skipped")
            continue
        net = ViT(anchor)
        net.load_state_dict(torch.load(RUNS / f"vit-{name}.final.pt"))
        torch.onnx.export(
            nn.Sequential(OrderedDict(stem=stem(cnn("small")), vit=net)).eval(),
            (torch.zeros(1, 3, 32, 32),),
            out / f"{name}.onnx",
            opset_version=17,
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
        )
        row = json.loads((RUNS / f"vit-{name}.json").read_text())
        cells = f"{row['macs']:,} | {row['parameters']:,} | {row['top1']:.2%} | {row['epochs']} | {row['seed']}"
        table.append(f"| {name} | {cells} |")
    (out / "anchors.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


def shared(command: argparse.ArgumentParser) -> None:
    command.add_argument("--variants", type=int, default=3, help="draws of shifts; epochs beyond them start over")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--device", default="cpu", help="cpu or cuda")
    command.add_argument("--seed", type=int, default=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ANCHORS:
        one = commands.add_parser(name, help=f"train the {name} anchor")
        one.set_defaults(anchor=name)
        one.add_argument("--epochs", type=int, default=10)
        one.add_argument("--batch", type=int, default=125)
        one.add_argument("--lr", type=float, default=0.015, help="of matrices and filters")
        one.add_argument("--adam-lr", type=float, default=2e-3, help="of biases, norms, tokens, positions, head")
        one.add_argument("--weight-decay", type=float, default=0.02, help="decoupled, on matrices and filters")
        one.add_argument("--average", type=float, default=0.997, help="decay of the average of weights, per step")
        one.add_argument("--temperature", type=float, default=3.0)
        one.add_argument("--fall", type=float, default=0.8, help="part of the steps over which the rate falls")
        one.add_argument("--whole", type=float, default=0.3, help="part of the steps, the last ones, that see all patches")
        one.add_argument("--patches", type=int, default=28, help="of 64, that an earlier step sees")
        shared(one)
    shared(commands.add_parser("prepare", help="write what all anchors learn from; once, before training"))
    commands.add_parser("export", help="write ONNX files and table").add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "export":
        export(arguments.out)
        return
    torch.set_num_threads(arguments.threads)
    if arguments.command == "prepare":
        prepare(arguments.variants, arguments.seed, arguments.device)
        return
    train(arguments)


if __name__ == "__main__":
    main()
