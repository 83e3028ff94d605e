# shellcheck shell=bash
# shellcheck disable=SC2153 # STATE is from paths.sh
# What a run leaves on the machine, ended or running, and its removal.

# owner: prints the state folder of the checkout whose cluster this machine has, or nothing.
owner() { readlink "$MACHINE/owner" || true; }

# running: whether the cluster of this checkout is complete and answers.
running() {
    [[ $(owner) == "$STATE" && -e $STATE/ready ]] && ! first_dead >/dev/null && api_ready
}

api_ready() {
    nsenter --net="/run/netns/$NETNS" "$BIN/kubectl" --kubeconfig "$KUBECONFIG_FILE" get --raw /readyz >/dev/null 2>&1
}

# clear_machine: ends the machine's test cluster, whichever checkout made it.
# Logs and the audit log stay, for reading, until the next start.
clear_machine() {
    local state
    state=$(owner)
    state=${state:-$STATE}
    rm -f "$state/ready"
    stop_recorded "$state"
    cgroup_clear
    unmount_below "$state"
    [[ ! -e /run/netns/$NETNS ]] || ip netns delete "$NETNS"
    rm -rf "${state:?}"/{etcd,containerd,containerd.sock*,kubelet,cni,pki,kubeconfig*}
    rm -f "$MACHINE/owner"
}

# unmount_below FOLDER: pods' volumes, container roots and network namespaces, innermost first.
unmount_below() {
    local mounts mount
    for _ in {1..5}; do
        mounts=$(mounts_below "$1")
        [[ -n $mounts ]] || return 0
        while IFS= read -r mount; do
            umount "$mount" 2>/dev/null || umount --lazy "$mount" 2>/dev/null || true
        done <<<"$mounts"
    done
    die "cannot unmount:" "$mounts"
}

# /proc/mounts writes blanks as \040.
mounts_below() {
    local mount
    awk '{ print $2 }' /proc/mounts | while IFS= read -r mount; do
        printf -v mount %b "$mount"
        [[ $mount != "$1"/* ]] || printf '%s\n' "$mount"
    done | sort -r
}
