"""Train and compare detectors: `python train_detector.py train asag --epochs 300`, then `score asag`, then `table`.

Each step shares its batch out among the configs of the backbone, so that one head learns to serve all of them; a
stitched config sees pictures of the large anchor's and its maps learn from that one's too. AdamW, linear warm-up and
cosine decay, an average of the last weights. In the first part of the steps the generator is not trusted: probed
patches come from the targets; in the last part batch norms are settled. A checkpoint is written every EVERY steps;
starting again goes on from it.
Nothing is selected: the averaged weights of the last step are scored. `val` and `test` are never trained on.

Own boxes: a folder with train.json, val.json and test.json in COCO form (`box_data.py voc` makes them from VOC), named
with --data. Names of the classes come from train.json. With --export DIR, `train` also scores and writes what
`stitchnet compile DIR/family.toml` reads.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import data
from asag_loss import Targets
from average_precision import Boxes, average_precision, recall
from box_data import BLOOD_CELLS, Pictures, read_coco
from boxes import to_corners
from detector import BLOOD, HEADS, SIDE, Detector, normalise
from detector_cost import cost
from export_detector import export
from pyramid import ALONE, STITCHED

RUNS = data.CACHE / "runs"
EVERY = 100  # steps between checkpoints
WARM_UP = 100  # steps
SPLITS = ("val", "test")


def detector(head: str, names: list[str], stitched: bool) -> Detector:
    return Detector(head, replace(BLOOD, classes=len(names)), ALONE + STITCHED if stitched else ALONE)


def batch(pictures: Pictures, indices, random, device, upright: bool):
    """Augmented images [N, 3, SIDE, SIDE] and targets."""
    parts = [pictures.augmented(int(index), random, upright) for index in indices]
    targets = [
        Targets(torch.from_numpy(boxes).float().to(device), torch.from_numpy(classes).to(device))
        for _, boxes, classes in parts
    ]
    return normalise(np.stack([pixels for pixels, _, _ in parts])).to(device), targets


def shares(net: Detector, images, targets, random, refine: bool = False):
    """Which config sees which images; the targets in that order; which of the images each of the last ones is again.

    Half of the batch to each anchor. Those of the last anchor go through stitched configs once more: through one of
    them, as batch norm wants pictures of one kind together; once norms are settled, shared out among all; and to
    `refine`, all through two of them.
    """
    anchors, stitched = net.configs[:2], list(net.configs[2:])
    shared = list(zip(anchors, images.tensor_split(2)))
    if not stitched:
        return shared, targets, []
    again = shared[1][1]
    same = list(range(len(images) - len(again), len(images)))
    chosen = random.permutation(len(stitched)) if net.settled else [random.integers(len(stitched))]
    if refine:
        chosen = chosen[:2]
        same *= len(chosen)
        shared += [(stitched[index], again) for index in chosen]
    else:
        parts = again.tensor_split(len(chosen))
        shared += [(stitched[index], part) for index, part in zip(chosen, parts) if len(part)]
    return shared, targets + [targets[index] for index in same], same


def settle(net: Detector, average: Detector) -> None:
    """From now on batch norms use the averaged statistics, in training too.

    All configs share an anchor's norms. While each share is normalised by itself, a block never meets what it computes
    after training, where one mean and variance serve all configs; now it does, and what is left of training is for that.
    """
    for norm, averaged in zip(net.norms(), average.norms()):
        for statistic, average_of_it in zip(norm.buffers(), averaged.buffers()):
            statistic.copy_(average_of_it)
    net.settled = True


def optimizer(net: Detector, arguments) -> torch.optim.Optimizer:
    """Weight decay on matrices and filters only."""
    matrices = [p for p in net.parameters() if p.ndim >= 2]
    others = [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": arguments.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, arguments.lr, fused=True)


def rate(step: int, total: int) -> float:
    """Factor of the learning rate: linear up, half a cosine down."""
    return min((step + 1) / WARM_UP, 1) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / total)) / 2)


def train(arguments) -> None:
    torch.manual_seed(arguments.seed)
    random = np.random.default_rng(arguments.seed)
    names, samples = read_coco(arguments.data / "train.json")
    pictures = Pictures(samples, SIDE)
    device = arguments.device
    net = detector(arguments.head, names, arguments.stitched).to(device)
    if arguments.refine:
        net.load_state_dict(torch.load(RUNS / f"detect-{arguments.refine}.final.pt", map_location=device))
        net.settled = True
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(arguments.average), use_buffers=True
    )
    steps = optimizer(net, arguments)
    base = [group["lr"] for group in steps.param_groups]
    per_epoch = len(pictures) // arguments.batch
    total = arguments.epochs * per_epoch
    RUNS.mkdir(parents=True, exist_ok=True)
    run = arguments.run or arguments.head
    checkpoint = RUNS / f"detect-{run}.pt"
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=False)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        steps.load_state_dict(state["optimizer"])
        random.bit_generator.state = state["random"]
        order, first, spent = state["order"], state["step"], state["seconds"]
        print(f"resuming {checkpoint.name} after step {first} of {total}", flush=True)

    started = time.time()
    shown: dict[str, float] = {}
    for step in range(first, total):
        place = step % per_epoch
        if place == 0:
            order = random.permutation(len(pictures))
        for group, lr in zip(steps.param_groups, base):
            group["lr"] = lr * rate(step, total)
        chosen = order[place * arguments.batch : (place + 1) * arguments.batch]
        images, targets = batch(pictures, chosen, random, device, arguments.upright)
        if step >= (1 - arguments.settled) * total and not net.settled:
            settle(net, average.module)
        net.train()
        shared, targets, same = shares(net, images, targets, random, arguments.refine is not None)
        loss, parts = net.loss(shared, targets, random, step < arguments.untrusted * total, same)
        steps.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), arguments.clip)
        steps.step()
        average.update_parameters(net)
        for name, part in (parts | {"loss": loss}).items():
            shown[name] = shown.get(name, 0.0) + float(part.detach())
        if (step + 1) % EVERY == 0 or step + 1 == total:
            state = {
                "net": net.state_dict(),
                "average": average.state_dict(),
                "optimizer": steps.state_dict(),
                "random": random.bit_generator.state,
                "order": order,
                "step": step + 1,
                "seconds": spent + time.time() - started,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            count = step % EVERY + 1 if step + 1 < total or total % EVERY == 0 else total % EVERY
            left = (time.time() - started) / (step + 1 - first) * (total - step - 1)
            values = " ".join(f"{name} {value / min(count, step + 1 - first):.3f}" for name, value in shown.items())
            print(f"{run} step {step + 1}/{total} {values} minutes left {left / 60:.1f}", flush=True)
            shown = {}

    left_out = ("command", "data", "run", "device", "export")
    row = {key: value for key, value in vars(arguments).items() if key not in left_out}
    row |= {"steps": total, "minutes": round((spent + time.time() - started) / 60, 1), "classes": names}
    (RUNS / f"detect-{run}.json").write_text(json.dumps(row, indent=1) + "\n")
    final = average.module.state_dict()
    torch.save({name: tensor.cpu() for name, tensor in final.items()}, RUNS / f"detect-{run}.final.pt")
    if arguments.export:
        score(argparse.Namespace(run=run, data=arguments.data))
        export(*load(run), arguments.data, arguments.export)


def load(run: str) -> tuple[Detector, dict]:
    """A trained detector and the row that describes its training."""
    row = json.loads((RUNS / f"detect-{run}.json").read_text())
    net = detector(row["head"], row["classes"], row["stitched"])
    net.load_state_dict(torch.load(RUNS / f"detect-{run}.final.pt"))
    return net.eval(), row


def score_config(net: Detector, config, pictures: Pictures) -> dict:
    """Average precisions and, for sparse heads, recalls and counts of one config on one split."""
    found, truths, extra = [], [], []
    classes = net.geometry.classes
    for start in range(0, len(pictures), 8):
        part = [pictures.whole(index) for index in range(start, min(start + 8, len(pictures)))]
        extra += net.find(normalise(np.stack([pixels for pixels, _, _ in part])), config)
        truths += [Boxes(to_corners(torch.from_numpy(boxes)).numpy(), labels) for _, boxes, labels in part]
    for one in extra:
        d = one.detections
        found.append(Boxes(to_corners(d.boxes).numpy(), d.classes.numpy(), d.scores.numpy()))
    table = average_precision(found, truths, classes)
    row = {"ap": float(np.nanmean(table)), "ap50": float(np.nanmean(table[:, 0])), "ap50_classes": table[:, 0].tolist()}
    if extra[0].anchors is not None:
        row["anchor_recall"] = recall([one.anchors.numpy() for one in extra], truths)
        row["proposal_recall"] = recall([one.proposals.numpy() for one in extra], truths)
        counts = np.array([(len(one.anchors), one.patches) for one in extra])
        for index, name in enumerate(("queries", "patches")):
            column = counts[:, index]
            row[name] = {"mean": float(column.mean()), "max": int(column.max())}
            row[name]["p95"] = float(np.percentile(column, 95))
    return row


def score(arguments) -> None:
    net, row = load(arguments.run)
    for split in SPLITS:
        pictures = Pictures(read_coco(arguments.data / f"{split}.json")[1], SIDE)
        row[split] = {config.name: score_config(net, config, pictures) for config in net.configs}
        for name, scores in row[split].items():
            print(f"{arguments.run} {name} {split}: AP50 {scores['ap50']:.3f} AP {scores['ap']:.3f}", flush=True)
    (RUNS / f"detect-{arguments.run}.json").write_text(json.dumps(row, indent=1) + "\n")


def table(arguments) -> None:
    """The comparison of all scored runs, Markdown on standard output."""
    header = ["run", "head", "config", "AP50 val", "AP val", "AP50 test", "AP test", "AP50 test by class"]
    header += ["recall 0.5 anchors", "proposals", "queries mean/p95/max", "patches"]
    header += ["MMAC worst", "MMAC mean", "parameters", "epochs", "minutes"]
    lines = ["| " + " | ".join(header) + " |", "|---|---|---|" + "---:|" * (len(header) - 3)]
    rows = {file.stem.removeprefix("detect-"): json.loads(file.read_text()) for file in RUNS.glob("detect-*.json")}
    scored = [run for run, row in rows.items() if "test" in row]
    for run in sorted(scored, key=lambda run: (HEADS.index(rows[run]["head"]), run)):
        net, row = load(run)
        for config in net.configs:
            val, test = row["val"][config.name], row["test"][config.name]
            by_class = " ".join(f"{name} {value:.3f}" for name, value in zip(row["classes"], test["ap50_classes"]))
            cells = [run, row["head"], config.name]
            cells += [*(f"{s[k]:.3f}" for s in (val, test) for k in ("ap50", "ap")), by_class]
            mean = None
            if "queries" in test:
                cells += [f"{test[key][0]:.3f}" for key in ("anchor_recall", "proposal_recall")]
                cells += ["{mean:.1f}/{p95:.0f}/{max}".format(**test[key]) for key in ("queries", "patches")]
                mean = test["queries"]["mean"], test["patches"]["mean"]
            else:
                cells += ["-"] * 4
            worst, parameters = cost(net, config)
            typical, _ = cost(net, config, *mean) if mean else (worst, parameters)
            cells += [f"{worst / 1e6:.1f}", f"{typical / 1e6:.1f}", f"{parameters:,}", row["epochs"], row["minutes"]]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train")
    one.add_argument("head", choices=HEADS)
    one.add_argument("--epochs", type=int, default=300)
    one.add_argument("--batch", type=int, default=16)
    one.add_argument("--lr", type=float, default=1e-3)
    one.add_argument("--weight-decay", type=float, default=0.05)
    one.add_argument("--clip", type=float, default=5.0, help="largest norm of the gradient")
    one.add_argument("--average", type=float, default=0.995, help="decay of the average of weights, per step")
    one.add_argument("--untrusted", type=float, default=0.03, help="part of the steps with patches from the targets")
    one.add_argument("--settled", type=float, default=0.4, help="part of the steps, the last, with fixed batch norms")
    one.add_argument("--stitched", action="store_true", help="train the stitched configs too")
    one.add_argument("--upright", action="store_true", help="pictures have an up and a down: do not mirror these")
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--device", default="cpu", help="cpu or cuda")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--export", type=Path, help="folder for what `stitchnet compile` reads")
    one.add_argument("--refine", help="run to start from, with settled norms and twice as much of the stitched configs")
    one.add_argument("--run", help="name of the checkpoint, default: the head")
    one.set_defaults(do=train)
    two = commands.add_parser("score", help="average precision of a trained run on val and test")
    two.add_argument("run")
    two.set_defaults(do=score)
    three = commands.add_parser("table", help="the comparison, as Markdown")
    three.set_defaults(do=table)
    for command in (one, two):
        command.add_argument("--data", type=Path, default=BLOOD_CELLS, help="folder of train, val and test.json")
    arguments = parser.parse_args()
    if arguments.command == "train":
        if arguments.batch < 2:
            parser.error(f"--batch is {arguments.batch}; each anchor needs a picture: at least 2")
        if arguments.refine and arguments.refine == (arguments.run or arguments.head):
            parser.error(f"--refine {arguments.refine} would write over that run; name another one with --run")
    do = arguments.__dict__.pop("do")
    torch.set_num_threads(getattr(arguments, "threads", 1))
    do(arguments)


if __name__ == "__main__":
    main()
