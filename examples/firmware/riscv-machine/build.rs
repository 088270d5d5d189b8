//! Lets the linker find `virt.ld`.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rustc-link-search={here}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=virt.ld");
}
