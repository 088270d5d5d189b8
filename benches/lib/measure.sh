# Building and measuring. Sourced by benches/run; needs $target and $work.

cpu_peers=(pprof pprof-fp pprof-framehop rpprof)
heap_peers=(jemalloc stoolap-jemalloc mimalloc-pprof pprof-alloc rpprof dhat)
task_peers=(tokio-dump await-tree async-backtrace)
missing=()

# What sets the peers' sampling rates, where it is the environment.
export PPROF_ALLOC_SAMPLE_RATE=524288

need() {
    local command
    for command in "$@"; do
        if ! command -v "$command" >/dev/null; then
            echo "Missing on this machine: $command." >&2
            return 1
        fi
    done
}

# build BUILD PACKAGE…: with unwind tables only, with frame pointers (fp), or with what Tokio calls unstable.
build() {
    local flags=
    case $1 in
        fp) flags=-Cforce-frame-pointers=yes ;;
        unstable) flags="--cfg tokio_unstable" ;;
    esac
    RUSTFLAGS="${RUSTFLAGS-} $flags" cargo build --quiet --release --locked --target-dir "$target/$1" \
        "${@:2}" >"$work/build.log" 2>&1
}

build_ours() {
    local build
    for build in tables fp; do
        build $build -p bench-picoprof -p bench-plain && continue
        cat "$work/build.log" >&2
        return 1
    done
}

# One by one, as cargo would give packages that are built together the features of all of them. A peer that can't be
# built is left out of the tables, which say so.
build_all() {
    local peer
    build_ours || return 1
    for peer in pprof pprof-framehop rpprof jemalloc stoolap-jemalloc dhat await-tree async-backtrace; do
        build tables -p "peer-$peer" || missing+=("$peer")
    done
    for peer in pprof-fp mimalloc-pprof pprof-alloc; do
        build fp -p "peer-$peer" || missing+=("$peer")
    done
    build unstable -p peer-tokio-dump || missing+=(tokio-dump)
    build_go || missing+=(go)
}

# With the Go that the tests use.
build_go() {
    [ ! "$(program go)" -nt "$root/benches/go/main.go" ] || return 0
    { ensure_go_tools && run_go build -o "$target/go/peer-go" "$root/benches/go/main.go"; } >"$work/build.log" 2>&1
    local status=$?
    # As after building the tools.
    rm -rf "$tools/go-home/cache"
    return $status
}

# program NAME [BUILD]: its path. Peers that want frame pointers have them.
program() {
    case $1 in
        picoprof | interposed | plain) echo "$target/${2:-tables}/release/bench-$1" ;;
        tokio-dump) echo "$target/unstable/release/peer-$1" ;;
        go) echo "$target/go/peer-$1" ;;
        pprof-fp | mimalloc-pprof | pprof-alloc) echo "$target/fp/release/peer-$1" ;;
        *) echo "$target/tables/release/peer-$1" ;;
    esac
}

# run_program PROGRAM MODE N: with what it wants in its environment.
run_program() {
    local rate=19
    case $2 in sampled) rate=0 ;; esac
    local heap_rate=$((1 << rate))
    _RJEM_MALLOC_CONF=prof:true,lg_prof_sample:$rate PPROF_ALLOC_SAMPLE_RATE=$heap_rate "${prefix[@]}" "$@"
}
prefix=()

# instructions PROGRAM MODE N: user instructions of the working thread in each of N rounds. What was counted once is known.
instructions() {
    local known=$work/instructions-${1//\//-}-$2-$3 times=1
    # Now and then two threads that wait for each other do so in another way: of three, the middle.
    [[ $2 != lock && $2 != lock-off ]] || times=3
    if [ ! -e "$known" ]; then
        while [ $times -gt 0 ]; do
            difference "$@" >>"$work/differences" || return 1
            times=$((times - 1))
        done
        sort -n "$work/differences" | head -n 2 | tail -n 1 >"$known"
        rm "$work/differences"
    fi
    cat "$known"
}

# difference PROGRAM MODE N: of two runs, for each of N rounds.
difference() {
    local first second
    first=$(callgrind "$1" "$2" "$3") && second=$(callgrind "$1" "$2" $((2 * $3))) || return 1
    echo $(((second - first + $3 / 2) / $3))
}

# The whole of one run.
callgrind() {
    local out=$work/callgrind
    rm -f "$out"*
    # Scheduled fairly, or two threads that wait for each other do so now and then in another way.
    local prefix=(valgrind --tool=callgrind --fair-sched=try --separate-threads=yes --callgrind-out-file="$out")
    run_program "$@" >"$work/log" 2>&1 || {
        echo "$* failed under valgrind:" >&2
        tail -n 5 "$work/log" >&2
        return 1
    }
    # The working thread's own; of contended locks there are two such threads.
    local threads=("$out-02")
    [[ $2 != lock && $2 != lock-off ]] || threads=("$out"-0[2-9])
    awk '/^totals:/ { sum += $2 } END { print sum }' "${threads[@]}"
}

# over_plain PROGRAM MODE N [BUILD [PLAIN-MODE]]: instructions beyond those of the plain program of the same build.
over_plain() {
    local it plain
    it=$(instructions "$1" "$2" "$3") &&
        plain=$(instructions "$(program plain "${4:-tables}")" "${5:-$2}" "$3") || return 1
    echo $((it - plain))
}

# event PROGRAM MODE [BUILD [PLAIN-MODE]]: instructions of an event beyond those of the plain program.
event() {
    local n=5000
    # The server's thread is counted, too, and does this and that.
    [[ $2 != lock* ]] || n=10000
    over_plain "$1" "$2" $n "${3:-tables}" "${4:-$2}"
}

# clone_event PROGRAM [BUILD]: of the clone of a waker, without the poll.
clone_event() {
    local both poll
    both=$(event "$1" clone "${2:-tables}") && poll=$(event "$1" poll "${2:-tables}") || return 1
    echo $((both - poll))
}

# event_ns PROGRAM MODE [BUILD [PLAIN-MODE]]: nanoseconds beyond those of the plain program.
event_ns() {
    local it plain
    it=$(nanoseconds "$1" "$2") && plain=$(nanoseconds "$(program plain "${3:-tables}")" "${4:-$2}") || return 1
    calculate "$it - $plain"
}

# nanoseconds PROGRAM MODE: of each event.
nanoseconds() {
    repeat 3 "$1" "$2" 200000 && best "$out" ns
}

# traced PROGRAM MODE [OFF]: instructions of one of the two events that each round of it is in a trace.
traced() {
    local on off
    on=$(instructions "$1" "trace-$2" 10000) && off=$(instructions "$1" "${3:-$2}" 10000) || return 1
    calculate "($on - $off) / 2"
}

# traced_off PROGRAM: of each of the two where no trace is taken.
traced_off() {
    local on off
    on=$(instructions "$1" trace-off 10000) && off=$(instructions "$1" trace-none 10000) || return 1
    calculate "($on - $off) / 2"
}

# cold PROGRAM [BUILD]: instructions of a sample whose stack is new.
cold() {
    local plain it
    plain=$(program plain "${2:-tables}")
    it=$(($(callgrind "$1" stacks 1) - $(callgrind "$1" stacks 0))) || return 1
    it=$((it - $(callgrind "$plain" stacks 1) + $(callgrind "$plain" stacks 0)))
    echo $((it / 10000))
}

# system_calls PROGRAM: those of a sample, without what sends the signal and returns from it.
system_calls() {
    local n=200 first second plain
    first=$(count_calls "$1" $n) && second=$(count_calls "$1" $((2 * n))) || return 1
    plain=$(($(count_calls "$(program plain)" $((2 * n))) - $(count_calls "$(program plain)" $n)))
    echo $(((second - first - plain + n / 2) / n))
}

# Of the working thread, without sched_yield: `bench::signal::settle` calls it, and valgrind shows it anew when a signal has
# interrupted it.
count_calls() {
    valgrind --tool=none --trace-syscalls=yes "$1" sample "$2" 2>&1 >/dev/null |
        grep -o 'SYSCALL\[[0-9]*,2\]([ 0-9]*) *[a-z_][a-z_]*' | grep -vc 'sched_yield$'
}

# value FILE NAME: of what a program printed.
value() {
    awk -v name="$2" '$1 == name { print $2 }' "$1"
}

# best FILE NAME / worst FILE NAME: the least or greatest of several.
best() {
    value "$@" | sort -g | head -n 1
}
worst() {
    value "$@" | sort -g | tail -n 1
}

# repeat TIMES PROGRAM MODE [N]: what it prints, all in $out.
repeat() {
    local i
    out=$work/out
    : >"$out"
    for ((i = 0; i < $1; i++)); do
        timeout 300 "${@:2}" >>"$out" 2>"$work/log" || {
            echo "${*:2} failed:" >&2
            tail -n 5 "$work/log" >&2
            return 1
        }
    done
}

# calculate EXPRESSION: with three significant digits.
calculate() {
    awk "BEGIN { printf \"%.3g\", $1 }"
}
