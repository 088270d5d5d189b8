# Building and measuring. Sourced by benches/run; needs $target and $work.

cpu_peers=(pprof pprof-fp pprof-framehop rpprof)
heap_peers=(jemalloc stoolap-jemalloc mimalloc-pprof pprof-alloc rpprof dhat)
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

# build BUILD PACKAGE…: with unwind tables only, or with frame pointers (fp).
build() {
    local flags=
    [ "$1" = tables ] || flags=-Cforce-frame-pointers=yes
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
    for peer in pprof pprof-framehop rpprof jemalloc stoolap-jemalloc dhat; do
        build tables -p "peer-$peer" || missing+=("$peer")
    done
    for peer in pprof-fp mimalloc-pprof pprof-alloc; do
        build fp -p "peer-$peer" || missing+=("$peer")
    done
}

# program NAME [BUILD]: its path. Peers that want frame pointers have them.
program() {
    case $1 in
        picoprof | plain) echo "$target/${2:-tables}/release/bench-$1" ;;
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

# instructions PROGRAM MODE N: user instructions of the working thread in each of N rounds.
instructions() {
    local first second
    first=$(callgrind "$1" "$2" "$3") && second=$(callgrind "$1" "$2" $((2 * $3))) || return 1
    echo $(((second - first + $3 / 2) / $3))
}

# The whole of one run.
callgrind() {
    local out=$work/callgrind
    rm -f "$out"*
    local prefix=(valgrind --tool=callgrind --separate-threads=yes --callgrind-out-file="$out")
    run_program "$@" >"$work/log" 2>&1 || {
        echo "$* failed under valgrind:" >&2
        tail -n 5 "$work/log" >&2
        return 1
    }
    # The working thread's own.
    awk '/^totals:/ { print $2 }' "$out-02"
}

# over_plain PROGRAM MODE N [BUILD]: instructions beyond those of the plain program of the same build.
over_plain() {
    local it plain
    it=$(instructions "$1" "$2" "$3") && plain=$(instructions "$(program plain "${4:-tables}")" "$2" "$3") || return 1
    echo $((it - plain))
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
