//! The smoltcp transport of picoprof: `/debug/pprof` from firmware and unikernels.
//!
//! Nothing is here yet but the name. The endpoints themselves are in the `picoprof` crate,
//! which is no_std and needs no heap; this crate will carry them over the sockets of a
//! smoltcp `SocketSet` that the caller owns.

#![no_std]
#![forbid(unsafe_code)]
