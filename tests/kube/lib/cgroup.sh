# shellcheck shell=bash
# The cgroup all of the cluster's processes are in: components and containerd's
# shims in portolan-test/system, pods in portolan-test/kubepods (the kubelet's
# cgroupRoot). Being in it is the kernel's word that a process is the cluster's.

CGROUP=portolan-test

# cgroup_mounts: where each hierarchy is mounted: several on v1, one on v2, and
# one of v2 without controllers beside those of v1 on a hybrid.
cgroup_mounts() {
    awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts
}

cgroup_make() {
    local mount file
    for mount in $(cgroup_mounts); do
        [[ ! -e $mount/cgroup.controllers ]] || cgroup_delegate "$mount"
        mkdir -p "$mount/$CGROUP"
        [[ ! -e $mount/cgroup.controllers ]] || cgroup_delegate "$mount/$CGROUP"
        cgroup_seed "$mount/$CGROUP"
        mkdir -p "$mount/$CGROUP/system"
        cgroup_seed "$mount/$CGROUP/system"
    done
}

# cgroup_delegate FOLDER (v2): its children get every controller it has.
cgroup_delegate() {
    local controllers controller
    read -ra controllers <"$1/cgroup.controllers" || true # a hybrid has none
    for controller in "${controllers[@]}"; do
        echo "+$controller" >"$1/cgroup.subtree_control"
    done
}

# cgroup_seed FOLDER (v1 cpuset): a new one has no processors, and admits nobody until it does.
cgroup_seed() {
    local file
    for file in cpuset.cpus cpuset.mems; do
        if [[ -e $1/$file && -e $1/tasks && -z $(cat "$1/$file") ]]; then
            cat "$(dirname "$1")/$file" >"$1/$file"
        fi
    done
}

cgroup_enter() {
    local mount
    for mount in $(cgroup_mounts); do
        echo "$1" >"$mount/$CGROUP/system/cgroup.procs"
    done
}

# cgroup_pids: every process in it, on any hierarchy. Folders vanish while find walks.
cgroup_pids() {
    local mount
    for mount in $(cgroup_mounts); do
        [[ ! -d $mount/$CGROUP ]] || find "$mount/$CGROUP" -name cgroup.procs -exec cat {} + 2>/dev/null
    done | sort -un
}

# cgroup_clear: ends all that is in it and removes it.
cgroup_clear() {
    local mount pids
    for _ in {1..100}; do
        pids=$(cgroup_pids) || true
        [[ -n $pids ]] || break
        # shellcheck disable=SC2086 # one word per process
        kill -KILL $pids 2>/dev/null || true
        sleep 0.05
    done
    [[ -z $(cgroup_pids) ]] || die "processes of the cluster outlive SIGKILL: $(cgroup_pids | xargs)"
    for mount in $(cgroup_mounts); do
        [[ ! -d $mount/$CGROUP ]] || find "$mount/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}
