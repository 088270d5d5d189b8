# The budgets and the tables. Sourced by benches/run.

passed_budgets=0

# budget WHAT VALUE LIMIT UNIT
budget() {
    local verdict=ok
    # What could not be measured is not within its budget.
    if ! awk -v value="${2:-none}" -v limit="$3" 'BEGIN { exit !(value ~ /^-?[0-9.e+]+$/ && value + 0 <= limit) }'; then
        verdict="PASSED ITS BUDGET"
        passed_budgets=$((passed_budgets + 1))
    fi
    printf '%-58s %10s of %s %s: %s\n' "$1" "${2:-unknown}" "$3" "$4" "$verdict"
}

check() {
    local build it sampled
    samples_are_right || return 1
    for build in tables fp; do
        it=$(program picoprof $build)
        local sample=6000
        [ $build = tables ] || sample=1000
        budget "CPU sample, 32 frames, $build" "$(over_plain "$it" sample 1000 $build)" $sample instructions
        budget "malloc + free, 64 B, over plain, $build" "$(over_plain "$it" pair 50000 $build)" 15 instructions
        budget "malloc + free, mix, over plain, $build" "$(over_plain "$it" mix 50000 $build)" 15 instructions
    done
    sampled=$(instructions "$it" sampled 2000)
    budget "malloc + free, sampled, fp" "$sampled" 1500 instructions
    it=$(program picoprof)
    budget "system calls in the handler" "$(system_calls "$it")" 0 calls
    repeat 2 "$it" addresses &&
        budget "10,000 stacks, addresses only" "$(best "$out" addresses_ms)" 5 ms &&
        budget "its output buffer" "$(worst "$out" buffer_bytes)" 4096 bytes
    repeat 3 "$it" endpoint && {
        budget "10,000 stacks with symbols, cold" "$(without_gzip cold)" 150 ms
        budget "10,000 stacks with symbols, warm" "$(without_gzip warm)" 40 ms
        budget "its peak memory" "$(worst "$out" peak_mb)" 25 MB
        budget "its size" "$(worst "$out" raw_bytes)" 743000 bytes
        budget "its size after gzip" "$(worst "$out" gzip_bytes)" 83000 bytes
    }
    repeat 3 "$it" memory &&
        budget "resident memory, server and profilers" "$(worst "$out" sampling_mb)" 3 MB
    check_tasks_and_locks
    [ $passed_budgets -eq 0 ] && return
    echo "$passed_budgets budgets were passed, or not measured"
    return 1
}

check_tasks_and_locks() {
    local it fp
    it=$(program picoprof)
    repeat 2 "$it" tasks-addresses 100000 &&
        budget "100,000 tasks, addresses only" "$(best "$out" profile_ms)" 50 ms
    repeat 1 "$it" tasks 100000 && {
        budget "100,000 tasks with symbols, warm" "$(best "$out" profile_ms)" 50 ms
        budget "tasks that its text misses" $((100000 - $(value "$out" tasks | cut -d. -f1))) 0 tasks
    }
    budget "resident memory of a task" "$(($(task_memory picoprof) - $(task_memory plain)))" 160 bytes
    it=$(program interposed)
    fp=$(program interposed fp)
    # It would be more by a clone if the leaf could not keep its waker.
    budget "a task's poll" "$(event "$it" poll)" 350 instructions
    budget "a task's poll and the wake before it" "$(event "$it" wake)" 1700 instructions
    budget "a waker's clone, tables" "$(clone_event "$it")" 750 instructions
    budget "a waker's clone, fp" "$(clone_event "$fp" fp)" 750 instructions
    budget "a contended lock, off" "$(event "$it" lock-off tables lock)" 250 instructions
    budget "a contended lock, tables" "$(event "$it" lock)" 1300 instructions
    budget "a contended lock, fp" "$(event "$fp" lock fp)" 1300 instructions
    budget "a free lock" "$(over_plain "$it" lock-free 50000)" 0 instructions
    budget "labels set" "$(instructions "$it" labels 5000)" 500 instructions
    check_trace
}

# A region's name is looked up.
check_trace() {
    local it
    it=$(program picoprof)
    budget "an event of a trace: a task's poll" "$(traced "$it" poll)" 60 instructions
    budget "an event of a trace: labels" "$(traced "$it" labels)" 60 instructions
    budget "an event of a trace: a region's" "$(traced "$it" region trace-off)" 145 instructions
    budget "an event where no trace is taken" "$(traced_off "$it")" 3 instructions
    repeat 1 "$it" trace-size && budget "a trace's bytes an event" "$(value "$out" bytes_per_event)" 5.6 bytes
    repeat 1 "$it" trace-slower 400000 && budget "ping-pong, traced, to not" "$(value "$out" than_off)" 2 times
}

# What is counted is what it should be.
samples_are_right() {
    local build it
    for build in tables fp; do
        it=$(program picoprof $build)
        says "stacks 1 samples 100 frames 32" "$it" sample-check &&
            says "objects 1000 frames (28|29)" "$it" sampled-check &&
            says "ns [0-9.]+ waits 1001 regions 1000" "$it" trace-check 1000 &&
            says "ns [0-9.]+ block (99|100) mutex (99|100)" "$(program interposed $build)" lock-check 20000 || return 1
    done
}

# says TEXT PROGRAM MODE [N]
says() {
    local said
    repeat 1 "${@:2}" || return 1
    said=$(sed 's/\.000$//' "$out" | paste -sd' ')
    [[ $said =~ ^$1$ ]] || {
        echo "${*:2} says \"$said\", not \"$1\""
        return 1
    }
}

# without_gzip cold|warm
without_gzip() {
    calculate "$(best "$out" "$1_and_gzip_ms") - $(best "$out" gzip_ms)"
}

is_missing() {
    [[ " ${missing[*]-} " = *" $1 "* ]]
}

# row NAME CELL…: of a table.
row() {
    printf '| %s |' "$1"
    printf ' %s |' "${@:2}"
    echo
}

head_row() {
    row "$@"
    row "---" "${@/*/--:}" | sed 's/ --: |//'
}

tables() {
    local peer
    cpu_table
    echo
    encode_table
    echo
    heap_table
    echo
    memory_table
    echo
    task_table
    echo
    event_table
    echo
    trace_table
    if [ ${#missing[@]} -gt 0 ]; then
        echo
        echo "Could not be built here: ${missing[*]}."
    fi
    echo
    echo "$(cpu_model); $(rustc --version | cut -d' ' -f1-2); $(valgrind --version); $(versions)."
}

cpu_table() {
    local peer it
    head_row "One CPU sample, 32 frames" "instructions" "stack is new" "system calls" "CPU seconds at 1,000 Hz, reported / real"
    for build in tables fp; do
        it=$(program picoprof $build)
        repeat 1 "$it" rate 1000
        row "**picoprof**, $(named $build)" "**$(over_plain "$it" sample 1000 $build)**" "$(cold "$it" $build)" \
            "**$(system_calls "$it")**" "$(calculate "$(value "$out" ratio)")"
    done
    for peer in "${cpu_peers[@]}"; do
        is_missing "$peer" && continue
        it=$(program "$peer")
        repeat 1 "$it" rate 1000
        row "$(title "$peer")" "$(over_plain "$it" sample 300)" "$(cold "$it")" "$(system_calls "$it")" \
            "$(calculate "$(value "$out" ratio)")"
    done
}

encode_table() {
    local peer it
    head_row "10,000 stacks x 30 frames to profile.proto" "cold, ms" "warm, ms" "peak, MB" "bytes" "gzip"
    it=$(program picoprof)
    repeat 2 "$it" addresses
    row "**picoprof**, addresses only, no heap" "$(calculate "$(best "$out" addresses_ms)")" "" "0.004" \
        "$(best "$out" addresses_bytes | cut -d. -f1)" ""
    repeat 3 "$it" endpoint
    row "**picoprof**, with symbols" "**$(without_gzip cold)**" "**$(without_gzip warm)**" \
        "**$(calculate "$(worst "$out" peak_mb)")**" "$(worst "$out" raw_bytes | cut -d. -f1)" \
        "$(worst "$out" gzip_bytes | cut -d. -f1)"
    for peer in "${cpu_peers[@]}"; do
        is_missing "$peer" && continue
        repeat 2 "$(program "$peer")" endpoint || continue
        row "$(title "$peer")" "$(best "$out" cold_ms | cut -d. -f1)" "$(best "$out" warm_ms | cut -d. -f1)" \
            "$(calculate "$(worst "$out" peak_mb)")" "$(worst "$out" raw_bytes | cut -d. -f1)" \
            "$(worst "$out" gzip_bytes | cut -d. -f1)"
    done
}

heap_table() {
    local peer it build
    head_row "malloc + free, instructions" "64 B" "mix" "sampled, 28 frames"
    row "no profiler (glibc)" "$(instructions "$(program plain)" pair 50000)" "$(instructions "$(program plain)" mix 50000)" ""
    for build in tables fp; do
        it=$(program picoprof $build)
        row "**picoprof**, $(named $build)" "$(instructions "$it" pair 50000)" "$(instructions "$it" mix 50000)" \
            "**$(instructions "$it" sampled 2000)**"
    done
    for peer in "${heap_peers[@]}"; do
        is_missing "$peer" && continue
        it=$(program "$peer")
        local n=50000
        [ "$peer" != dhat ] || n=200
        row "$(title "$peer")" "$(instructions "$it" pair $n)" "$(instructions "$it" mix $n)" "$(instructions "$it" sampled 200)"
    done
}

memory_table() {
    local peer
    head_row "Resident memory added, MB" "started" "sampling" "after the first profile"
    repeat 3 "$(program picoprof)" memory
    row "**picoprof**" "$(calculate "$(worst "$out" started_mb)")" "**$(calculate "$(worst "$out" sampling_mb)")**" \
        "$(calculate "$(worst "$out" after_cpu_mb)")"
    for peer in "${cpu_peers[@]}"; do
        is_missing "$peer" && continue
        repeat 2 "$(program "$peer")" memory
        row "$(title "$peer")" "" "$(calculate "$(worst "$out" started_mb)")" ""
    done
}

task_table() {
    local peer it plain
    head_row "100,000 tasks, 4 async functions deep" "profile, ms" "us a task" "as text, us a task" "memory a task, bytes"
    plain=$(task_memory plain)
    it=$(program picoprof)
    repeat 1 "$it" tasks-addresses 100000
    row "**picoprof**, addresses only, no heap" "**$(whole profile)**" "**$(each 100000 profile)**" "" ""
    repeat 1 "$it" tasks 100000
    row "**picoprof**, with symbols" "**$(whole profile)**" "**$(each 100000 profile)**" "$(each 100000 text)" \
        "**$(($(task_memory picoprof) - plain))**"
    for peer in "${task_peers[@]}"; do
        is_missing "$peer" && continue
        repeat 1 "$(program "$peer")" tasks 100000
        row "$(title "$peer")" "$(whole profile)" "$(each 100000 profile)" "$(each 100000 text)" \
            "$(($(task_memory "$peer") - plain))"
    done
    is_missing go && return
    repeat 1 "$(program go)" tasks 100000
    peer=("$(whole profile)" "$(each 100000 profile)")
    repeat 1 "$(program go)" text 10000
    row "$(title go)" "${peer[@]}" "$(each 10000 text)" ""
}

# task_memory NAME: resident bytes of a task, with the task itself.
task_memory() {
    repeat 1 "$(program "$1")" task-memory 100000 && value "$out" bytes_per_task | cut -d. -f1
}

# whole profile|text: milliseconds, if the peer has it.
whole() {
    local ms
    ms=$(best "$out" "$1_ms")
    [ -z "$ms" ] || calculate "$ms"
}

# each TASKS profile|text: microseconds a task.
each() {
    local ms
    ms=$(best "$out" "$2_ms")
    [ -z "$ms" ] || calculate "$ms * 1000 / $1"
}

event_table() {
    local peer it build
    head_row "Added, ns (instructions)" "a poll" "a poll and its wake" "a waker's clone" "a contended lock, off" "on" \
        "a free lock" "labels set"
    for build in tables fp; do
        it=$(program interposed $build)
        row "**picoprof**, $(named $build)" \
            "**$(event_ns "$it" poll $build)** ($(event "$it" poll $build))" \
            "**$(event_ns "$it" wake $build)** ($(event "$it" wake $build))" \
            "**$(clone_event_ns "$it" $build)** ($(clone_event "$it" $build))" \
            "**$(event_ns "$it" lock-off $build lock)** ($(event "$it" lock-off $build lock))" \
            "**$(event_ns "$it" lock $build)** ($(event "$it" lock $build))" \
            "($(over_plain "$it" lock-free 50000 $build))" \
            "**$(calculate "$(nanoseconds "$it" labels)")** ($(instructions "$it" labels 5000))"
    done
    for peer in "${task_peers[@]}"; do
        is_missing "$peer" && continue
        it=$(program "$peer")
        row "$(title "$peer")" "$(event_ns "$it" poll) ($(event "$it" poll))" \
            "$(event_ns "$it" wake) ($(event "$it" wake))" "" "" "" "" ""
    done
    is_missing go && return
    it=$(program go)
    repeat 3 "$it" lock 200000
    peer=$(calculate "$(best "$out" on_ns) - $(best "$out" plain_ns)")
    row "$(title go)" "" "" "" "" "$peer" "" "$(calculate "$(nanoseconds "$it" labels)")"
}

trace_table() {
    local build it
    head_row "Execution trace" "an event, ns" "instructions: a poll's" "labels'" "a region's" "off" "bytes" \
        "ping-pong, to not traced" "to no picoprof"
    for build in tables fp; do
        it=$(program picoprof $build)
        repeat 3 "$it" trace-ns 2000000
        local cells=("**$(calculate "$(best "$out" event_ns)")**" "**$(traced "$it" poll)**" "$(traced "$it" labels)"
            "$(traced "$it" region trace-off)" "**$(traced_off "$it")**")
        repeat 1 "$it" trace-size
        cells+=("**$(calculate "$(value "$out" bytes_per_event)")**")
        repeat 1 "$it" trace-slower 400000
        row "**picoprof**, $(named $build)" "${cells[@]}" "**$(calculate "$(value "$out" than_off)")**" \
            "$(calculate "$(value "$out" than_plain)")"
    done
    # Not measured here: they were in a study of their own.
    row "dial9, as published in our study" "38 to 49" "274" "" "" "" "8.9" "" ""
    row "tracing-chrome, as published in our study (spans)" "1360" "20962" "" "" "" "213" "" ""
    row "console-subscriber, as published in our study" "" "" "" "" "" "" "" "48"
    row "Go, as published in our study (with stacks)" "81 to 116" "" "" "" "" "5.6" "2.9 to 3.8" ""
}

# clone_event_ns PROGRAM [BUILD]: of the clone of a waker, without the poll.
clone_event_ns() {
    local both poll
    both=$(event_ns "$1" clone "$2") && poll=$(event_ns "$1" poll "$2") || return 1
    calculate "$both - $poll"
}

named() {
    case $1 in
        tables) echo "unwind tables" ;;
        fp) echo "frame pointers" ;;
    esac
}

title() {
    case $1 in
        pprof) echo "pprof-rs" ;;
        pprof-fp) echo "pprof-rs, frame-pointer" ;;
        pprof-framehop) echo "pprof-rs, framehop" ;;
        jemalloc) echo "jemalloc, prof:true" ;;
        tokio-dump) echo "Tokio's task dump" ;;
        go) echo "Go $go_version" ;;
        *) echo "$1" ;;
    esac
}

cpu_model() {
    awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo
}

# Those of the peers.
versions() {
    awk -F'"' '
        $1 == "name = " { name = $2 }
        $1 == "version = " && name ~ /^(pprof|rpprof|tikv-jemallocator|stoolap-jemalloc|mimalloc-pprof|pprof-alloc|dhat|tokio|await-tree|async-backtrace)$/ {
            text = text (text ? ", " : "") name " " $2
        }
        END { print text }' Cargo.lock
}

# put_into FILE TABLES
put_into() {
    if ! grep -q '^<!-- benches: begin -->$' "$1" 2>/dev/null || ! grep -q '^<!-- benches: end -->$' "$1"; then
        echo "$1 has no lines <!-- benches: begin --> and <!-- benches: end -->" >&2
        return 1
    fi
    awk -v tables="$2" '
        /^<!-- benches: end -->$/ { skips = 0 }
        !skips { print }
        /^<!-- benches: begin -->$/ {
            skips = 1
            print ""
            while ((getline line < tables) > 0) print line
            print ""
        }' "$1" >"$work/readme" && cat "$work/readme" >"$1"
}
