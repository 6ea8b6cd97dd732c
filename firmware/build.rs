//! Memory map of the board, and the files that the firmware carries.
use std::path::PathBuf;
use std::{env, fs};

/// Feature of a board and its memory.
const BOARDS: [(&str, &str); 1] =
    [("MPS2_AN386", "FLASH : ORIGIN = 0x00000000, LENGTH = 4M\n  RAM : ORIGIN = 0x20000000, LENGTH = 4M")];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (_, memory) = BOARDS
        .iter()
        .find(|(feature, _)| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some())
        .expect("firmware: select the feature of a board, such as `mps2-an386`");
    fs::write(out.join("memory.x"), format!("MEMORY\n{{\n  {memory}\n}}\n")).expect("OUT_DIR can be written");
    embed("STITCHNET_IMAGE", "an image (stitchnet compile)", &out.join("image.bin"));
    embed("STITCHNET_VECTORS", "its test vectors (stitchnet vectors)", &out.join("vectors.bin"));
    println!("cargo:rustc-link-search={}", out.display());
    // Here and not in rustflags: RUSTFLAGS of the environment would replace those.
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo:rerun-if-changed=build.rs");
}

/// Copies the file that `variable` names.
fn embed(variable: &str, what: &str, to: &std::path::Path) {
    println!("cargo:rerun-if-env-changed={variable}");
    let Some(from) = env::var_os(variable).map(PathBuf::from) else {
        panic!("firmware: set {variable} to the path of {what}, or build with `cargo xtask qemu`");
    };
    println!("cargo:rerun-if-changed={}", from.display());
    if let Err(error) = fs::copy(&from, to) {
        panic!("firmware: {variable} is {}, which cannot be read: {error}", from.display());
    }
}
