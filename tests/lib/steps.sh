# Running steps, timing and counting them. Sourced by tests/run; needs $root, $target, quick and full.

passed=0
failed=0
failures=()
beside=()
verbose=

main() {
    local plan=full
    while [ $# -gt 0 ]; do
        case $1 in
            --quick) plan=quick ;;
            -v | --verbose) verbose=1 ;;
            *)
                sed '1d; /^$/q; s/^# \{0,1\}//' "$root/tests/run"
                exit 2
                ;;
        esac
        shift
    done
    export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
    local begun=$SECONDS
    logs=$target/test-logs
    mkdir -p "$logs"
    $plan
    echo
    printf 'took %d s; logs in %s\n' $((SECONDS - begun)) "$logs"
    finish
}

# The closing lines.
finish() {
    local name
    # Where a step failed that the others can't do without.
    [ ${#beside[@]} -eq 0 ] || kill "${beside[@]}" 2>/dev/null
    for name in "${failures[@]}"; do
        echo "failed: $name"
    done
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

# prepare NAME COMMAND…: what the later steps can't do without. Counts only if it fails, and ends the run.
prepare() {
    run_step "$@" && report "ok" && return
    fail_step "$1" 1
    finish
}

# check NAME COMMAND…: counts as one.
check() {
    if run_step "$@"; then
        passed=$((passed + 1))
        report "ok"
    else
        fail_step "$1" 1
    fi
}

# suite NAME COMMAND…: a `cargo test`; counts as many as it ran. One that ran none, or that failed without
# a failed test (it did not compile, or crashed), counts as one failure.
suite() {
    local status=0 good bad ignored
    run_step "$@" || status=$?
    read -r good bad ignored < <(awk '
        /^test result: / {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) good += $(i - 1)
                if ($i ~ /^failed/) bad += $(i - 1)
                if ($i ~ /^ignored/) ignored += $(i - 1)
            }
        }
        END { print good + 0, bad + 0, ignored + 0 }' "$log")
    passed=$((passed + good))
    if [ $status -eq 0 ] && [ "$bad" -eq 0 ] && [ "$good" -gt 0 ]; then
        report "$good passed$([ "$ignored" -eq 0 ] || echo ", $ignored ignored")"
    else
        [ $status -ne 0 ] || [ "$good" -gt 0 ] || echo "no test was run" >>"$log"
        fail_step "$1" $((bad > 0 ? bad : 1)) "$good passed, "
    fi
}

# begin NAME COMMAND…: runs it beside the steps that follow, up to the one whose command is `ended NAME`.
begin() {
    local path=$logs/${1//[^a-z0-9]/-}
    rm -f "$path.status"
    (
        "${@:2}" </dev/null >"$path.out" 2>&1
        echo $? >"$path.status"
    ) &
    beside+=($!)
}

# Waits for what was begun; prints what it said, and fails if it has.
ended() {
    local path=$logs/${1//[^a-z0-9]/-}
    # Not with `wait`, as this may be in a subshell, whose child it isn't.
    until [ -s "$path.status" ]; do
        sleep 0.2
    done
    cat "$path.out"
    return "$(<"$path.status")"
}

# Runs one step with its output in a log; sets $log and $took.
run_step() {
    local name=$1 begun=$EPOCHREALTIME status=0
    shift
    log=$logs/${name//[^a-z0-9]/-}.log
    printf '%-26s' "$name"
    if [ -n "$verbose" ]; then
        echo
        "$@" </dev/null 2>&1 | tee "$log" || status=$?
        printf '%-26s' "$name"
    else
        "$@" </dev/null >"$log" 2>&1 || status=$?
    fi
    took=$(((${EPOCHREALTIME/[^0-9]/} - ${begun/[^0-9]/}) / 100000))
    return $status
}

report() {
    printf '%5d.%d s  %s\n' $((took / 10)) $((took % 10)) "$1"
}

# fail_step NAME COUNT [PREFIX]
fail_step() {
    failed=$((failed + $2))
    failures+=("$1")
    report "${3:-}$2 FAILED"
    if [ -z "$verbose" ]; then
        echo "---- $1:"
        cat "$log"
        echo "----"
    fi
}
