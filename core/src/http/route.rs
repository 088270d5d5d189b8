//! Paths: what Go's `ServeMux` and the handlers of `net/http/pprof` make of them.

#![forbid(unsafe_code)]

use heapless::Vec;

use super::entry::Entry;
use super::request::percent_decode;

/// Where the endpoints are.
pub(super) const PREFIX: &str = "/debug/pprof/";

/// The longest path that is looked at; the longest that means something has 25 bytes.
const MAX_PATH: usize = 128;

/// A path.
pub(super) type Path = Vec<u8, MAX_PATH>;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Index,
    Entry(Entry),
    /// The clean form of the path.
    Redirect(&'p [u8]),
    /// Below the prefix, and no profile.
    Unknown,
    /// Elsewhere.
    NotFound,
}

impl<'p> Route<'p> {
    /// The route of a path as it was sent, to one of `entries` if it is there. `clean` is room for the clean form.
    pub(super) fn of(
        path: &[u8],
        clean: &'p mut Path,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Self {
        let mut decoded = Path::new();
        let Some(path) = percent_decode(path, false, &mut decoded) else {
            return if path.starts_with(PREFIX.as_bytes()) {
                Self::Unknown
            } else {
                Self::NotFound
            };
        };
        let Some(()) = write_clean(path, clean) else {
            return Self::NotFound;
        };
        if clean != path {
            return Self::redirect(clean);
        }
        match path.strip_prefix(PREFIX.as_bytes()) {
            Some(b"") => Self::Index,
            Some(name) => {
                let mut entries = entries.into_iter();
                let entry = entries.find(|entry| entry.name().as_bytes() == name);
                entry.map_or(Self::Unknown, Self::Entry)
            }
            None if PREFIX.as_bytes().strip_suffix(b"/") == Some(path) => {
                Self::Redirect(PREFIX.as_bytes())
            }
            None => Self::NotFound,
        }
    }

    /// It goes into a header, so it must be harmless there.
    fn redirect(path: &'p [u8]) -> Self {
        let is_harmless =
            |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~');
        if path.iter().all(is_harmless) {
            Self::Redirect(path)
        } else {
            Self::NotFound
        }
    }
}

/// Writes the path without empty, `.` and `..` elements, as Go's `cleanPath`: it keeps a slash at the end.
fn write_clean(path: &[u8], clean: &mut Path) -> Option<()> {
    for element in path.split(|&byte| byte == b'/') {
        match element {
            b"" | b"." => {}
            b".." => {
                let parent = clean.iter().rposition(|&byte| byte == b'/');
                clean.truncate(parent.unwrap_or(0));
            }
            element => {
                clean.push(b'/').ok()?;
                clean.extend_from_slice(element).ok()?;
            }
        }
    }
    if clean.is_empty() || path.ends_with(b"/") {
        clean.push(b'/').ok()?;
    }
    Some(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;
    use crate::profile::Kind;

    /// The route's room stays for the time of the tests.
    fn route(path: &str) -> Route<'static> {
        let clean = std::boxed::Box::leak(std::boxed::Box::new(Path::new()));
        let entries = Entry::ALL.into_iter();
        let entries = entries.filter(|&entry| entry != Entry::Profile(Kind::ThreadCreate));
        Route::of(path.as_bytes(), clean, entries)
    }

    fn redirect(to: &str) -> Route<'_> {
        Route::Redirect(to.as_bytes())
    }

    #[test]
    fn as_in_the_reference() {
        assert_eq!(route("/debug/pprof/"), Route::Index);
        assert_eq!(route("/debug/pprof"), redirect("/debug/pprof/"));
        assert_eq!(route("/debug//pprof/"), redirect("/debug/pprof/"));
        assert_eq!(
            route("/debug/pprof/../pprof/heap"),
            redirect("/debug/pprof/heap")
        );
        assert_eq!(
            route("/debug/pprof/heap"),
            Route::Entry(Entry::Profile(Kind::Heap))
        );
        assert_eq!(
            route("/debug/pprof/he%61p"),
            Route::Entry(Entry::Profile(Kind::Heap))
        );
        assert_eq!(
            route("/debug/pprof/profile"),
            Route::Entry(Entry::Profile(Kind::Cpu))
        );
        assert_eq!(
            route("/debug/pprof/cmdline"),
            Route::Entry(Entry::CommandLine)
        );
        assert_eq!(route("/debug/pprof/symbol"), Route::Entry(Entry::Symbol));
        assert_eq!(route("/debug/pprof/trace"), Route::Entry(Entry::Trace));
        for unknown in ["heap/", "Heap", "nosuch", "cmdline/", "threadcreate", "%"] {
            let path = std::format!("/debug/pprof/{unknown}");
            assert_eq!(route(&path), Route::Unknown, "{path}");
        }
        for elsewhere in ["/", "/debug/other", "", "*", "/debug/pproff"] {
            let answer = route(elsewhere);
            assert!(
                matches!(answer, Route::NotFound | Route::Redirect(_)),
                "{elsewhere}: {answer:?}"
            );
        }
    }

    #[test]
    fn no_header_can_be_smuggled_into_a_redirect() {
        assert_eq!(route("/x//%0d%0aSet-Cookie:a"), Route::NotFound);
    }

    proptest! {
        #[test]
        fn no_path_panics_and_redirects_settle(path in "[/.a-c%0-9]{0,40}") {
            let mut path = path;
            for _ in 0..2 {
                match route(&path) {
                    Route::Redirect(to) => path = std::string::String::from_utf8(to.to_vec()).unwrap(),
                    _ => return Ok(()),
                }
            }
            prop_assert!(false, "{path}");
        }
    }
}
