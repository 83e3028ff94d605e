# shellcheck shell=bash
# shellcheck disable=SC2153 # STATE is from paths.sh
# What a run leaves on the machine, ended or running, and its removal.

# owner: prints the state folder of the checkout whose cluster this machine has, or nothing.
owner() { readlink "$MACHINE/owner" || true; }

# running: whether the cluster of this checkout is complete and answers. A busy
# machine gets a minute: to start again would end what others run on the cluster.
running() {
    [[ $(owner) == "$STATE" && -e $STATE/ready ]] || return 1
    local deadline=$((SECONDS + 60))
    until api_ready; do
        ((SECONDS < deadline)) || return 1
        ! first_dead >/dev/null || return 1
        sleep 0.1
    done
    ! first_dead >/dev/null
}

api_ready() {
    nsenter --net="/run/netns/$NETNS" "$BIN/kubectl" --kubeconfig "$KUBECONFIG_FILE" --request-timeout 10s \
        get --raw /readyz >/dev/null 2>&1
}

# clear_machine: ends the machine's test cluster, whichever checkout made it.
# Logs, of pods too, and the audit log stay for reading until the next start. Mounts need no
# attention: they are in containerd's namespace, which ends with its last process.
clear_machine() {
    local state
    state=$(owner)
    state=${state:-$STATE}
    rm -f "$state/ready"
    stop_recorded "$state"
    cgroup_clear
    [[ ! -e /run/netns/$NETNS ]] || ip netns delete "$NETNS"
    rm -rf "${state:?}"/{etcd,containerd,containerd.sock*,kubelet,cni,host/run,host/var/lib,pki,kubeconfig*,loaded}
    rm -f "$MACHINE/owner"
}
