//! Refuses a feature that the target cannot have.

/// Cores with integer vectors.
const VECTORS: [&str; 3] = ["target-cpu=cortex-m52", "target-cpu=cortex-m55", "target-cpu=cortex-m85"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let has = |name: &str| std::env::var_os(name).is_some();
    let target = std::env::var("TARGET").unwrap_or_default();
    let has_dsp = target.starts_with("thumbv7em") || target.starts_with("thumbv8m.main");
    assert!(
        !has("CARGO_FEATURE_DSP") || has_dsp,
        "kernels: feature `dsp` needs a thumbv7em or thumbv8m.main target, not {target}"
    );
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let has_mve = target.starts_with("thumbv8m.main") && VECTORS.iter().any(|core| flags.contains(core));
    assert!(
        !has("CARGO_FEATURE_MVE") || has_mve,
        "kernels: feature `mve` needs target thumbv8m.main-none-eabihf and one of -C {}, not {target} with `{}`",
        VECTORS.join(", "),
        flags.replace('\u{1f}', " ")
    );
}
