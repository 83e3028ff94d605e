# shellcheck shell=bash
# One certificate authority for the cluster, a certificate for each component,
# and a kubeconfig for each that calls the API server. Another authority, which vouches
# for nobody else, for the API server where it passes on whom it has let in. Made anew at every start.

pki_make() {
    (
        mkdir -p "$STATE/pki"
        cd "$STATE/pki"
        openssl genrsa -out sa.key 2048
        openssl rsa -in sa.key -pubout -out sa.pub
        authority ca
        authority front-proxy-ca
        server apiserver "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.$CLUSTER_DOMAIN,IP:127.0.0.1,IP:$NODE_IP,IP:$API_SERVICE_IP"
        server kubelet-server "DNS:$NODE_NAME,IP:$NODE_IP"
        server metrics-api "DNS:metrics-server.kube-system.svc"
        client apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
        client admin /O=system:masters/CN=admin
        client kubelet "/O=system:nodes/CN=system:node:$NODE_NAME"
        client kube-controller-manager /CN=system:kube-controller-manager
        client kube-scheduler /CN=system:kube-scheduler
        client kube-proxy /CN=system:kube-proxy
        client netpol /CN=netpol
        client metrics-server /CN=metrics-server
        client front-proxy-client /CN=front-proxy-client front-proxy-ca
    ) >"$STATE/log/pki.log" 2>&1 || die "no certificates: $(tail -n 3 "$STATE/log/pki.log")"
    local name
    for name in kubelet kube-controller-manager kube-scheduler kube-proxy netpol metrics-server; do
        kubeconfig "$name" >"$STATE/kubeconfig.$name"
    done
    kubeconfig admin >"$KUBECONFIG_FILE"
    chmod 600 "$STATE"/kubeconfig*
}

EC_KEY=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

# authority NAME
authority() {
    openssl req -x509 -days 365 -subj "/CN=portolan-test-$1" "${EC_KEY[@]}" -keyout "$1.key" -out "$1.crt"
}

# server NAME ALTERNATIVE_NAMES
server() {
    signed ca "$1" "/CN=$1" -addext "subjectAltName=$2" -addext extendedKeyUsage=serverAuth
}

# client NAME SUBJECT [AUTHORITY]: the subject's CN is the user, its O the group.
client() {
    signed "${3:-ca}" "$1" "$2" -addext extendedKeyUsage=clientAuth
}

signed() {
    local authority=$1 name=$2 subject=$3
    shift 3
    openssl req -x509 -days 365 -CA "$authority.crt" -CAkey "$authority.key" -subj "$subject" "${EC_KEY[@]}" \
        -addext basicConstraints=critical,CA:false "$@" -keyout "$name.key" -out "$name.crt"
}

# kubeconfig NAME: everything is in the file, so that it can be handed to anyone.
kubeconfig() {
    cat <<END
apiVersion: v1
kind: Config
clusters:
- name: portolan-test
  cluster:
    server: https://127.0.0.1:6443
    certificate-authority-data: $(base64 -w0 "$STATE/pki/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$STATE/pki/$1.crt")
    client-key-data: $(base64 -w0 "$STATE/pki/$1.key")
contexts:
- name: portolan-test
  context: {cluster: portolan-test, user: $1}
current-context: portolan-test
END
}
