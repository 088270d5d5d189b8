//! What the tests of picoprof share: judges that know nothing of picoprof's own code.
//!
//! * [`profile_proto`] and [`profile`]: profile.proto, decoded by prost, checked, and asked for stacks.
//! * [`dump`]: dumps of goroutines.
//! * [`go`]: the unmodified `go tool pprof` and `go tool trace`.
//! * [`http`]: a client that can also misbehave.
//! * [`model`]: a program that is profiled, made up, for the tests of the core.
//! * [`process`]: programs under test, and their end.
//! * [`subject`]: programs under test that do as they are told.
//! * [`tasks`]: tasks that do as they are told, for the model.

#![forbid(unsafe_code)]

pub mod dump;
pub mod go;
pub mod http;
pub mod model;
pub mod process;
pub mod profile;
pub mod profile_proto;
pub mod subject;
pub mod tasks;
