//! Paths for the bare names of inlined Rust functions.
//!
//! With `debug = "line-tables-only"` an inlined function is known as `new` or `next<T>`: the
//! compiler leaves out linkage names and enclosing modules. Profiles merge functions by name,
//! so the crate and the module are put in front, as the source file tells them. A unit
//! is named `src/lib.rs/@/the_crate.5d41402abc4b2a76-cgu.3`, which gives the crate of each source
//! directory; below that, Rust's modules follow the files (Rust reference, "Modules"). A type
//! that the function belongs to stays unknown.

use std::collections::HashMap;

/// The crates that took part in a program.
#[derive(Debug, Default)]
pub(super) struct Modules {
    /// Source directory to crate.
    directories: HashMap<String, Root>,
    /// Root file to crate: a binary's `main.rs` lies next to its library's `lib.rs`.
    files: HashMap<String, String>,
}

#[derive(Debug)]
struct Root {
    name: String,
    library: bool,
}

impl Modules {
    /// Learns from the name of a unit, and the directory that the compiler ran in.
    pub(super) fn add_unit(&mut self, unit: &str, directory: &str) {
        let Some((file, rest)) = unit.split_once("/@/") else {
            return;
        };
        let name = rest.split('.').next().unwrap_or(rest);
        let file = if file.starts_with('/') {
            String::from(file)
        } else {
            format!("{directory}/{file}")
        };
        if self.files.contains_key(&file) {
            return;
        }
        let Some((directory, base)) = file.rsplit_once('/') else {
            return;
        };
        let library = base == "lib.rs";
        let known = self.directories.get(directory);
        if known.is_none_or(|root| library && !root.library) {
            let name = String::from(name);
            self.directories
                .insert(String::from(directory), Root { name, library });
        }
        self.files.insert(file, String::from(name));
    }

    /// The module that the source file holds, with its crate; `None` when it cannot be told.
    pub(super) fn of_file(&self, file: &str) -> Option<String> {
        if let Some(name) = self.files.get(file) {
            return Some(name.clone());
        }
        let mut directory = file;
        while let Some((parent, _)) = directory.rsplit_once('/') {
            if let Some(root) = self.directories.get(parent) {
                return Some(module(&root.name, file.get(parent.len() + 1..)?));
            }
            directory = parent;
        }
        let (name, rest) = by_layout(file)?;
        Some(module(&name, rest))
    }
}

/// The crate by where its sources are: `library/core/src/`, `serde-1.0.228/src/`.
fn by_layout(file: &str) -> Option<(String, &str)> {
    let (before, rest) = file.rsplit_once("/src/")?;
    let (parent, directory) = before.rsplit_once('/')?;
    if parent.ends_with("/library") {
        return Some((String::from(directory), rest));
    }
    let version = directory
        .match_indices('-')
        .find(|(at, _)| {
            let version = directory.get(at + 1..).unwrap_or_default();
            version.starts_with(|first: char| first.is_ascii_digit()) && version.contains('.')
        })
        .map(|(at, _)| at)?;
    Some((directory.get(..version)?.replace('-', "_"), rest))
}

/// `a/b/mod.rs` in a crate: `name::a::b`.
fn module(name: &str, file: &str) -> String {
    let mut path = String::from(name);
    let Some(file) = file.strip_suffix(".rs") else {
        return path;
    };
    let identifier = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
    };
    if !file.split('/').all(identifier) || matches!(file, "lib" | "main") {
        return path;
    }
    let file = file.strip_suffix("/mod").unwrap_or(file);
    for part in file.split('/') {
        path.push_str("::");
        path.push_str(part);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_give_crates_and_files_give_modules() {
        let mut modules = Modules::default();
        modules.add_unit("src/main.rs/@/server.0123-cgu.0", "/home/me/my-server");
        modules.add_unit("src/lib.rs/@/my_server.0123-cgu.1", "/home/me/my-server");
        modules.add_unit("library/core/src/lib.rs/@/core.9-cgu.0", "/rustc/abc");
        modules.add_unit("/reg/rustls-webpki-0.1.0/src/lib.rs/@/webpki.9-cgu.0", "/x");
        modules.add_unit("not a Rust unit", "/x");
        for (file, module) in [
            ("/home/me/my-server/src/main.rs", Some("server")),
            ("/home/me/my-server/src/lib.rs", Some("my_server")),
            ("/home/me/my-server/src/net/mod.rs", Some("my_server::net")),
            (
                "/home/me/my-server/src/net/tcp.rs",
                Some("my_server::net::tcp"),
            ),
            ("/home/me/my-server/src/odd-name/x.rs", Some("my_server")),
            ("/rustc/abc/library/core/src/ptr/mod.rs", Some("core::ptr")),
            ("/rustc/abc/library/std/src/io/mod.rs", Some("std::io")),
            ("/reg/rustls-webpki-0.1.0/src/der.rs", Some("webpki::der")),
            ("/reg/scope-guard-1.2.0/src/lib.rs", Some("scope_guard")),
            ("/reg/scope-guard-1.2.0+a/src/a.rs", Some("scope_guard::a")),
            ("/somewhere/else.rs", None),
            ("", None),
        ] {
            assert_eq!(modules.of_file(file).as_deref(), module, "{file}");
        }
    }
}
