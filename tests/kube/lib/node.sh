# shellcheck shell=bash
# The node: its network, container runtime, kubelet and what filters and routes
# its pods' traffic.

NODE_NAME=node
# An address for documentation (RFC 5737): it can be no machine anyone has to reach.
NODE_IP=192.0.2.10
POD_CIDR=10.244.0.0/24

node_network() {
    ip netns add "$NETNS"
    # A bridge without ports carries the node's address; not every kernel has the dummy device.
    ip -n "$NETNS" link set lo up
    ip -n "$NETNS" link add node0 type bridge
    ip -n "$NETNS" address add "$NODE_IP/24" dev node0
    ip -n "$NETNS" link set node0 up
    ip -n "$NETNS" route add default dev node0
    nsenter --net="/run/netns/$NETNS" sysctl -qw net.ipv4.ip_forward=1
}

containerd_start() {
    mkdir -p "$STATE/containerd/registry/_default" "$STATE/cni"
    containerd_config >"$STATE/containerd/config.toml"
    registry_config >"$STATE/containerd/registry/_default/hosts.toml"
    cni_config >"$STATE/cni/10-pods.conflist"
    start containerd unshare --mount "$KUBE_SOURCE/lib/private-mounts" "$STATE/host" \
        containerd --config "$STATE/containerd/config.toml"
}

# restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower a score, and
# dies with "can't get final child's PID from pipe: EOF".
containerd_config() {
    cat <<END
version = 2
root = "$STATE/containerd/root"
state = "$STATE/containerd/state"
[grpc]
  address = "$STATE/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$STATE/containerd/registry"
[plugins."io.containerd.internal.v1.opt"]
  path = "$STATE/containerd/opt"
END
}

# No registry can be reached. A loopback port that nobody listens on says so at
# once; a registry's own name would first wait for a DNS server's silence.
registry_config() {
    cat <<END
server = "http://127.0.0.1:1"
[host."http://127.0.0.1:1"]
  capabilities = ["pull", "resolve"]
END
}

# ptp routes every packet between pods through the node, where netpol can filter it.
cni_config() {
    cat <<END
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipMasq": false,
    "ipam": {
      "type": "host-local",
      "dataDir": "$STATE/cni/addresses",
      "ranges": [[{"subnet": "$POD_CIDR"}]],
      "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
END
}

containerd_answers() { ctr --address "$STATE/containerd.sock" version; }

# Volumes that the kubelet mounts are containerd's to pass on: both see the same mounts.
kubelet_start() {
    mkdir -p "$STATE/kubelet"
    : >"$STATE/kubelet/resolv.conf" # pods see the cluster's names alone, not the machine's
    kubelet_config >"$STATE/kubelet/config.yaml"
    local containerd
    read -r containerd _ <"$STATE/pids/containerd"
    start kubelet nsenter "--mount=/proc/$containerd/ns/mnt" "$BIN/kube" kubelet --config "$STATE/kubelet/config.yaml" --kubeconfig "$STATE/kubeconfig.kubelet" \
        --root-dir "$STATE/kubelet" --cert-dir "$STATE/kubelet/pki" --hostname-override "$NODE_NAME" --node-ip "$NODE_IP"
}

# A test machine's full disk or swap must not evict the pods under test.
kubelet_config() {
    cat <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: "$STATE/pki/ca.crt"}
authorization: {mode: Webhook}
tlsCertFile: "$STATE/pki/kubelet-server.crt"
tlsPrivateKeyFile: "$STATE/pki/kubelet-server.key"
containerRuntimeEndpoint: "unix://$STATE/containerd.sock"
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
enforceNodeAllocatable: []
clusterDNS: ["$DNS_SERVICE_IP"]
clusterDomain: $CLUSTER_DOMAIN
resolvConf: "$STATE/kubelet/resolv.conf"
maxPods: 200
oomScoreAdj: 0
failSwapOn: false
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", memory.available: "0%"}
imageGCHighThresholdPercent: 100
END
}

kube_proxy_start() {
    start kube-proxy "$BIN/kube" kube-proxy --kubeconfig "$STATE/kubeconfig.kube-proxy" --proxy-mode nftables \
        --hostname-override "$NODE_NAME" --cluster-cidr "$POD_CIDR" --conntrack-max-per-core 0 --oom-score-adj 0
}

netpol_start() {
    start netpol "$BIN/kube" netpol --kubeconfig "$STATE/kubeconfig.netpol"
}
