//! What the example firmware has in common.
//!
//! A measuring device: it gets readings as text, takes them apart, smooths and packs them, and sends them on with
//! a checksum, compressed ([`readings`], [`compress`], [`work`]). Over port 7 it can be asked to ([`protocol`]).
//! Nothing here is about profiling, but [`linker`], which says where the build id and the stack are.

#![no_std]
#![deny(unsafe_code)]

pub mod compress;
#[cfg(all(target_arch = "arm", target_os = "none"))]
pub mod linker;
pub mod mailbox;
pub mod network;
pub mod protocol;
pub mod readings;
pub mod work;
