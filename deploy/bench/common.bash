# What both peers' scripts share; they source it, it does nothing by itself.
# shellcheck shell=bash disable=SC2034

peer="$(basename "$0")"
cache="${STRONGROOM_CACHE:-$HOME/.cache/strongroom}/bench"

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$peer" "$*" >&2; exit 1; }

# Debian's packages, where they may be installed.
install_packages() {
    local root=(env)
    command -v apt-get >/dev/null || die "there is no apt-get: install $* yourself"
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || die "as root, run: apt-get install $*"
        root=(sudo -n env)
    fi
    say "installing $*"
    # An update that fails in part may still be enough for the packages.
    "${root[@]}" apt-get update -q >&2 || say "apt-get update failed; trying with the lists that are there"
    "${root[@]}" DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" >&2 \
        || die "$* can't be installed: see what apt-get says above"
}

# Runs the command until it succeeds, for as many seconds at most.
poll() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}

# The folder's full path. It goes into configuration files and patterns as it is, so it has to be a plain one.
full_path() {
    local path
    path="$(realpath -m -- "$1")"
    [[ "$path" =~ ^[A-Za-z0-9._/+-]+$ ]] \
        || die "$path: use a folder whose path has only letters, digits and . _ + - /"
    printf '%s\n' "$path"
}

# One start or measurement at a time in a folder. Servers are started without this descriptor (9>&-): they would keep
# it open, and the folder locked.
lock_folder() {
    exec 9>"$1/lock"
    flock -n 9 || die "another start or measure is at work in $1: wait until it has ended"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port with a free one after it, below those that the kernel gives to outgoing connections.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        if port_is_free "$port" && port_is_free "$((port + 1))"; then
            printf '%s\n' "$port"
            return
        fi
    done
    die "no free port on 127.0.0.1 between 20000 and 32000: stop what listens there"
}

# Whether this process lives and its command line has this word: a pid alone may be another process's by now.
runs_with() {
    [ -n "$1" ] && tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | grep -qxF -- "$2"
}

# Processor time, user and system, that a process and all below it have used, in clock ticks; then their pids.
# A process that ended and was waited for is in its parent's cutime and cstime, so these are counted too, and nothing
# is counted twice: they don't hold the time of children that still run, nor of those that nobody has waited for yet.
tree_times() {
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v root="$1" '
        {
            # Between parentheses stands the name, which may hold anything.
            pid = $1
            if (!sub(/^.*\) /, "")) next
            parent[pid] = $2
            ticks[pid] = $12 + $13 + $14 + $15
        }
        function below(pid, steps) {
            for (steps = 0; pid in parent && steps < 100; steps++) {
                if (pid == root) return 1
                pid = parent[pid]
            }
            return 0
        }
        END {
            if (!(root in parent)) exit 1
            for (pid in parent) if (below(pid)) { sum += ticks[pid]; pids = pids " " pid }
            print sum pids
        }'
}

# The same in microseconds. Read until two readings name the same processes: one that is reaped during a reading could
# be missed in both places, or found in both.
server_cpu_us() {
    local reading previous=""
    for _ in {1..50}; do
        reading="$(tree_times "$1")" || die "the server's process $1 has ended: see its log"
        if [ "${reading#* }" = "$previous" ]; then
            printf '%s\n' "$((${reading%% *} * 1000000 / $(getconf CLK_TCK)))"
            return
        fi
        previous="${reading#* }"
    done
    die "the server keeps starting and ending processes, so its processor time can't be read"
}

# The value of --seconds N, 10 without it.
seconds_of() {
    local seconds=10
    if [ $# -gt 0 ]; then
        if [ "$1" != --seconds ] || [ $# -ne 2 ]; then
            die "measure takes DIR and, if you like, --seconds N"
        fi
        seconds="$2"
    fi
    [[ "$seconds" =~ ^([1-9]|[1-9][0-9]|[1-5][0-9][0-9]|600)$ ]] || die "--seconds takes a number from 1 to 600"
    printf '%s\n' "$seconds"
}

# One load's figures: name, connections, items a request, requests, requests a second, server's CPU in us, p50 and p99
# in us. The server's clock ticks are 10 ms, so that short runs are coarse.
load_json() {
    [ "$4" -gt 0 ] || die "$1: not one request was answered: see the server's log"
    [ "$6" -gt 0 ] || die "$1: the server used no measurable processor time: give --seconds a larger number"
    jq -n --arg load "$1" --argjson connections "$2" --argjson items "$3" --argjson requests "$4" \
        --argjson rate "$5" --argjson cpu_us "$6" --argjson p50_us "$7" --argjson p99_us "$8" '
        def round_to($digits): . * pow(10; $digits) | round / pow(10; $digits);
        {
            load: $load,
            connections: $connections,
            items_per_request: $items,
            requests_per_second: ($rate | round_to(1)),
            items_per_second: ($rate * $items | round_to(1)),
            server_cpu_us_per_request: ($cpu_us / $requests | round_to(2)),
            requests_per_server_cpu_second: ($requests / $cpu_us * 1e6 | round_to(1)),
            items_per_server_cpu_second: ($requests * $items / $cpu_us * 1e6 | round_to(1)),
            p50_ms: ($p50_us / 1000 | round_to(3)),
            p99_ms: ($p99_us / 1000 | round_to(3))
        }'
}

# The loads' figures, one after the other on standard input, as the one document that measure prints.
report_json() {
    jq -s --arg peer "$peer" --arg version "$1" '{peer: $peer, version: $version, loads: .}'
}
