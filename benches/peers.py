"""Our engine beside onnxruntime, OpenVINO and rten on this machine: `python benches/peers.py [NETWORK...]`.

int8, batch 1, one thread, all on one core. Each engine is a process that is told to run so many times;
they take turns, so that what else the machine does meets all of them. Times are those on the core, of all threads of the
engine, so that other processes do not count. A ratio is that of two neighbouring turns.

Networks are the bundled anchors, and public architectures with random weights from models/recipe/structures.py. All engines
get the same ONNX file: ours through `stitchnet compile`, the peers through onnxruntime.quantization (static QDQ with a scale
per channel, or dynamic, on the same pictures). What is made once is kept in models/recipe/cache/peers.

Needs models/recipe/requirements-structures.txt, and target/release/stitchnet or --stitchnet.
"""

import argparse
import importlib
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from one_network import MEAN, RECIPE, ROOT, STD, exported, image, pictures

CACHE = RECIPE / "cache" / "peers"
DOCUMENT = ROOT / "docs" / "kernels.md"
CLASSES = 10
PICTURES = {32: 64, 224: 16}
"""Pictures that ranges are taken from, by side."""

FOR_DESKTOPS = ("streams = false", 'packing = "blocks"')
"""In our descriptions: memory is there, and the weights lie as vectors of bytes read them."""

HEAD = (
    "| network | engine | ms | its time / ours (quartiles) | first, ms | ours / its |\n"
    "|---|---|---:|---:|---:|---:|"
)

CNN = ("onnxruntime qdq", "openvino qdq")
TRANSFORMER = ("onnxruntime qdq", "onnxruntime dynamic", "openvino qdq", "rten dynamic")


@dataclass(frozen=True)
class Network:
    """A row of the table: where its ONNX file is (a name of structures.py, or a path), its side, its peers."""

    source: str
    side: int
    peers: tuple[str, ...]


NETWORKS = {
    "cnn-small": Network("models/cifar-cnn/small.onnx", 32, CNN),
    "cnn-medium": Network("models/cifar-cnn/medium.onnx", 32, CNN),
    "cnn-large": Network("models/cifar-cnn/large.onnx", 32, CNN),
    "resnet20": Network("resnet20", 32, CNN),
    "resnet18": Network("resnet18", 224, CNN),
    "vit-small": Network("models/cifar-vit/small.onnx", 32, TRANSFORMER),
    "vit-medium": Network("models/cifar-vit/medium.onnx", 32, TRANSFORMER),
    "vit-large": Network("models/cifar-vit/large.onnx", 32, TRANSFORMER),
    "deit-ti": Network("deit-ti", 224, TRANSFORMER),
}


def inputs(side: int):
    """[N, 3, side, side] f32, as the networks take them."""
    scaled = (pictures(side, PICTURES[side]) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def onnx_file(name: str) -> Path:
    """The float network; exported if it is a name of structures.py."""
    source = NETWORKS[name].source
    return ROOT / source if source.endswith(".onnx") else exported(source, CACHE)


def compiled(name: str, arguments) -> Path:
    """Our image."""
    side = NETWORKS[name].side
    classes = CLASSES if side == 32 else 1000
    more = () if arguments.as_device else FOR_DESKTOPS
    return image(arguments.stitchnet, CACHE, name, onnx_file(name), side, classes, PICTURES[side], *more)


def quantised(name: str, how: str) -> Path:
    """The peers' network, `qdq` or `dynamic`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = CACHE / f"{name}-{how}.onnx"
    if path.exists():
        return path
    prepared = CACHE / f"{name}-prepared.onnx"
    quant_pre_process(str(onnx_file(name)), str(prepared))
    if how == "dynamic":
        quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QInt8)
        return path

    class Reader(CalibrationDataReader):
        rest = iter([{"image": picture[None]} for picture in inputs(NETWORKS[name].side)])

        def get_next(self):
            return next(self.rest, None)

    quantize_static(str(prepared), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return path


def onnxruntime_run(onnxruntime, model: bytes, picture):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("image", picture)
    binding.bind_output("logits")
    return lambda: session.run_with_iobinding(binding)


def openvino_run(openvino, model: bytes, picture):
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(picture))

    def run():
        request.start_async()
        request.wait()

    return run


ENGINES = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


def worker(engine: str, path: Path, side: int) -> None:
    """A peer's side of what benches/turns.rs describes."""
    model, picture = path.read_bytes(), inputs(side)[:1].copy()
    module = importlib.import_module(engine)
    print(engine, flush=True)
    sys.stdin.readline()
    run = ENGINES[engine](module, model, picture)
    run()
    print("done", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            run()
        print("done", flush=True)


class Player:
    """One engine's process, after its first run, which is `cold`."""

    def __init__(self, command: list, core: int):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )
        self.kernels = self.process.stdout.readline().strip()
        self.runs = 1
        self.cold = self.turn()

    def spent(self) -> int:
        """Nanoseconds on the core so far."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def turn(self) -> float:
        """Nanoseconds of a run, on the core."""
        before = self.spent()
        self.process.stdin.write(f"{self.runs}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()
        return (self.spent() - before) / self.runs

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(name: str, arguments) -> list[str]:
    """Rows of the table."""
    commands = {"ours": [ROOT / "target/release/examples/turns", compiled(name, arguments)]}
    for peer in NETWORKS[name].peers:
        engine, how = peer.split()
        if engine == "rten":
            if arguments.rten:
                commands[peer] = [arguments.rten, quantised(name, how), NETWORKS[name].side]
            continue
        commands[peer] = [sys.executable, __file__, "--worker", engine, quantised(name, how), NETWORKS[name].side]
    cold = {engine: [] for engine in commands}
    for _ in range(arguments.starts):
        for engine, command in commands.items():
            player = Player(command, arguments.core)
            cold[engine].append(player.cold)
            player.close()
    players = {engine: Player(command, arguments.core) for engine, command in commands.items()}
    for player in players.values():
        # A turn of about 40 ms.
        player.runs = max(1, int(40e6 / player.turn()))
    rounds = [{engine: player.turn() for engine, player in players.items()} for _ in range(arguments.rounds)]
    for player in players.values():
        player.close()
    rows = []
    for engine in commands:
        ratios = sorted(turn[engine] / turn["ours"] for turn in rounds)
        quarter = len(ratios) // 4
        first, ours = statistics.median(cold[engine]) / 1e6, statistics.median(cold["ours"]) / 1e6
        rows.append(
            f"| {name} | {engine} | {statistics.median(turn[engine] for turn in rounds) / 1e6:.3f} "
            f"| {statistics.median(ratios):.2f} ({ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}) "
            f"| {first:.2f} | {ours / first:.3f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--stitchnet", type=Path, default=ROOT / "target/release/stitchnet")
    parser.add_argument("--rten", type=Path, help="program of benches/rten (cargo build --release there); without it rten is left out")
    parser.add_argument("--core", type=int, default=os.cpu_count() - 1)
    parser.add_argument("--rounds", type=int, default=31, help="turns of each engine")
    parser.add_argument("--starts", type=int, default=5, help="cold starts of each engine")
    parser.add_argument("--update", action="store_true", help="write the table into docs/kernels.md")
    parser.add_argument("--as-device", action="store_true", help="our images as small devices run them: streams, and weights in rows")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        engine, path, side = arguments.worker
        return worker(engine, Path(path), int(side))
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cargo", "build", "--release", "-p", "benches", "--example", "turns"], cwd=ROOT, check=True)
    print(HEAD)
    rows = [row for name in arguments.networks or NETWORKS for row in compare(name, arguments)]
    if arguments.update:
        before, rest = DOCUMENT.read_text().split("<!-- peers: begin -->")
        _, after = rest.split("<!-- peers: end -->")
        table = "\n".join([HEAD, *rows])
        DOCUMENT.write_text(f"{before}<!-- peers: begin -->\n\n{table}\n\n<!-- peers: end -->{after}")


if __name__ == "__main__":
    main()
