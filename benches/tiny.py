"""Whole networks of MLPerf Tiny on a Cortex-M4 in QEMU: `python benches/tiny.py [--whole] [resnet8 | mobilenetv1-025]`.

Exports the network with random weights (models/recipe/structures.py), compiles it, and runs its image on the emulated
board, where outputs are compared with the host's. Prints instructions and arena beside those of TFLite Micro with CMSIS-NN.
With `--whole` no op runs strip by strip: less instructions, more arena.

Needs models/recipe/requirements-structures.txt, and target/release/stitchnet.
"""

import argparse
import re
import subprocess
from pathlib import Path

from one_network import RECIPE, ROOT, exported, image

CACHE = RECIPE / "cache" / "tiny"
PICTURES = 16

NETWORKS = {"resnet8": (32, 10, 29_676_378, 54_996), "mobilenetv1-025": (96, 2, 24_406_890, 100_708)}
"""Side, classes, and the peer's instructions and bytes of arena: TFLM 90b983c2, CMSIS-NN 99f736a6, GCC 15.3.1 -Ofast."""


def compiled(name: str, *more: str) -> Path:
    side, classes, *_ = NETWORKS[name]
    stitchnet = ROOT / "target" / "release" / "stitchnet"
    return image(stitchnet, CACHE, name, exported(name, CACHE), side, classes, PICTURES, *more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--whole", action="store_true", help="without streams")
    arguments = parser.parse_args()
    for name in arguments.networks or NETWORKS:
        more = ["streams = false"] if arguments.whole else []
        command = ["cargo", "xtask", "qemu", "--image", compiled(name, *more)]
        log = subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True).stdout
        instructions = int(re.search(r"^config 0: instructions (\d+) dsp", log, re.MULTILINE)[1])
        arena = int(re.search(r"^RAM: arena (\d+) bytes", log, re.MULTILINE)[1])
        *_, peer_instructions, peer_arena = NETWORKS[name]
        print(f"{name}: {instructions:,} instructions, {instructions / peer_instructions:.2f} of {peer_instructions:,}; "
              f"arena {arena:,} bytes, {arena / peer_arena:.2f} of {peer_arena:,}")


if __name__ == "__main__":
    main()
