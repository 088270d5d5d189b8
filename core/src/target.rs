//! What a host supplies: everything that the endpoints need and this crate cannot know.

#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;

use crate::build_id::BuildId;
use crate::encode::Body;
use crate::profile::labels::LabelSetId;
use crate::profile::trace::TraceHost;
use crate::profile::{Kind, Profiles, Role, Wait};
use crate::stack::{LocationId, StackId};

/// The program that is profiled, as the endpoints see it: its tables, its clock, its code, its samplers.
///
/// `picoprof-std` has one for programs with an operating system. Firmware writes its own; most methods have
/// an answer that fits a machine without the thing in question.
pub trait Target {
    /// Memory for the time of one response; see [`scratch`](Self::scratch).
    type Scratch: AsRef<[u64]> + AsMut<[u64]> + fmt::Debug;

    /// What is known of the code, for the time of one response.
    type Symbols: Symbols + fmt::Debug;

    /// A profile as it goes out: gzip around it, or `B` itself.
    type Encoded<B: Body>: Body;

    /// The threads at a moment: `[Thread; 0]` where there are none beside the tasks.
    type Threads: AsRef<[Thread]> + fmt::Debug;

    /// Whether it answers with texts for people: `debug=1`, `debug=2`, and an index page that explains. False leaves out of
    /// a program what makes them, about a third of the flash memory that all of this takes. `debug=1` and `debug=2` are then
    /// refused with 501, as it is the program that lacks something and not the request; the index page is a list of links, with what
    /// is lost; errors are their statuses, but for those of what is in use, not on, or not available. All else is the same: `go
    /// tool pprof` asks for no texts, and shows no more of an error than its status then.
    const TEXTS: bool = true;

    /// Whether [`function_name`](Self::function_name) knows any. False leaves out of a program what reads the addresses that
    /// `symbol` is asked for: the answer is the same without.
    const FUNCTION_NAMES: bool = true;

    /// The tables: always the same ones. Where flash memory is small, answer a `static`: what copies the views one by one takes as much in each
    /// place that asks, and of a `static` the compiler knows what there is.
    fn profiles(&self) -> Profiles<'_>;

    /// A memory of `words` zeros, or `None` if there isn't so much. Without a heap, a
    /// [`ScratchPool`](crate::scratch::ScratchPool) has it.
    ///
    /// Without it a profile carries all locations of the table instead of its own only, text is not sorted,
    /// nothing is left out of `block` and `mutex`, `goroutine` has each thread and task by itself, and a difference
    /// (`seconds=N`) is refused.
    fn scratch(&self, words: usize) -> Option<Self::Scratch>;

    /// What is known of the code at these locations. It may take its time.
    fn symbols(&self, locations: &mut dyn Iterator<Item = (LocationId, usize)>) -> Self::Symbols;

    /// Wraps a profile for sending.
    fn encode<B: Body>(&self, profile: B) -> Self::Encoded<B>;

    /// Writes the name of the function that contains `pc`, as mangled by the compiler, and answers true; false
    /// if it is not known. For `symbol`.
    fn function_name(&self, pc: usize, name: &mut dyn fmt::Write) -> Result<bool, fmt::Error> {
        let _ = (pc, name);
        Ok(false)
    }

    /// Is called before [`function_name`](Self::function_name) is for each of these, as looking many up together
    /// may cost little more than one.
    fn prepare_function_names(&self, pcs: &[usize]) {
        let _ = pcs;
    }

    /// Nanoseconds since 1970, for `Profile.time_nanos`; 0 if there's no such clock.
    fn unix_nanos(&self) -> u64 {
        0
    }

    /// The `Date` header's value: RFC 9110 5.6.7, always 29 bytes. `None` sends no such header.
    fn date(&self) -> Option<[u8; 29]> {
        None
    }

    /// The command line: arguments separated by NUL, for `cmdline`.
    fn command_line(&self) -> &[u8] {
        b""
    }

    /// The threads as they are now, the calling one first. For `goroutine`.
    fn threads(&self) -> Self::Threads;

    /// How many threads there are, for the index page: as cheap as can be.
    fn thread_count(&self) -> usize {
        self.threads().as_ref().len()
    }

    /// What a function says of a stack that it is on, by its name for people (as in
    /// [`Symbols`], or [`Function::name`]'s string). For `goroutine`, `block` and `mutex`.
    fn role_of(&self, function: &str) -> Role {
        let _ = function;
        Role::Program
    }

    /// What `trace` needs: `None` if nothing is recorded for it, and then there's no such endpoint.
    fn trace(&self) -> Option<&dyn TraceHost> {
        None
    }

    /// Starts sampling CPU time, `hz` times a second of it (0: as it likes best); answers the period in
    /// nanoseconds. Samples go to [`Profiles::cpu`].
    ///
    /// # Errors
    ///
    /// [`StartError::AlreadyRunning`] if it is running, [`StartError::Unavailable`] if it can't be done.
    fn start_cpu(&self, hz: u32) -> Result<u64, StartError>;

    /// Ends what `start_cpu` began.
    fn stop_cpu(&self);

    /// Gives free memory back, before a `heap?gc=1`.
    fn collect(&self) {}

    /// Whether requests with this `Host` header are served. A page of a foreign web site that rebinds its
    /// name to this machine's address (DNS rebinding) gives itself away by that name.
    fn is_host_allowed(&self, host: &[u8]) -> bool {
        let _ = host;
        true
    }

    /// What the reader of a profile should be told, such as why it is empty; "" if nothing. It is a comment in the
    /// profile, and on the [long](Self::TEXTS) index page, so it should have no characters that mean something in HTML.
    fn note(&self, kind: Kind) -> &'static str {
        let _ = kind;
        ""
    }

    /// A regular expression for `Profile.drop_frames`: functions that fully match it, and what they call, are
    /// the profiler's or the allocator's own and of no interest in profiles of `kind`. "" if there are none.
    fn drop_frames(&self, kind: Kind) -> &'static str {
        let _ = kind;
        ""
    }

    /// Writes lines of HTML about the sampler to the [long](Self::TEXTS) index page: the unwinder in use, what was lost.
    ///
    /// # Errors
    ///
    /// Those of `page`.
    fn describe(&self, page: &mut dyn fmt::Write) -> fmt::Result {
        let _ = page;
        Ok(())
    }
}

/// A thread at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Thread {
    /// What the system calls it.
    pub id: u64,
    /// The name, in UTF-8, and zeros behind it.
    pub name: [u8; 16],
    /// Where it is; [`StackId::EMPTY`] if it couldn't tell.
    pub stack: StackId,
    /// Its labels.
    pub labels: LabelSetId,
    /// What it waits for, as far as the system knows; its stack may say more.
    pub wait: Wait,
    /// How long it has waited; zero if that's not known.
    pub waiting: Duration,
}

/// Why CPU sampling did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum StartError {
    /// Somebody else's profile is being taken.
    AlreadyRunning,
    /// The machine or its operating system has no means for it.
    Unavailable,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyRunning => "cpu profiling already in use",
            Self::Unavailable => "cpu profiling is not available here",
        })
    }
}

impl core::error::Error for StartError {}

/// What is known of a program's code: a view for one profile, with functions and strings numbered from 0.
pub trait Symbols {
    /// Whether there can be names: false leaves out of a program what tells by them what a stack waits for, and so
    /// whether `block` and `mutex` show it.
    const HAVE_NAMES: bool = true;

    /// The mapping with this number; the main program is the first.
    fn mapping(&self, index: usize) -> Option<Mapping>;

    /// The number of the mapping that contains `pc`.
    fn mapping_of(&self, pc: usize) -> Option<usize>;

    /// The lines of a location: the function that is inlined innermost first, and then who it is inlined to.
    /// None for a location that [`Target::symbols`] was not told of: it may be new since.
    fn lines(&self, location: LocationId) -> &[Line];

    /// The function with this number.
    fn function(&self, index: u32) -> Option<Function>;

    /// The string with this number.
    fn string(&self, index: u32) -> Option<&str>;
}

/// profile.proto's `Mapping`; strings are numbers for [`Symbols::string`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mapping {
    /// The first address.
    pub start: u64,
    /// The first address beyond.
    pub limit: u64,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// The file.
    pub filename: u32,
    /// Its GNU build id in hexadecimal.
    pub build_id: u32,
    /// Whether the functions, files, lines and inlined frames of its locations are in the profile.
    pub is_symbolized: bool,
}

/// profile.proto's `Line`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Line {
    /// A number for [`Symbols::function`].
    pub function: u32,
    /// The line in the function's file; 0 if it is not known.
    pub line: u32,
}

/// profile.proto's `Function`; strings are numbers for [`Symbols::string`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Function {
    /// For people.
    pub name: u32,
    /// As mangled by the compiler.
    pub system_name: u32,
    /// The source file.
    pub filename: u32,
    /// The line it begins at; 0 if it is not known.
    pub start_line: u32,
}

/// The symbols of a program that knows of no names: one mapping for all addresses.
///
/// Start 0 and limit 2^64-1 tell `go tool pprof` that addresses are those of the linked file.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoSymbols {
    /// The name of the linked file. In brackets it keeps `go tool pprof` from looking for it.
    pub file: &'static str,
    /// Its GNU build id, by which readers tell whether they have the same file.
    pub build_id: BuildId,
}

impl Symbols for NoSymbols {
    const HAVE_NAMES: bool = false;

    fn mapping(&self, index: usize) -> Option<Mapping> {
        (index == 0).then_some(Mapping {
            start: 0,
            limit: u64::MAX,
            offset: 0,
            filename: 0,
            build_id: 1,
            is_symbolized: false,
        })
    }

    fn mapping_of(&self, _pc: usize) -> Option<usize> {
        Some(0)
    }

    fn lines(&self, _location: LocationId) -> &[Line] {
        &[]
    }

    fn function(&self, _index: u32) -> Option<Function> {
        None
    }

    fn string(&self, index: u32) -> Option<&str> {
        match index {
            0 => Some(self.file),
            1 => Some(self.build_id.as_str()),
            _ => None,
        }
    }
}
