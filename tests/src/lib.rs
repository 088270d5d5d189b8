//! What the tests of picoprof share: judges that know nothing of picoprof's own code.
//!
//! * [`profile_proto`] and [`profile`]: profile.proto, decoded by prost, checked, and asked for stacks.
//! * [`bridge`]: the example of that name at work.
//! * [`dump`]: dumps of goroutines.
//! * [`elf`]: the names in a program's file, as GNU binutils read them.
//! * [`go`]: the unmodified `go tool pprof` and `go tool trace`.
//! * [`guest`]: machines in QEMU, with the firmware of examples/firmware.
//! * [`hostile`]: requests that are wrong, and what each is answered.
//! * [`http`]: a client that can also misbehave.
//! * [`model`]: a program that is profiled, made up, for the tests of the core.
//! * [`process`]: programs under test, and their end.
//! * [`subject`]: programs under test that do as they are told.
//! * [`tasks`]: tasks that do as they are told, for the model.
//! * [`trace`]: execution traces, read and checked.
//! * [`viewer`]: the pages of `go tool trace`.

#![forbid(unsafe_code)]

pub mod bridge;
pub mod dump;
pub mod elf;
pub mod go;
pub mod guest;
pub mod hostile;
pub mod http;
pub mod model;
pub mod process;
pub mod profile;
pub mod profile_proto;
pub mod subject;
pub mod tasks;
pub mod trace;
pub mod viewer;
