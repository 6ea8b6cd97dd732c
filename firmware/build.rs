//! Memory map of the board, and the files that the firmware carries.
use std::path::{Path, PathBuf};
use std::{env, fs};

use plan::{ConfigId, Image};

/// Feature of a board and its memory.
const BOARDS: [(&str, &str); 4] = [
    ("MPS2_AN386", "FLASH : ORIGIN = 0x00000000, LENGTH = 4M\n  RAM : ORIGIN = 0x20000000, LENGTH = 4M"),
    // Tightly coupled memories, and what is outside: constants, the image among them.
    (
        "MPS3_AN547",
        "FLASH : ORIGIN = 0x00000000, LENGTH = 512K\n  RAM : ORIGIN = 0x20000000, LENGTH = 512K\n  \
         OUTSIDE : ORIGIN = 0x70000000, LENGTH = 256M",
    ),
    ("NRF52840", "FLASH : ORIGIN = 0x00000000, LENGTH = 1M\n  RAM : ORIGIN = 0x20000000, LENGTH = 256K"),
    // The AXI memory: what is there in one piece.
    ("STM32H743", "FLASH : ORIGIN = 0x08000000, LENGTH = 2M\n  RAM : ORIGIN = 0x24000000, LENGTH = 512K"),
];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (_, memory) = BOARDS
        .iter()
        .find(|(feature, _)| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some())
        .expect("firmware: select the feature of a board, such as `mps2-an386`");
    let mut script = format!("MEMORY\n{{\n  {memory}\n}}\n");
    if memory.contains("OUTSIDE") {
        // Before `.rodata` of cortex-m-rt: the first that names a section takes it.
        script +=
            "SECTIONS\n{\n  .outside : ALIGN(16) { *(.rodata .rodata.*); } > OUTSIDE\n}\nINSERT BEFORE .rodata;\n";
    }
    fs::write(out.join("memory.x"), script).expect("OUT_DIR can be written");
    if env::var_os("CARGO_FEATURE_REFERENCE").is_none() {
        write_carried(&out);
    }
    println!("cargo:rustc-link-search={}", out.display());
    // Here and not in rustflags: RUSTFLAGS of the environment would replace those.
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo:rerun-if-changed=build.rs");
}

/// Image, its sizes, and vectors.
fn write_carried(out: &Path) {
    let Some(image) = carried("STITCHNET_IMAGE") else {
        panic!(
            "firmware: set STITCHNET_IMAGE to the path of an image (stitchnet compile), or build with `cargo xtask`"
        );
    };
    fs::write(out.join("image.bin"), &image).expect("OUT_DIR can be written");
    fs::write(out.join("sizes.rs"), sizes(&image)).expect("OUT_DIR can be written");
    // `conformance` needs vectors; `detect` takes those that there are.
    fs::write(out.join("vectors.bin"), carried("STITCHNET_VECTORS").unwrap_or_default())
        .expect("OUT_DIR can be written");
}

/// The file that `variable` names, if it is set.
fn carried(variable: &str) -> Option<Vec<u8>> {
    println!("cargo:rerun-if-env-changed={variable}");
    let from = env::var_os(variable).map(PathBuf::from)?;
    println!("cargo:rerun-if-changed={}", from.display());
    Some(
        fs::read(Path::new(&from)).unwrap_or_else(|error| {
            panic!("firmware: {variable} is {}, which cannot be read: {error}", from.display())
        }),
    )
}

/// Memory that the image asks for, as constants.
fn sizes(bytes: &[u8]) -> String {
    let image = Image::parse(bytes).unwrap_or_else(|error| panic!("firmware: STITCHNET_IMAGE: {error}"));
    if env::var_os("CARGO_FEATURE_TRANSFORMERS").is_none() && image.first_of_transformer().is_some() {
        panic!("firmware: STITCHNET_IMAGE has operations of a transformer: build with the feature `transformers`");
    }
    if env::var_os("CARGO_FEATURE_DETECTOR").is_none() && image.is_detector() {
        panic!("firmware: STITCHNET_IMAGE is a detector: build with the feature `detector`");
    }
    let configs = || (0..image.configs()).map(|number| image.config(ConfigId(number)));
    let entries: usize = configs().map(|config| usize::from(config.segments)).sum();
    format!(
        "/// Arena of the image, bytes.\npub const ARENA: usize = {};\n/// Segments of the image.\npub const SEGMENTS: usize \
         = {};\n/// Configs of the image.\npub const CONFIGS: usize = {};\n/// Segments of all its configs.\npub const AHEAD: \
         usize = {entries};\n",
        image.meta().arena_bytes.max(16),
        image.segments(),
        image.configs(),
    )
}
