//! The example `bridge`, between devices that know no names and Go's tools. The devices are made up: core's own
//! connections, with addresses of this test's executable, which is the ELF file.

mod device;
mod hostile;
mod names;
mod program;
mod reports;
mod serial;
mod traces;
mod wrong_file;
