#!/usr/bin/env bash
# Every check of the repository, the fastest first; the same on a laptop and in CI.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || { echo "install Rust with rustup first" >&2; exit 1; }
command -v cc >/dev/null || { echo "install a C compiler first, cargo links with it (apt-get install gcc libc6-dev)" >&2; exit 1; }

step() {
  local started=$SECONDS
  printf '\n== %s\n' "$*"
  "$@" || { printf '== FAILED after %s s: %s\n' "$((SECONDS - started))" "$*" >&2; exit 1; }
  printf '== ok, %s s: %s\n' "$((SECONDS - started))" "$*"
}
# A component that the toolchain lacks and rustup cannot fetch is left out, and said so.
component() {
  cargo "$1" --version >/dev/null 2>&1 || timeout 300 rustup component add "$2" >/dev/null 2>&1 || true
  cargo "$1" --version >/dev/null 2>&1 || { printf '\n== cargo %s: not installed, SKIPPED\n' "$1"; return 1; }
}

if component fmt rustfmt; then
  step cargo fmt --all --check
  step cargo fmt --manifest-path firmware/Cargo.toml --check
  step cargo fmt --manifest-path fuzz/Cargo.toml --check
fi
# An edge between crates that the architecture forbids.
step cargo xtask layers
# What the compiler lets pass: lints of all crates, tests and benches included.
if component clippy clippy; then
  # All features but stitch/cuda, which needs NVIDIA's compiler.
  step cargo clippy --release --workspace --all-targets --features sensors/defmt --exclude kernels -- -D warnings
  step cargo clippy --release -p kernels --all-targets --features reference -- -D warnings
fi
# Tests on the host: every crate, every instruction set that this CPU has.
step cargo test --release --workspace
# A runtime without the operations of transformers, and one without heads of detectors.
step cargo test --release -p runtime --no-default-features
step cargo test --release -p runtime --no-default-features --features transformers
# Kernels against the naive reference.
step cargo test --release -p kernels --features reference
# Parser, engine and the portable kernels in Miri, on a little of everything; 32 bits, and no instructions that Miri lacks.
PORTABLE=armv7-unknown-linux-gnueabihf
if cargo +nightly miri setup --target $PORTABLE </dev/null >/dev/null 2>&1; then
  step cargo +nightly miri test --target $PORTABLE -p kernels --features reference --test miri
  step cargo +nightly miri test --target $PORTABLE -p kernels --features reference --test kernels -- errors check_their_lengths
  step cargo +nightly miri test --target $PORTABLE -p runtime --test features -- an_image_of_a_transformer
else
  printf '\n== Miri: not installed (rustup toolchain install nightly -c miri -c rust-src), SKIPPED\n'
fi
# The bundled family, scored on 2,000 images: integers cost at most a point, in every config.
IMAGE=out/checked.snet
step cargo run --release --quiet --bin stitchnet -- compile models/cifar-cnn/family.toml -o $IMAGE
step cargo run --release --quiet --bin stitchnet -- report $IMAGE --max-loss 1.0
# Under a battery, heat and bursts: no budget missed, no less than with one choice a frame, nearly what an oracle would score.
for scenario in battery thermal bursty; do
  step cargo run --release --quiet --bin stitchnet -- simulate $IMAGE --images models/cifar-cnn/data/test \
    --scenario $scenario --steal 1 --frames 1000 --compare --at-least 99.5
done
# The bundled transformers: fewer pictures, as README.md has the scores on 2,000.
VIT=out/vit.snet
step cargo run --release --quiet --bin stitchnet -- compile models/cifar-vit/family.toml -o $VIT --score-images 200
step cargo run --release --quiet --bin stitchnet -- report $VIT --max-loss 4.0
# The bundled detectors, on all their test pictures: integers cost at most a point of AP50, in every config that ships.
CELLS=out/cells.snet
DENSE=out/dense.snet
step cargo run --release --quiet --bin stitchnet -- compile models/blood-cells/family.toml -o $CELLS
step cargo run --release --quiet --bin stitchnet -- report $CELLS --max-loss 1.0
step cargo run --release --quiet --bin stitchnet -- compile models/blood-cells-dense/family.toml -o $DENSE
step cargo run --release --quiet --bin stitchnet -- report $DENSE --max-loss 1.0
SCENES=out/scenes.snet
step cargo run --release --quiet --bin stitchnet -- compile models/scenes/family.toml -o $SCENES
step cargo run --release --quiet --bin stitchnet -- report $SCENES --max-loss 1.0
# Same bytes on a Cortex-M4, instructions of a switch, memory: what no host test sees.
step scripts/setup-arm.sh
step cargo xtask qemu --image $IMAGE
step cargo xtask qemu --image $VIT
step cargo xtask detect --image $CELLS
# The same on more pictures, and what the head takes on them.
step cargo xtask detect --image $CELLS --images models/blood-cells/data/test.json --count 4
step cargo xtask detect --image $DENSE
step cargo xtask detect --image $SCENES
# Every kernel against the reference there, on a Cortex-M7 and M55, and on AArch64 without and with matrix products; no layer takes
# more instructions than it did.
for board in mps2-an386 mps2-an500 mps3-an547 cortex-a76 neoverse-n2; do
  step cargo xtask layers-bench --board $board
done
# A program of AArch64 Linux finds what its CPU has.
step scripts/setup-arm.sh linux
step cargo xtask arm-linux
# A decision among 64 configs in at most 2,000 instructions; flash, memory and stack of every firmware on every board.
LADDER=out/ladder.snet
step cargo run --release --quiet -p support --example ladder -- $LADDER 64
step cargo xtask latency --image $LADDER
step cargo xtask sizes --image $LADDER
# The loop a user goes round: the board measures, the image takes its costs, the station senses and holds every budget.
STATION=out/station.snet
step cargo xtask latency --image $IMAGE
step cargo run --release --quiet --bin stitchnet -- bench $IMAGE --from out/latency.log --milliwatts 100 -o $STATION
step cargo xtask station --image $STATION
if component clippy clippy; then
  for board in mps2-an386 mps3-an547 nrf52840 stm32h743; do
    [ $board = mps3-an547 ] && target=thumbv8m.main-none-eabihf || target=thumbv7em-none-eabihf
    step env STITCHNET_IMAGE="$PWD/$LADDER" cargo clippy --manifest-path firmware/Cargo.toml --release --bins --lib \
      --target $target --no-default-features --features $board,detector -- -D warnings
  done
  step cargo clippy --manifest-path firmware/Cargo.toml --release -p aarch64 --target aarch64-unknown-none -- -D warnings
  step cargo clippy --manifest-path firmware/Cargo.toml --release --bin layers --target thumbv7em-none-eabihf \
    --features reference -- -D warnings
  step cargo clippy --manifest-path firmware/Cargo.toml --release --bin layers --target thumbv8m.main-none-eabihf \
    --no-default-features --features mps3-an547,reference -- -D warnings
fi
printf '\nall checks passed (%ss)\n' "$SECONDS"
