//! Links with the machine's script.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Tvirt.ld");
    println!("cargo::rerun-if-changed=build.rs");
}
