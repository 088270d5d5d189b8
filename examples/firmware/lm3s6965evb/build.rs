//! Tells the linker where the stack goes, and to keep the build id.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rustc-link-search={here}");
    println!("cargo::rustc-link-arg-bins=-Tbuild-id.x");
    println!("cargo::rustc-link-arg-bins=-Tstack.x");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=stack.x");
}
