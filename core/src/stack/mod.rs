//! Call stacks: reading them out of memory ([`capture`]) and keeping each once ([`StackTable`]).

pub mod capture;
mod counter;
pub(crate) mod set;
mod table;

pub use counter::Counter;
pub use table::{Frame, Frames, LocationId, Marker, Memo, StackId, StackTable, Stacks};
