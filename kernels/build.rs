//! Refuses a feature that the target cannot have.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let dsp = std::env::var_os("CARGO_FEATURE_DSP").is_some();
    let target = std::env::var("TARGET").unwrap_or_default();
    let has_dsp = target.starts_with("thumbv7em") || target.starts_with("thumbv8m.main");
    assert!(!dsp || has_dsp, "kernels: feature `dsp` needs a thumbv7em or thumbv8m.main target, not {target}");
}
