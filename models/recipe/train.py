"""Train one anchor on CIFAR-10: `python train.py large --epochs 24`.

Short-schedule recipe: orthogonalised momentum (Muon, K. Jordan 2024) on convolution filters, Nesterov SGD on the
rest, linear warm-up and decay, label smoothing, an average of the last weights. With `--teacher large` the
anchor also learns from a larger anchor's logits (Hinton et al. 2015). A checkpoint is written after each
epoch; starting again goes on from it. Nothing is selected on the test images: they are scored, no more.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import data
from net import ANCHORS, Net, cost

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
RUNS = data.CACHE / "runs"


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest semi-orthogonal matrix (Newton-Schulz, 5 steps)."""

    def __init__(self, parameters, lr: float, momentum: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
                gradient = parameter.grad.add(momentum, alpha=group["momentum"])
                update = orthogonal(gradient.reshape(len(gradient), -1)).view_as(parameter)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                # Scale as for a matrix of unit root-mean-square gain per output channel.
                scale = max(1.0, parameter.shape[0] / parameter[0].numel()) ** 0.5
                parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Quintic Newton-Schulz iteration towards U V^T of the singular value decomposition."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if transposed else x).to(matrix.dtype)


def augment(images: torch.Tensor, mirrored: torch.Tensor, cutout: int, generator: torch.Generator) -> torch.Tensor:
    """Shift by up to 4 pixels (reflected border), mirror where asked, blank one square. [N, 3, 32, 32] -> same."""
    count = len(images)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    rows = torch.randint(9, (count, 1), generator=generator) + torch.arange(32)
    columns = torch.randint(9, (count, 1), generator=generator) + torch.arange(32)
    columns[mirrored] = columns[mirrored].flip(1)
    index = torch.arange(count)[:, None, None]
    out = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    if cutout:
        centre = torch.randint(32, (2, count, 1), generator=generator)
        near = (torch.arange(32) - centre).abs() * 2 < cutout
        hole = near[0][:, :, None] & near[1][:, None, :]
        out = out.masked_fill(hole[..., None], 0)
    return out.permute(0, 3, 1, 2)  # channels_last in memory


def normalise(images) -> torch.Tensor:
    """[N, 32, 32, 3] u8 -> [N, 3, 32, 32] float, per-channel mean 0 and deviation 1."""
    pixels = torch.from_numpy(images).float() / 255
    return ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 in float32, fraction of all images."""
    net.eval()
    right = sum(
        (net(part).argmax(1) == label).sum().item()
        for part, label in zip(images.split(500), labels.split(500))
    )
    return right / len(labels)


def train(arguments) -> None:
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    train_images, train_labels, test_images, test_labels = data.load()
    train_images, test_images = normalise(train_images), normalise(test_images)
    train_labels, test_labels = torch.from_numpy(train_labels), torch.from_numpy(test_labels)

    anchor = ANCHORS[arguments.anchor]
    net = Net(anchor).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(arguments.average), use_buffers=True
    )
    teacher = None
    if arguments.teacher:
        teacher = Net(ANCHORS[arguments.teacher]).to(memory_format=torch.channels_last)
        teacher.load_state_dict(torch.load(RUNS / f"{arguments.teacher}.final.pt"))
        teacher.eval()

    filters = [p for name, p in net.named_parameters() if p.ndim == 4 and "stem" not in name]
    others = [p for name, p in net.named_parameters() if p.ndim != 4 or "stem" in name]
    optimizers = [
        Muon(filters, arguments.lr, 0.9, arguments.weight_decay),
        torch.optim.SGD(others, arguments.lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
    ]
    base = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]

    # Half of the images start mirrored; every epoch shows each the other way round (K. Jordan 2024, airbench).
    starts_mirrored = torch.rand(len(train_images), generator=generator) < 0.5
    steps_per_epoch = len(train_images) // arguments.batch
    total = arguments.epochs * steps_per_epoch
    checkpoint = RUNS / f"{arguments.run or arguments.anchor}.pt"
    RUNS.mkdir(parents=True, exist_ok=True)
    first_epoch = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        generator.set_state(state["generator"])
        first_epoch = state["epoch"]
        print(f"resuming {checkpoint.name} after epoch {first_epoch}", flush=True)
        if first_epoch == arguments.epochs:
            print("nothing left to train; scoring", flush=True)

    started = time.time()
    for epoch in range(first_epoch, arguments.epochs):
        epoch_started = time.time()
        net.train()
        order = torch.randperm(len(train_images), generator=generator)
        losses = 0.0
        for step in range(steps_per_epoch):
            progress = (epoch * steps_per_epoch + step) / total
            factor = min(progress / 0.15, (1 - progress) / 0.85)
            for group, lr in zip((g for o in optimizers for g in o.param_groups), base):
                group["lr"] = lr * max(factor, 1e-3)
            chosen = order[step * arguments.batch : (step + 1) * arguments.batch]
            mirrored = starts_mirrored[chosen] ^ (epoch % 2 == 1)
            images = augment(train_images[chosen], mirrored, arguments.cutout, generator)
            labels = train_labels[chosen]
            with torch.autocast("cpu", torch.bfloat16, enabled=not arguments.float32):
                logits = net(images)
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=arguments.smoothing)
                if teacher is not None:
                    with torch.no_grad():
                        targets = F.softmax(teacher(images).float() / arguments.temperature, 1)
                    soft = F.log_softmax(logits.float() / arguments.temperature, 1)
                    distilled = F.kl_div(soft, targets, reduction="batchmean") * arguments.temperature**2
                    loss = 0.1 * loss + 0.9 * distilled
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            average.update_parameters(net)
            losses += loss.item()
        state = {
            "net": net.state_dict(),
            "average": average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "generator": generator.get_state(),
            "epoch": epoch + 1,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").rename(checkpoint)
        done = epoch + 1 - first_epoch
        left = (time.time() - started) / done * (arguments.epochs - epoch - 1)
        print(
            f"{arguments.anchor} epoch {epoch + 1}/{arguments.epochs}"
            f" loss {losses / steps_per_epoch:.3f}"
            f" seconds {time.time() - epoch_started:.0f}"
            f" minutes left {left / 60:.1f}",
            flush=True,
        )

    final = average.module
    top1 = accuracy(final, test_images, test_labels)
    torch.save(final.state_dict(), RUNS / f"{arguments.run or arguments.anchor}.final.pt")
    macs, parameters = cost(anchor)
    row = {"anchor": anchor.name, "macs": macs, "parameters": parameters, "top1": top1}
    row |= {key: value for key, value in vars(arguments).items() if key not in ("anchor", "run")}
    (RUNS / f"{arguments.run or arguments.anchor}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(f"{anchor.name}: top-1 {top1:.4f} on {len(test_labels)} test images", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("anchor", choices=sorted(ANCHORS))
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--weight-decay", type=float, default=0.05, help="decoupled, on convolution filters")
    parser.add_argument("--smoothing", type=float, default=0.1)
    parser.add_argument("--cutout", type=int, default=0, help="side of the blanked square in pixels")
    parser.add_argument("--average", type=float, default=0.995, help="decay of the average of weights, per step")
    parser.add_argument("--teacher", choices=sorted(ANCHORS), help="a trained anchor to learn from")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 (slower where the CPU has it)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", help="name of the checkpoint, default: the anchor")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
