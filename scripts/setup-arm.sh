#!/usr/bin/env bash
# Brings the Cortex-M and AArch64 targets and QEMU; asks nothing, and a second run only looks. Where rustup cannot reach its
# server, Debian's copy of the standard library's source is compiled for exactly this compiler (about 2 minutes a target).
# With `linux` also what `cargo xtask arm-linux` needs: AArch64 Linux with std, a linker, QEMU for programs.
set -euo pipefail
cd "$(dirname "$0")/.."

# Cortex-M4 and M7; Cortex-M55, for which Rust has no target with vectors: `-C target-cpu` adds them; AArch64.
TARGETS="thumbv7em-none-eabihf thumbv8m.main-none-eabihf aarch64-unknown-none"
LINUX=aarch64-unknown-linux-gnu
[ "${1:-}" != linux ] || TARGETS="$TARGETS $LINUX"
# Debian's package of the source of a Rust release: version and SHA-256 (rust-toolchain.toml says which release).
SOURCE_OF=1.95.0
SOURCE_PACKAGE=1.95.0+dfsg1-2
SOURCE_SHA256=8e39f55364384322c334f8453c1914b49de94c5a7eca02b427861a624d95854a

RUSTC=$(rustc --print sysroot)/bin/rustc
RUSTLIB=$("$RUSTC" --print sysroot)/lib/rustlib
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/stitchnet-arm

say() { printf 'setup-arm: %s\n' "$*"; }
die() { say "$@" >&2; exit 1; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
apt() { root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -y -q "$@" >>"$CACHE/apt.log" 2>&1; }
missing() { for target in $TARGETS; do ls "$RUSTLIB/$target"/lib/libcore-*.rlib >/dev/null 2>&1 || echo "$target"; done; }
debian() { command -v apt-get >/dev/null; }
# Where apt gets most of its packages.
mirror() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' |
    sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }'
}
fetch() { curl -fsS --retry 3 -o "$2" "$(mirror)$1"; }
sha256_is() { [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]; }

# Major version of QEMU for Arm; 0 if there is none.
qemu_major() {
  { qemu-system-arm --version 2>/dev/null || true; } | sed -n '1s/^QEMU emulator version \([0-9]*\).*/\1/p' | grep . || echo 0
}

# Packages from where the numbers were measured with: QEMU 10.0 of the backports; any release with `-icount` will do.
install_qemu() {
  debian || die "install QEMU for Arm ($*), 8.0 or later, with your package manager; then run this again"
  say "installing $*"
  apt update || die "apt failed; see $CACHE/apt.log"
  if . /etc/os-release && [ "${VERSION_CODENAME:-}" = bookworm ]; then
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) bookworm-backports main" |
      root tee /etc/apt/sources.list.d/stitchnet-backports.list >/dev/null
    apt update
    apt install --no-install-recommends -t bookworm-backports "$@"
  else
    apt install --no-install-recommends "$@"
  fi || die "apt failed; see $CACHE/apt.log"
}

# The library's source as $1/library: the package, or the tarball that the signed index of the archive names.
get_source() {
  local to=$1 package=pool/main/r/rustc/rust-src_${SOURCE_PACKAGE}_all.deb
  if fetch "$package" "$to/source.deb" && sha256_is "$to/source.deb" "$SOURCE_SHA256"; then
    dpkg-deb --fsys-tarfile "$to/source.deb" |
      tar -x -C "$to" --strip-components=4 --wildcards './usr/src/rustc-*/library'
    return
  fi
  say "the package is gone; trying the tarball of the archive's index"
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg name sha256
  fetch dists/sid/InRelease "$to/InRelease"
  gpgv -q --keyring $keys -o "$to/Release" "$to/InRelease" || die "the archive's signature is not good"
  fetch dists/sid/main/source/Sources.xz "$to/Sources.xz"
  sha256=$(sed -n '/^SHA256:/,$p' "$to/Release" | awk '$3 == "main/source/Sources.xz" { print $1; exit }')
  sha256_is "$to/Sources.xz" "$sha256" || die "the archive's index is not the signed one"
  read -r name sha256 < <(xz -dc "$to/Sources.xz" |
    awk -v RS= -v v="$SOURCE_OF" '/(^|\n)Package: rustc\n/ && index($0, "\nVersion: " v "+")' |
    sed -n '/^Checksums-Sha256/,/^[A-Z].*:$/p' | awk '/orig\.tar\.xz$/ { print $3, $1; exit }') || true
  [ -n "${name:-}" ] || die "no source of Rust $SOURCE_OF in the archive; run 'rustup target add $TARGETS' where it works"
  fetch "pool/main/r/rustc/$name" "$to/source.tar.xz"
  sha256_is "$to/source.tar.xz" "$sha256" || die "the tarball is not the one of the signed index"
  tar -xJf "$to/source.tar.xz" -C "$to" --strip-components=1 --wildcards '*/library'
}

# Compiles core and alloc as the release does, puts them into the toolchain, and tells rustup.
build_targets() {
  local release commit targets=$*
  release=$("$RUSTC" -vV | sed -n 's/^release: //p')
  commit=$("$RUSTC" -vV | sed -n 's/^commit-hash: //p')
  debian || die "'rustup target add $targets' failed, and this is no Debian to take the source from"
  [ "$release" = "$SOURCE_OF" ] || die "rustc is $release; the source known here is of $SOURCE_OF"
  # The lists also say where the archive is.
  apt update || die "apt failed; see $CACHE/apt.log"
  command -v curl >/dev/null && command -v xz >/dev/null && command -v gpgv >/dev/null && command -v cc >/dev/null ||
    apt install --no-install-recommends curl xz-utils gpgv gcc libc6-dev || die "apt failed; see $CACHE/apt.log"
  say "compiling the standard library for $targets"
  local work
  work=$(mktemp -d "$CACHE/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  get_source "$work"
  (
    cd "$work/library"
    export RUSTC RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$work/target CARGO_PROFILE_DIST_DEBUG=0
    export RUSTFLAGS="-Zforce-unstable-if-unmarked --remap-path-prefix=$work/library=/rustc/$commit/library"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    for target; do
      if [ "$target" = $LINUX ]; then
        "$(dirname "$RUSTC")/cargo" build -q --locked --profile dist --manifest-path sysroot/Cargo.toml \
          --features panic-unwind,backtrace --target "$target"
      else
        "$(dirname "$RUSTC")/cargo" build -q --locked --profile dist -p alloc --features compiler-builtins-mem \
          --target "$target"
      fi
    done
  )
  for target; do install_target "$work" "$target"; done
}

# Puts a compiled library into the toolchain.
install_target() {
  local work=$1 target=$2
  local staged=$RUSTLIB/.$target
  rm -rf "$staged"
  mkdir -p "$staged/lib"
  cp "$work/target/$target/dist/deps/"*.rlib "$staged/lib/"
  # A target with an operating system has its library as a shared one too.
  cp "$work/target/$target/dist/deps/"*.so "$staged/lib/" 2>/dev/null || true
  mv "$staged" "$RUSTLIB/$target"
  # Without these lines cargo builds, but rustup would try to download the target.
  (cd "$RUSTLIB/$target/lib" && for file in *; do echo "file:lib/rustlib/$target/lib/$file"; done) \
    >"$RUSTLIB/manifest-rust-std-$target"
  [ ! -f "$RUSTLIB/components" ] || grep -qx "rust-std-$target" "$RUSTLIB/components" ||
    echo "rust-std-$target" >>"$RUSTLIB/components"
  [ ! -f "$RUSTLIB/multirust-config.toml" ] || grep -qx "target = \"$target\"" "$RUSTLIB/multirust-config.toml" ||
    printf '\n[[components]]\npkg = "rust-std"\ntarget = "%s"\nis_extension = false\n' $target \
      >>"$RUSTLIB/multirust-config.toml"
}

mkdir -p "$CACHE"
if [ "${1:-}" = linux ] && ! command -v aarch64-linux-gnu-gcc >/dev/null; then
  debian || die "install a linker for AArch64 Linux (aarch64-linux-gnu-gcc) with your package manager; then run this again"
  apt update && apt install --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross ||
    die "apt failed; see $CACHE/apt.log"
fi
[ -z "$(missing)" ] ||
  { command -v rustup >/dev/null && timeout 300 rustup target add $(missing) >"$CACHE/rustup.log" 2>&1; } || true
[ -z "$(missing)" ] || build_targets $(missing)
[ "$(qemu_major)" -ge 8 ] || install_qemu qemu-system-arm
[ "${1:-}" != linux ] || command -v qemu-aarch64 >/dev/null || install_qemu qemu-user
[ "$(qemu_major)" -ge 8 ] || die "QEMU is $(qemu_major) (0: none), 8 or later is needed; install qemu-system-arm by hand"
say "ready: $TARGETS of $("$RUSTC" -V | cut -d' ' -f1-2), $(qemu-system-arm --version | head -1)"
