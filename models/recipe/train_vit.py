"""Train one anchor of the transformer family on CIFAR-10: `python train_vit.py large --epochs 10`.

The teacher is the medium anchor of the CNN family. Orthogonalised momentum (Muon) on matrices and filters, Adam on the
rest, an average of the last weights. The rate stays level and falls over the last part of the steps. While it is level
only a random part of the patches takes part (Liu et al. 2022, PatchDropout): those steps cost less, and their last state
is kept as vit-<anchor>.level.pt: put in place of vit-<anchor>.pt, a run with more epochs goes on from it.

A checkpoint is written every 100 steps; starting again goes on from it. Nothing is selected on the test images: they
are scored, no more. `python train_vit.py export OUT` writes OUT/<anchor>.onnx and the table OUT/anchors.md.
"""

import argparse
import json
import time
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

import data
from net import ANCHORS as CNN_ANCHORS
from net import Net
from train import RUNS, Muon, accuracy, augment, normalise
from vit import ANCHORS, TOKENS, ViT, cost

EVERY = 100  # steps between checkpoints


def teacher(device: str) -> nn.Module:
    """The medium anchor of the CNN family: its ONNX file keeps batch-norm, so the names are those of the network."""
    file = onnx.load(Path(__file__).resolve().parent.parent / "cifar-cnn" / "medium.onnx")
    weights = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in file.graph.initializer}
    # Equal tensors are stored once and named again.
    named = (node for node in file.graph.node if node.op_type == "Identity" and node.input[0] in weights)
    weights |= {node.output[0]: weights[node.input[0]] for node in named}
    net = Net(CNN_ANCHORS["medium"])
    missing, _ = net.load_state_dict(weights, strict=False)
    if any(not name.endswith("num_batches_tracked") for name in missing):
        raise SystemExit(f"medium.onnx of the CNN family lacks {missing}")
    return net.eval().to(device)


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
    images, labels = normalise(images), torch.from_numpy(labels)
    test_images, test_labels = normalise(test_images), torch.from_numpy(test_labels)

    anchor = ANCHORS[arguments.anchor]
    device = arguments.device
    net = ViT(anchor).to(device)
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(arguments.average), use_buffers=True
    )
    knows = teacher(device)
    both = optimizers(net, arguments)
    base = [group["lr"] for optimizer in both for group in optimizer.param_groups]

    starts_mirrored = torch.rand(len(images), generator=generator) < 0.5
    steps_per_epoch = len(images) // arguments.batch
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
            order = torch.randperm(len(images), generator=generator)
        progress = step / total
        factor = max(min((step + 1) / 300, (1 - progress) / arguments.fall, 1), 1e-3)
        for group, lr in zip((g for o in both for g in o.param_groups), base):
            group["lr"] = lr * factor
        chosen = order[place * arguments.batch : (place + 1) * arguments.batch]
        pictures = augment(images[chosen], starts_mirrored[chosen] ^ (epoch % 2 == 1), 0, generator).to(device)
        keep = None
        if progress < 1 - arguments.fall:
            keep = torch.randperm(TOKENS, generator=generator)[: arguments.patches].to(device)
        logits = net(pictures, keep)
        with torch.no_grad():
            targets = F.softmax(knows(pictures) / arguments.temperature, 1)
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
            if keep is not None:
                torch.save(state, RUNS / f"vit-{anchor.name}.level.pt")
            left = (time.time() - started) / (step + 1 - first) * (total - step - 1)
            shown = losses / min(EVERY, step + 1 - first)
            print(f"{anchor.name} step {step + 1}/{total} loss {shown:.3f} minutes left {left / 60:.0f}", flush=True)
            losses = 0.0

    final = average.module.cpu()
    top1 = accuracy(final, test_images, test_labels)
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
            net.eval(),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ANCHORS:
        one = commands.add_parser(name, help=f"train the {name} anchor")
        one.set_defaults(anchor=name)
        one.add_argument("--epochs", type=int, default=10)
        one.add_argument("--batch", type=int, default=125)
        one.add_argument("--lr", type=float, default=0.02, help="of matrices and filters")
        one.add_argument("--adam-lr", type=float, default=2e-3, help="of biases, norms, tokens, positions, head")
        one.add_argument("--weight-decay", type=float, default=0.02, help="decoupled, on matrices and filters")
        one.add_argument("--average", type=float, default=0.997, help="decay of the average of weights, per step")
        one.add_argument("--temperature", type=float, default=3.0)
        one.add_argument("--fall", type=float, default=0.4, help="part of the steps over which the rate falls")
        one.add_argument("--patches", type=int, default=40, help="of 64, that a step before the fall sees")
        one.add_argument("--threads", type=int, default=1)
        one.add_argument("--device", default="cpu", help="cpu or cuda")
        one.add_argument("--seed", type=int, default=1)
    commands.add_parser("export", help="write ONNX files and table").add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "export":
        export(arguments.out)
        return
    torch.set_num_threads(arguments.threads)
    train(arguments)


if __name__ == "__main__":
    main()
