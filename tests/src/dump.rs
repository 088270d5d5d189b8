//! Reading dumps of goroutines, as strictly as any of the tools that read Go's (gostackparse, goleak, panicparse
//! but for its `.go`), and with the labels of Go 1.27.

/// A goroutine in a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goroutine {
    /// Its number.
    pub id: u64,
    /// Why it doesn't run, without what follows.
    pub state: String,
    /// Whether it is marked as leaked.
    pub is_leaked: bool,
    /// For how many minutes it has not run; 0 if nothing is said of that.
    pub minutes: u64,
    /// Its labels, as they stand between the braces that Go puts them in since 1.27.
    pub labels: String,
    /// Its stack, leaf first.
    pub frames: Vec<Frame>,
    /// Who created it.
    pub created_by: Option<Frame>,
    /// The number of the goroutine that created it; 0 if nothing is said of that.
    pub parent: u64,
}

impl Goroutine {
    /// The functions on its stack, leaf first.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        let frames = self.frames.iter();
        frames.map(|frame| frame.function.as_str()).collect()
    }
}

/// A frame of a goroutine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The function's name.
    pub function: String,
    /// What is in its parentheses.
    pub arguments: String,
    /// The source file.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// The goroutines of a dump.
///
/// # Errors
///
/// What is wrong with it: the first line that is not what must come there.
pub fn parse(text: &str) -> Result<Vec<Goroutine>, String> {
    let text = text.strip_suffix('\n').ok_or("no line end at the end")?;
    text.split("\n\n").map(parse_goroutine).collect()
}

fn parse_goroutine(text: &str) -> Result<Goroutine, String> {
    let mut lines = text.split('\n');
    let header = lines.next().unwrap_or_default();
    let mut goroutine = parse_header(header).ok_or_else(|| format!("no header: {header:?}"))?;
    while let Some(line) = lines.next() {
        let bad = || format!("no function: {line:?}");
        if goroutine.created_by.is_some() {
            return Err(format!("more after who created it: {line:?}"));
        }
        let creator = line.strip_prefix("created by ");
        let mut frame = match creator {
            Some(creator) => {
                let (function, parent) = creator
                    .rsplit_once(" in goroutine ")
                    .unwrap_or((creator, "0"));
                goroutine.parent = parent.parse().map_err(|_| bad())?;
                Frame {
                    function: function.to_owned(),
                    ..Frame::default()
                }
            }
            None => parse_function(line).ok_or_else(bad)?,
        };
        let place = lines.next().unwrap_or_default();
        let (file, number) = (place.strip_prefix('\t'))
            .and_then(parse_place)
            .ok_or_else(|| format!("no place: {place:?}"))?;
        frame.file = file.to_owned();
        frame.line = number;
        match creator {
            Some(_) => goroutine.created_by = Some(frame),
            None => goroutine.frames.push(frame),
        }
    }
    if goroutine.frames.is_empty() {
        return Err(format!("no frames: {header:?}"));
    }
    Ok(goroutine)
}

/// `goroutine ID [STATE, N minutes] {LABELS}:`.
fn parse_header(line: &str) -> Option<Goroutine> {
    let (id, rest) = line.strip_prefix("goroutine ")?.split_once(" [")?;
    let (state, labels) = rest.strip_suffix(':')?.split_once(']')?;
    let labels = match labels {
        "" => "",
        labels => labels.strip_prefix(" {")?.strip_suffix('}')?,
    };
    let mut parts = state.split(", ");
    let state = parts.next()?;
    let minutes = match parts.next() {
        Some(part) => part.strip_suffix(" minutes")?.parse().ok()?,
        None => 0,
    };
    let is_over = parts.next().is_none();
    let leaked = state.strip_suffix(" (leaked)");
    (is_over && !state.contains([',', ']', '['])).then_some(Goroutine {
        id: id.parse().ok()?,
        state: leaked.unwrap_or(state).to_owned(),
        is_leaked: leaked.is_some(),
        minutes,
        labels: labels.to_owned(),
        ..Goroutine::default()
    })
}

/// `FUNCTION(ARGUMENTS)`: pairs of parentheses one after the other, the last of them at the end.
fn parse_function(line: &str) -> Option<Frame> {
    let mut open = None;
    let mut last = None;
    for (at, character) in line.char_indices() {
        match character {
            '(' if open.is_none() => open = Some(at),
            ')' => last = Some((open.take()?, at)),
            '(' => return None,
            _ => {}
        }
    }
    let (from, to) = last.filter(|_| open.is_none())?;
    (from > 0 && to + 1 == line.len()).then(|| Frame {
        function: line[..from].to_owned(),
        arguments: line[from + 1..to].to_owned(),
        ..Frame::default()
    })
}

/// `FILE:LINE`, or with an offset behind.
fn parse_place(text: &str) -> Option<(&str, u32)> {
    let (place, offset) = text.rsplit_once(" +0x").unwrap_or((text, "0"));
    u64::from_str_radix(offset, 16).ok()?;
    let (file, line) = place.rsplit_once(':')?;
    (!file.is_empty()).then_some((file, line.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the recorded output of a Go program.
    const GO: &str = "goroutine 74 [running]:\n\
        runtime/pprof.writeGoroutine({0xa01f68?, 0x28621c9f6c30?}, 0x28621c8f9760?)\n\
        \t/go/src/runtime/pprof/pprof.go:779 +0x25\n\
        runtime/pprof.(*Profile).WriteTo(0xa47570?, {0xa01f68?, 0x28621c9f6c30?}, 0xc?)\n\
        \t/go/src/runtime/pprof/pprof.go:405 +0x149\n\
        created by net/http.(*Server).Serve in goroutine 1\n\
        \t/go/src/net/http/server.go:3604 +0x4fd\n\
        \n\
        goroutine 1 [IO wait, 12 minutes] {tenant: t1, worker: alloc}:\n\
        internal/poll.(*pollDesc).waitRead(...)\n\
        \t/go/src/internal/poll/fd_poll_runtime.go:89\n";

    #[test]
    fn gos_own_are_read() {
        let [first, second] = &parse(GO).unwrap()[..] else {
            panic!("two");
        };
        assert_eq!(
            (first.id, first.state.as_str(), first.parent),
            (74, "running", 1)
        );
        let functions = [
            "runtime/pprof.writeGoroutine",
            "runtime/pprof.(*Profile).WriteTo",
        ];
        assert_eq!(first.functions(), functions);
        let creator = first.created_by.as_ref().unwrap();
        assert_eq!(creator.function, "net/http.(*Server).Serve");
        assert_eq!(
            (creator.file.as_str(), creator.line),
            ("/go/src/net/http/server.go", 3604)
        );
        assert_eq!((second.state.as_str(), second.minutes), ("IO wait", 12));
        assert_eq!(
            (first.labels.as_str(), second.labels.as_str()),
            ("", "tenant: t1, worker: alloc")
        );
        assert_eq!(second.frames[0].arguments, "...");
    }

    #[test]
    fn what_tools_refuse_is_refused() {
        for bad in [
            "goroutine 1 [a]:\nf(...)\n\tx:1",
            "goroutine 1 [a] name: b:\nf(...)\n\tx:1\n",
            "goroutine 1 [a]:\n",
            "goroutine 1 [a, b]:\nf(...)\n\tx:1\n",
            "goroutine 1 [a]:\nf\n\tx:1\n",
            "goroutine 1 [a]:\nf((a))(...)\n\tx:1\n",
            "goroutine 1 [a]:\nf(...)\nx:1\n",
            "goroutine 1 [a]:\nf(...)\n\tx\n",
            "goroutine 1 [a]:\nf(...)\n\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
