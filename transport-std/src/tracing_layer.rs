//! What a program tells `tracing`, in its execution traces.

#![forbid(unsafe_code)]

use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use std::sync::Arc;

use picoprof::trace::{self, Region, Task};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id};
use tracing_core::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::tracer;

/// Regions that a thread may be in at once; with more, the outermost ends early.
const MAX_OPEN: usize = 128;

/// Shows spans and events of `tracing` in execution traces, as a layer over `tracing-subscriber`'s registry.
///
/// A span without a parent is a [task](picoprof::trace::task) with the span's name, from when it is made until it is closed. Each time that
/// a span is entered is a [region](picoprof::trace::region) of the task that its outermost parent is; a future that is
/// instrumented with one enters it for each poll. An event is a [log](picoprof::trace::log): its target is the category, and the message is
/// followed by the other fields.
///
/// While nothing is recorded, all that it does is to look whether something is. A span that is made then is no task; what is
/// entered of it later are regions of none.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt;
/// # use tracing::subscriber::with_default as init;
///
/// let subscriber = tracing_subscriber::registry().with(picoprof_std::TracingLayer::new());
/// # init(subscriber, || {
/// let request = tracing::info_span!("request");
/// request.in_scope(|| tracing::info!(bytes = 12, "a request came"));
/// # });
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it is to be added to a subscriber"]
pub struct TracingLayer(());

impl TracingLayer {
    /// The layer, to be given to `with`.
    pub fn new() -> Self {
        // What is recorded goes by the tracer, which the program may not have needed so far.
        tracer::see_tasks();
        Self(())
    }
}

/// The task that a span is a part of: it ends with the last of the spans that are, which is the outermost.
#[derive(Clone, Debug)]
struct PartOf(Arc<Task>);

#[derive(Debug)]
struct Open {
    span: Id,
    _region: Region,
}

thread_local! {
    /// The regions that the thread is in, the innermost last.
    static OPEN: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
    /// Whether there are any: without a destructor, so that it takes an instruction or two to see.
    static IS_ANY_OPEN: Cell<bool> = const { Cell::new(false) };
}

// Each does its work elsewhere, so that nothing is put on the stack for it while nothing is recorded.
impl<S> Layer<S> for TracingLayer
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    #[inline]
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if trace::is_on() {
            begin(id, &context);
        }
    }

    #[inline]
    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if trace::is_on() {
            enter(id, &context);
        }
    }

    #[inline]
    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        // Also while nothing is recorded: regions are not to stay for the next trace.
        if IS_ANY_OPEN.get() {
            exit(id);
        }
    }

    #[inline]
    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if trace::is_on() {
            close(&id, &context);
        }
    }

    #[inline]
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if trace::is_on() {
            log(event, &context);
        }
    }
}

// Extensions of a span are behind a lock, which is never held while something is recorded.

#[cold]
#[inline(never)]
fn begin<S>(id: &Id, context: &Context<'_, S>)
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let Some(span) = context.span(id) else {
        return;
    };
    let part_of = match span.parent() {
        Some(parent) => parent.extensions().get::<PartOf>().cloned(),
        None => Some(PartOf(Arc::new(trace::task(span.name())))),
    };
    if let Some(part_of) = part_of {
        // There may be two of this layer.
        let replaced = span.extensions_mut().replace(part_of);
        drop(replaced);
    }
}

#[cold]
#[inline(never)]
fn enter<S>(id: &Id, context: &Context<'_, S>)
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let Some(span) = context.span(id) else {
        return;
    };
    let part_of = span.extensions().get::<PartOf>().cloned();
    let region = match &part_of {
        Some(PartOf(task)) => task.begin_region(span.name()),
        None => Region::new(span.name()),
    };
    let open = Open {
        span: id.clone(),
        _region: region,
    };
    // Where that can't be, as in a thread that ends, the region ends here.
    let _outermost = OPEN.try_with(|all| {
        let mut all = all.try_borrow_mut().ok()?;
        let outermost = (all.len() >= MAX_OPEN).then(|| all.remove(0));
        all.push(open);
        IS_ANY_OPEN.set(true);
        outermost
    });
}

/// Ends the region of a span. One that was entered on another thread is not here, and ends with that thread, or when it's the
/// outermost of too many.
#[cold]
#[inline(never)]
fn exit(id: &Id) {
    let _ended = OPEN.try_with(|all| {
        let mut all = all.try_borrow_mut().ok()?;
        let place = all.iter().rposition(|open| open.span == *id)?;
        let ended = all.remove(place);
        IS_ANY_OPEN.set(!all.is_empty());
        Some(ended)
    });
}

#[cold]
#[inline(never)]
fn close<S>(id: &Id, context: &Context<'_, S>)
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let span = context.span(id);
    let part_of = span.and_then(|span| span.extensions_mut().remove::<PartOf>());
    drop(part_of);
}

#[cold]
#[inline(never)]
fn log<S>(event: &Event<'_>, context: &Context<'_, S>)
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let span = context.event_span(event);
    let part_of = span.and_then(|span| span.extensions().get::<PartOf>().cloned());
    let category = event.metadata().target();
    match part_of {
        Some(PartOf(task)) => task.log(category, Fields(event)),
        None => trace::log(category, Fields(event)),
    }
}

/// The message, and `key=value` for each other field.
struct Fields<'e>(&'e Event<'e>);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        // First the message, wherever it stands.
        for wants_message in [true, false] {
            let mut writer = Writer {
                out: f,
                wants_message,
                separator,
                result: Ok(()),
            };
            self.0.record(&mut writer);
            separator = writer.separator;
            writer.result?;
        }
        Ok(())
    }
}

struct Writer<'w, 'f> {
    out: &'w mut fmt::Formatter<'f>,
    wants_message: bool,
    /// What goes before the next field.
    separator: &'static str,
    result: fmt::Result,
}

impl Writer<'_, '_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        const MESSAGE: &str = "message";
        if (field.name() == MESSAGE) != self.wants_message {
            return Ok(());
        }
        self.out.write_str(self.separator)?;
        self.separator = " ";
        if !self.wants_message {
            self.out.write_str(field.name())?;
            self.out.write_char('=')?;
        }
        self.out.write_fmt(value)
    }

    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // After an error, as where there's no more room, nothing is formatted.
        if self.result.is_ok() {
            self.result = self.write(field, value);
        }
    }
}

impl Visit for Writer<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn core::error::Error + 'static)) {
        self.add(field, format_args!("{value}"));
    }
}
