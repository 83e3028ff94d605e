# shellcheck shell=bash
# shellcheck disable=SC2034 # addresses and names are used by node.sh and pki.sh too
# etcd, the API server, the controllers, and metrics-server. All but the API server
# listen on the namespace's loopback only, where no pod reaches them.

CLUSTER_DOMAIN=cluster.local
SERVICE_CIDR=10.96.0.0/16
API_SERVICE_IP=10.96.0.1
DNS_SERVICE_IP=10.96.0.10
METRICS_PORT=4443

# Data is thrown away at every start, so nothing has to survive a power cut.
etcd_start() {
    start etcd "$BIN/kube" etcd --data-dir "$STATE/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380
}

apiserver_start() {
    start kube-apiserver "$BIN/kube" kube-apiserver --etcd-servers http://127.0.0.1:2379 \
        --advertise-address "$NODE_IP" --secure-port 6443 --service-cluster-ip-range "$SERVICE_CIDR" \
        --tls-cert-file "$STATE/pki/apiserver.crt" --tls-private-key-file "$STATE/pki/apiserver.key" \
        --client-ca-file "$STATE/pki/ca.crt" \
        --service-account-issuer "https://kubernetes.default.svc.$CLUSTER_DOMAIN" \
        --service-account-key-file "$STATE/pki/sa.pub" --service-account-signing-key-file "$STATE/pki/sa.key" \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
        --kubelet-preferred-address-types InternalIP --kubelet-certificate-authority "$STATE/pki/ca.crt" \
        --kubelet-client-certificate "$STATE/pki/apiserver-kubelet-client.crt" \
        --kubelet-client-key "$STATE/pki/apiserver-kubelet-client.key" \
        --proxy-client-cert-file "$STATE/pki/front-proxy-client.crt" --proxy-client-key-file "$STATE/pki/front-proxy-client.key" \
        --requestheader-client-ca-file "$STATE/pki/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
        --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
        --requestheader-extra-headers-prefix X-Remote-Extra- \
        --audit-policy-file "$KUBE_SOURCE/config/audit.yaml" --audit-log-path "$AUDIT_LOG"
}

controllers_start() {
    # At its default rate the controllers take five seconds to get their accounts. Nodes are not given up within a day:
    # the only real one is this machine, and no kubelet renews those that tests make for the scheduler. Autoscalers look
    # at their pods every five seconds instead of fifteen, which is how long tests wait for them.
    start kube-controller-manager "$BIN/kube" kube-controller-manager --kubeconfig "$STATE/kubeconfig.kube-controller-manager" \
        --leader-elect=false --kube-api-qps 200 --kube-api-burst 400 --bind-address 127.0.0.1 --use-service-account-credentials \
        --node-monitor-grace-period 24h --horizontal-pod-autoscaler-sync-period 5s \
        --service-account-private-key-file "$STATE/pki/sa.key" --root-ca-file "$STATE/pki/ca.crt" \
        --allocate-node-cidrs --cluster-cidr "$POD_CIDR" --service-cluster-ip-range "$SERVICE_CIDR"
    start kube-scheduler "$BIN/kube" kube-scheduler --kubeconfig "$STATE/kubeconfig.kube-scheduler" \
        --leader-elect=false --bind-address 127.0.0.1 \
        --authentication-kubeconfig "$STATE/kubeconfig.kube-scheduler" \
        --authorization-kubeconfig "$STATE/kubeconfig.kube-scheduler"
}

# Asks the kubelet what pods use, as often as it can be told to, and answers for metrics.k8s.io: the API server passes
# on to it what is asked there.
metrics_server_start() {
    local kubeconfig=$STATE/kubeconfig.metrics-server
    start metrics-server "$BIN/kube" metrics-server --kubeconfig "$kubeconfig" \
        --authentication-kubeconfig "$kubeconfig" --authorization-kubeconfig "$kubeconfig" \
        --bind-address 127.0.0.1 --secure-port "$METRICS_PORT" \
        --tls-cert-file "$STATE/pki/metrics-api.crt" --tls-private-key-file "$STATE/pki/metrics-api.key" \
        --kubelet-preferred-address-types InternalIP --kubelet-request-timeout 5s --metric-resolution 10s
    metrics_api | admin apply -f - >>"$STATE/log/manifests.log"
}

# The Service has the API server look on its own loopback.
metrics_api() {
    cat <<END
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {type: ExternalName, externalName: localhost}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  service: {name: metrics-server, namespace: kube-system, port: $METRICS_PORT}
  caBundle: $(base64 -w0 "$STATE/pki/ca.crt")
END
}
