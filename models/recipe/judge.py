"""What onnxruntime computes on the files of structures.py: `python judge.py [FOLDER] [--only NAME] [--stitches N]`.

Beside every NAME.onnx: NAME.image.f32 (noise, channels last) and NAME.output.f32. With --stitches, N stitched DeiTs of
random stitches: the front's file cut after block A, a MatMul and an Add with noise, the back's file from block B on,
joined as one ONNX graph; FRONT-A-BACK-B.{weights,bias,image,output}.f32 in the folder `stitched`.

`cargo test --release -p stitch --test structures -- --ignored` compares our float path with all of it.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from structures import ARCHITECTURES, SIDE

DEIT = ("deit-ti", "deit-s", "deit-b")
DEPTH = 12


def write(path: Path, values: np.ndarray) -> None:
    values.astype("<f4").tofile(path)


def image(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((1, 3, SIDE, SIDE), dtype=np.float32)


def run(model: bytes, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0]


def cut_name(block: int) -> str:
    """The sum that ends a block of a DeiT of timm, as torch.onnx.export(dynamo=False) names it."""
    return f"/blocks/blocks.{block}/Add_1_output_0"


def needed(graph: onnx.GraphProto, target: str, known: set[str]) -> list[onnx.NodeProto]:
    """The nodes that compute `target` from `known`, in order."""
    wanted, kept = {target}, []
    for node in reversed(graph.node):
        if any(output in wanted and output not in known for output in node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def join(front: onnx.ModelProto, a: int, back: onnx.ModelProto, b: int, weights: np.ndarray, bias: np.ndarray) -> bytes:
    """Blocks 0..=a of `front`, the stitch, blocks b.. of `back`."""
    joined = onnx.ModelProto()
    joined.CopyFrom(front)
    del joined.graph.node[:], joined.graph.initializer[:], joined.graph.output[:]
    enter = cut_name(b - 1)
    halves = (
        ("front", front.graph, needed(front.graph, cut_name(a), set()), {front.graph.input[0].name}),
        ("back", back.graph, needed(back.graph, back.graph.output[0].name, {enter}), {enter}),
    )
    for prefix, graph, nodes, outside in halves:
        rename = lambda name: name if not name else ("stitched" if prefix == "back" else name) if name in outside else f"{prefix}/{name}"
        for node in nodes:
            copy = joined.graph.node.add()
            copy.CopyFrom(node)
            copy.name = f"{prefix}/{node.name}"
            copy.input[:] = [rename(name) for name in node.input]
            copy.output[:] = [rename(name) for name in node.output]
        used = {name for node in nodes for name in node.input}
        for tensor in graph.initializer:
            if tensor.name in used:
                copy = joined.graph.initializer.add()
                copy.CopyFrom(tensor)
                copy.name = f"{prefix}/{tensor.name}"
        if prefix == "front":
            joined.graph.initializer.extend(
                [numpy_helper.from_array(weights, "stitch.weights"), numpy_helper.from_array(bias, "stitch.bias")]
            )
            joined.graph.node.extend(
                [
                    helper.make_node("MatMul", [f"front/{cut_name(a)}", "stitch.weights"], ["stitch.product"]),
                    helper.make_node("Add", ["stitch.product", "stitch.bias"], ["stitched"]),
                ]
            )
    output = joined.graph.output.add()
    output.CopyFrom(back.graph.output[0])
    output.name = f"back/{output.name}"
    return joined.SerializeToString()


def stitched(folder: Path, count: int, rng: np.random.Generator) -> None:
    out = folder / "stitched"
    out.mkdir(exist_ok=True)
    models = {name: onnx.load(folder / f"{name}.onnx") for name in DEIT}
    for number in range(count):
        front, back = DEIT[number % 2], DEIT[number % 2 + 1]
        a = int(rng.integers(0, DEPTH))
        b = int(rng.integers(max(a, 1), min(a + 2, DEPTH) + (a == DEPTH - 1)))
        widths = [models[name].graph.initializer for name in (front, back)]
        narrow, wide = [next(t.dims[-1] for t in tensors if len(t.dims) == 3) for tensors in widths]
        weights = rng.standard_normal((narrow, wide), dtype=np.float32) / np.float32(np.sqrt(narrow))
        bias = rng.standard_normal(wide, dtype=np.float32) * np.float32(0.1)
        values = image(rng)
        output = run(join(models[front], a, models[back], b, weights, bias), values)
        stem = out / f"{front}+{a}+{back}+{b}"
        for name, array in (
            ("weights", weights.T),
            ("bias", bias),
            ("image", values.transpose(0, 2, 3, 1)),
            ("output", output),
        ):
            write(stem.with_name(f"{stem.name}.{name}.f32"), array)
        print(stem.name, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "cache" / "structures")
    parser.add_argument("--only", choices=ARCHITECTURES)
    parser.add_argument("--stitches", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    for name in [arguments.only] if arguments.only else ARCHITECTURES:
        path = arguments.folder / f"{name}.onnx"
        if path.exists():
            values = image(rng)
            write(path.with_suffix(".image.f32"), values.transpose(0, 2, 3, 1))
            write(path.with_suffix(".output.f32"), run(path.read_bytes(), values))
            print(name, flush=True)
    if arguments.stitches:
        stitched(arguments.folder, arguments.stitches, rng)


if __name__ == "__main__":
    main()
