//! Files that others wrote: `PICOPROF_TRACES` names a folder. So `tests/run` has those checked that core's own tests
//! make, of facts that nothing real would come up with.

use std::path::Path;
use std::{env, fs};

use picoprof_tests::go::Go;
use picoprof_tests::trace::Trace;

#[test]
fn all_in_a_folder_are_sound() {
    let Some(folder) = env::var_os("PICOPROF_TRACES") else {
        return;
    };
    let mut readers = Go::new().trace_readers();
    let mut errors = Vec::new();
    let mut count = 0;
    for file in fs::read_dir(Path::new(&folder)).expect("it is a folder") {
        let path = file.expect("it can be read").path();
        let bytes = fs::read(&path).expect("it can be read");
        let ours = Trace::read(&bytes).map(drop);
        let go = readers.read(&bytes).map(drop);
        if let Err(error) = go.and(ours) {
            errors.push(format!("{}: {error}", path.display()));
        }
        count += 1;
    }
    assert!(count > 0, "there are no files in {}", folder.display());
    assert!(
        errors.is_empty(),
        "{} of {count}:\n{}",
        errors.len(),
        errors.join("\n")
    );
}
