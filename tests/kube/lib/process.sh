# shellcheck shell=bash
# The cluster's long-running processes, one record each: state/pids/NAME holds
# the process's identity. A pid alone may be another's by now; a pid with its
# start time and the boot it counts from is not.

# identity PID: prints it, or fails if there is no such process.
identity() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The command's name may hold spaces and brackets: fields count from the last bracket.
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != [ZX] ]] || return 1
    echo "$1 ${stat[19]} $(cat /proc/sys/kernel/random/boot_id)"
}

# start NAME COMMAND...: runs it in the cluster's network namespace and cgroup.
# The process records itself before it becomes COMMAND, so none is ever unrecorded.
start() {
    local name=$1
    shift
    (
        exec 9>&- # the lock ends with the script, not with the cluster
        # shellcheck disable=SC2016 # expanded by the inner shell
        exec setsid bash -c '
            . "$1"/lib/paths.sh; . "$1"/lib/process.sh; . "$1"/lib/cgroup.sh
            identity $$ >"$STATE/pids/$2"
            cgroup_enter $$
            shift 2
            exec nsenter --net=/run/netns/$NETNS "$@"
        ' start "$KUBE_SOURCE" "$name" "$@"
    ) </dev/null >"$STATE/log/$name.log" 2>&1 &
    until [[ -s $STATE/pids/$name ]]; do
        kill -0 $! 2>/dev/null || die "$name did not start: $(tail -n 3 "$STATE/log/$name.log")"
        sleep 0.01
    done
}

# alive RECORD: whether the recorded process runs, and is that process.
alive() {
    local pid record
    record=$(cat "$1" 2>/dev/null) || return 1
    pid=${record%% *}
    [[ -n $pid && $(identity "$pid") == "$record" ]]
}

# first_dead: prints the name of a recorded process that has ended; fails when all run.
first_dead() {
    local record
    for record in "$STATE"/pids/*; do
        alive "$record" || {
            basename "$record"
            return 0
        }
    done
    return 1
}

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds; no longer than the
# cluster's processes all run, or than SECONDS.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2 dead
    shift 2
    until "$@" >/dev/null 2>&1; do
        if dead=$(first_dead); then
            tail -n 20 "$STATE/log/$dead.log" >&2
            die "$dead ended while waiting for $what; its log: $STATE/log/$dead.log"
        fi
        ((SECONDS < deadline)) || die "no $what in time; logs: $STATE/log/"
        sleep 0.1
    done
}

# stop_recorded STATE: ends every process recorded there, politely for two seconds.
stop_recorded() {
    local records=() record
    for record in "$1"/pids/*; do
        alive "$record" && records+=("$record")
    done
    for record in "${records[@]}"; do kill -TERM "$(cut -d' ' -f1 "$record")" 2>/dev/null || true; done
    for _ in {1..20}; do
        any_alive "${records[@]}" || break
        sleep 0.1
    done
    for record in "${records[@]}"; do
        alive "$record" && kill -KILL "$(cut -d' ' -f1 "$record")" 2>/dev/null
    done
    rm -rf "$1/pids"
}

any_alive() {
    local record
    for record in "$@"; do alive "$record" && return 0; done
    return 1
}
