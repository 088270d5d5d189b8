//! Paths: what Go's `ServeMux` and the handlers of `net/http/pprof` make of them.

#![forbid(unsafe_code)]

use heapless::String;

use super::request::percent_decode;
use crate::profile::Kind;

/// Where the endpoints are.
pub(super) const PREFIX: &str = "/debug/pprof/";

/// The longest path that is looked at; the longest that means something has 25 bytes.
const MAX_PATH: usize = 128;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Index,
    Profile(Kind),
    CommandLine,
    Symbol,
    /// The clean form of the path.
    Redirect(String<MAX_PATH>),
    /// Below the prefix, and no profile.
    Unknown,
    /// Elsewhere.
    NotFound,
}

impl Route {
    /// The route of a path as it was sent, where `is_kept` tells which profiles there are.
    pub(super) fn of(path: &str, is_kept: impl Fn(Kind) -> bool) -> Self {
        let decoded = percent_decode::<MAX_PATH>(path, false)
            .and_then(|decoded| String::<MAX_PATH>::from_utf8(decoded).ok());
        let Some(path) = decoded else {
            return if path.starts_with(PREFIX) {
                Self::Unknown
            } else {
                Self::NotFound
            };
        };
        let Some(clean) = clean(&path) else {
            return Self::NotFound;
        };
        if clean != path {
            return Self::redirect(clean);
        }
        match path.strip_prefix(PREFIX) {
            Some("") => Self::Index,
            Some("cmdline") => Self::CommandLine,
            Some("symbol") => Self::Symbol,
            Some(name) => {
                let mut kinds = Kind::ALL.into_iter();
                let kind = kinds.find(|&kind| kind.name() == name && is_kept(kind));
                kind.map_or(Self::Unknown, Self::Profile)
            }
            None if Some(path.as_str()) == PREFIX.strip_suffix('/') => {
                Self::redirect(String::try_from(PREFIX).unwrap_or_default())
            }
            None => Self::NotFound,
        }
    }

    /// It goes into a header, so it must be harmless there.
    fn redirect(path: String<MAX_PATH>) -> Self {
        let is_harmless = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        if path.bytes().all(is_harmless) {
            Self::Redirect(path)
        } else {
            Self::NotFound
        }
    }
}

/// The path without empty, `.` and `..` elements, as Go's `cleanPath`: it keeps a slash at the end.
fn clean(path: &str) -> Option<String<MAX_PATH>> {
    let mut clean = String::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => {
                let parent = clean.rfind('/').unwrap_or(0);
                clean.truncate(parent);
            }
            element => {
                clean.push('/').ok()?;
                clean.push_str(element).ok()?;
            }
        }
    }
    if clean.is_empty() || path.ends_with('/') {
        clean.push('/').ok()?;
    }
    Some(clean)
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    fn route(path: &str) -> Route {
        Route::of(path, |kind| kind != Kind::ThreadCreate)
    }

    fn redirect(to: &str) -> Route {
        Route::Redirect(String::try_from(to).unwrap())
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
        assert_eq!(route("/debug/pprof/heap"), Route::Profile(Kind::Heap));
        assert_eq!(route("/debug/pprof/he%61p"), Route::Profile(Kind::Heap));
        assert_eq!(route("/debug/pprof/profile"), Route::Profile(Kind::Cpu));
        assert_eq!(route("/debug/pprof/cmdline"), Route::CommandLine);
        assert_eq!(route("/debug/pprof/symbol"), Route::Symbol);
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
                    Route::Redirect(to) => path = to.as_str().into(),
                    _ => return Ok(()),
                }
            }
            prop_assert!(false, "{path}");
        }
    }
}
