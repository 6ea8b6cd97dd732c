//! Where QEMU's machine `virt` has memory, behind the device tree that QEMU puts there.

fn main() {
    println!("cargo:rustc-link-arg-bins=--image-base=0x40200000");
    println!("cargo:rerun-if-changed=build.rs");
}
