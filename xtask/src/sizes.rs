//! `sizes`: what each firmware may take of its board, declared here and enforced.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, SectionFlags, elf};

use crate::call;

/// One binary on one board. Bytes; image, arena and policy memory are the image's affair and count apart.
struct Limit {
    binary: &'static str,
    board: &'static str,
    /// Profile of cargo, and features besides the board's.
    profile: &'static str,
    features: &'static [&'static str],
    /// Section `.text`.
    text: u64,
    /// Code, constants and initial values, besides the image and its vectors.
    flash: u64,
    /// Static memory besides arenas and the policy's.
    ram: u64,
    /// Stack that must be left over; the firmware checks that it used no more (`program::STACK`).
    stack: u64,
    /// Flash and memory of the board.
    board_flash: u64,
    board_ram: u64,
}

const KIB: u64 = 1024;

const fn limit(binary: &'static str, board: &'static str, text: u64, flash: u64, ram: u64) -> Limit {
    let (board_flash, board_ram) = match board.as_bytes() {
        b"mps2-an386" => (4096, 4096),
        b"stm32h743" => (2048, 512),
        _ => (1024, 256),
    };
    Limit {
        binary,
        board,
        profile: "release",
        features: &["transformers"],
        text: text * KIB,
        flash: flash * KIB,
        ram: ram * KIB,
        stack: 16 * KIB,
        board_flash: board_flash * KIB,
        board_ram: board_ram * KIB,
    }
}

const LIMITS: [Limit; 8] = [
    limit("conformance", "mps2-an386", 118, 124, 2),
    limit("latency", "mps2-an386", 94, 112, 16),
    limit("sense", "mps2-an386", 96, 112, 2),
    // As small as it gets: for images of convolutional networks.
    Limit { profile: "small", features: &[], ..limit("sense", "mps2-an386", 64, 74, 2) },
    limit("latency", "stm32h743", 94, 112, 20),
    limit("sense", "stm32h743", 105, 114, 4),
    limit("latency", "nrf52840", 94, 112, 20),
    limit("sense", "nrf52840", 99, 106, 4),
];

/// Builds every binary for every board with an image, and compares.
pub fn check(image: &Path) -> Result<()> {
    let carried = fs::metadata(image).with_context(|| format!("{}", image.display()))?.len();
    println!(
        "{:<12} {:<11} {:<8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11}",
        "binary", "board", "profile", ".text", "limit", "flash", "limit", "RAM", "limit", "left: stack"
    );
    let mut over = vec![];
    for limit in &LIMITS {
        let elf = build(limit, image)?;
        let Measured { text, flash, ram, lent } = measure(&elf)?;
        let (own_flash, own_ram) = (flash.saturating_sub(carried), ram.saturating_sub(lent));
        let left = limit.board_ram.saturating_sub(ram);
        println!(
            "{:<12} {:<11} {:<8} {text:>9} {:>9} {own_flash:>9} {:>9} {own_ram:>9} {:>9} {left:>11}",
            limit.binary, limit.board, limit.profile, limit.text, limit.flash, limit.ram
        );
        let name = format!("{} on {}, {}", limit.binary, limit.board, limit.profile);
        for (what, found, most) in [
            (".text", text, limit.text),
            ("flash besides the image", own_flash, limit.flash),
            ("flash with the image", flash, limit.board_flash),
            ("static memory besides arena and policy", own_ram, limit.ram),
        ] {
            if found > most {
                over.push(format!("{name}: {what}: {found} bytes, at most {most}"));
            }
        }
        if left < limit.stack {
            over.push(format!("{name}: {left} bytes are left for the stack, {} are declared", limit.stack));
        }
    }
    ensure!(over.is_empty(), "over the limit:\n  {}", over.join("\n  "));
    Ok(())
}

fn build(limit: &Limit, image: &Path) -> Result<std::path::PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--profile", limit.profile, "--locked", "--no-default-features"]);
    command.args(["--features", limit.board, "--bin", limit.binary, "--target", crate::emulator::TARGET]);
    limit.features.iter().for_each(|feature| {
        command.args(["--features", feature]);
    });
    command.current_dir("firmware").env("STITCHNET_IMAGE", image).env_remove("STITCHNET_VECTORS");
    call(command)?;
    Ok(crate::emulator::binary(crate::emulator::TARGET, limit.profile, limit.binary))
}

/// Bytes of a binary.
#[derive(Default)]
struct Measured {
    text: u64,
    flash: u64,
    /// Static memory.
    ram: u64,
    /// Of it arenas, policy memory and tables of the image's size.
    lent: u64,
}

fn measure(elf: &Path) -> Result<Measured> {
    let bytes = fs::read(elf).with_context(|| format!("{}", elf.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{}", elf.display()))?;
    let mut measured = Measured { lent: lent(&file), ..Measured::default() };
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(elf::SHF_ALLOC) == 0 {
            continue;
        }
        if section.name() == Ok(".text") {
            measured.text = section.size();
        }
        let stored = section.file_range().is_some_and(|(_, len)| len > 0);
        if stored {
            measured.flash += section.size();
        }
        if sh_flags & u64::from(elf::SHF_WRITE) != 0 {
            measured.ram += section.size();
        }
    }
    Ok(measured)
}

/// Statics whose size is the image's: by their names in the symbol table.
fn lent(file: &object::File<'_>) -> u64 {
    use object::ObjectSymbol;
    const NAMES: [&str; 6] = ["ARENA_BYTES", "FIRST", "SECOND", "TABLES", "carried", "VECTORS"];
    let writable = |symbol: &object::Symbol<'_, '_>| {
        symbol.section_index().and_then(|index| file.section_by_index(index).ok()).is_some_and(|section| {
            matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(elf::SHF_WRITE) != 0)
        })
    };
    let named = |symbol: &object::Symbol<'_, '_>| {
        symbol.name().is_ok_and(|name| NAMES.iter().any(|known| name.contains(known)))
    };
    file.symbols().filter(|symbol| named(symbol) && writable(symbol)).map(|symbol| symbol.size()).sum()
}
