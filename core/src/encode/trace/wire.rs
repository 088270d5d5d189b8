//! Numbers of Go's trace format (`go 1.22 trace`): src/internal/trace/event/go122/event.go.

#![forbid(unsafe_code)]

/// What a file begins with.
pub(super) const HEADER: &[u8; 16] = b"go 1.22 trace\0\0\0";

/// Not an event: what a batch begins with, and the tables' batches their payload.
pub(super) const EVENT_BATCH: u8 = 1;
pub(super) const STACKS: u8 = 2;
pub(super) const STACK: u8 = 3;
pub(super) const STRINGS: u8 = 4;
pub(super) const STRING: u8 = 5;
pub(super) const CPU_SAMPLES: u8 = 6;
pub(super) const CPU_SAMPLE: u8 = 7;
pub(super) const FREQUENCY: u8 = 8;

pub(super) const PROCS_CHANGE: u8 = 9;
pub(super) const PROC_START: u8 = 10;
pub(super) const PROC_STOP: u8 = 11;
pub(super) const PROC_STATUS: u8 = 13;
pub(super) const GO_CREATE: u8 = 14;
pub(super) const GO_START: u8 = 16;
pub(super) const GO_DESTROY: u8 = 17;
pub(super) const GO_STOP: u8 = 19;
pub(super) const GO_BLOCK: u8 = 20;
pub(super) const GO_UNBLOCK: u8 = 21;
pub(super) const GO_STATUS: u8 = 25;
pub(super) const HEAP_ALLOC: u8 = 37;
pub(super) const GO_LABEL: u8 = 39;
pub(super) const USER_TASK_BEGIN: u8 = 40;
pub(super) const USER_TASK_END: u8 = 41;
pub(super) const USER_REGION_BEGIN: u8 = 42;
pub(super) const USER_REGION_END: u8 = 43;
pub(super) const USER_LOG: u8 = 44;

/// No thread, no processor.
pub(super) const NONE: u64 = u64::MAX;

/// A processor's status.
pub(super) const PROC_RUNNING: u64 = 1;
pub(super) const PROC_IDLE: u64 = 2;

/// The most frames that a reader takes.
pub(super) const MAX_FRAMES: usize = 128;
/// The longest string that a reader takes, in bytes.
pub(super) const MAX_STRING: usize = 1024;
