//! `arm-linux`: the tests of the kernels as programs of AArch64 Linux, in QEMU's user mode: every leaf against the reference,
//! and whether a program finds what its CPU has.

use std::process::Command;

use anyhow::{Context, Result, ensure};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// CPUs, and the instruction sets that a program must find there. QEMU's `max` without the scalable vectors, which take it
/// longer and are not used.
const CPUS: [(&str, &str); 3] =
    [("cortex-a53", "scalar"), ("cortex-a76", "scalar neon"), ("max,sve=off,sme=off", "scalar neon i8mm")];

/// Builds and runs the tests on every CPU.
pub fn check() -> Result<()> {
    for (cpu, sets) in CPUS {
        println!("{cpu}: {sets}");
        let mut cargo = Command::new("cargo");
        cargo.args([
            "test",
            "--quiet",
            "--release",
            "--package",
            "kernels",
            "--features",
            "reference",
            "--test",
            "kernels",
        ]);
        cargo.args(["--target", TARGET, "--", "--nocapture"]);
        // Linked whole: the emulator then needs no libraries of the target.
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "qemu-aarch64").env("QEMU_CPU", cpu);
        let output = cargo.output().context("cargo cannot be started")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{cpu}: {}\n{text}{}\nscripts/setup-arm.sh linux installs what this needs",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let found =
            text.lines().find_map(|line| line.strip_prefix("instruction sets: ")).context("no test said the sets")?;
        ensure!(found == sets, "{cpu}: the tests ran with {found}, not with {sets}");
    }
    println!("arm-linux: every kernel equals the reference on {} CPUs", CPUS.len());
    Ok(())
}
