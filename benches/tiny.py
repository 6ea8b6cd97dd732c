"""Whole networks of MLPerf Tiny on a Cortex-M4 in QEMU: `python benches/tiny.py [resnet8 | mobilenetv1-025]`.

Exports the network with random weights (models/recipe/structures.py), compiles it, and runs its image on the emulated
board, where outputs are compared with the host's. Prints instructions and arena beside those of TFLite Micro with CMSIS-NN.

Needs models/recipe/requirements-structures.txt, and target/release/stitchnet.
"""

import re
import subprocess
import sys
from pathlib import Path

from one_network import RECIPE, ROOT, exported, image

CACHE = RECIPE / "cache" / "tiny"
PICTURES = 16

NETWORKS = {"resnet8": (32, 10, 29_676_378, 54_996), "mobilenetv1-025": (96, 2, 24_406_890, 100_708)}
"""Side, classes, and the peer's instructions and bytes of arena: TFLM 90b983c2, CMSIS-NN 99f736a6, GCC 15.3.1 -Ofast."""


def compiled(name: str) -> Path:
    side, classes, *_ = NETWORKS[name]
    stitchnet = ROOT / "target" / "release" / "stitchnet"
    return image(stitchnet, CACHE, name, exported(name, CACHE), side, classes, PICTURES)


def main() -> None:
    for name in sys.argv[1:] or NETWORKS:
        command = ["cargo", "xtask", "qemu", "--image", compiled(name)]
        log = subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True).stdout
        instructions = int(re.search(r"^config 0: instructions (\d+) dsp", log, re.MULTILINE)[1])
        arena = int(re.search(r"^RAM: arena (\d+) bytes", log, re.MULTILINE)[1])
        *_, peer_instructions, peer_arena = NETWORKS[name]
        print(f"{name}: {instructions:,} instructions, {instructions / peer_instructions:.2f} of {peer_instructions:,}; "
              f"arena {arena:,} bytes, {arena / peer_arena:.2f} of {peer_arena:,}")


if __name__ == "__main__":
    main()
