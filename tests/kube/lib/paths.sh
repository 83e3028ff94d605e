# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts that source this use the variables
# Where everything is. Source it first.

KUBE_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPOSITORY=$(cd "$KUBE_SOURCE/../.." && pwd)
KUBE_ROOT=$REPOSITORY/target/kube
BIN=$KUBE_ROOT/bin
IMAGES=$KUBE_ROOT/images
STATE=$KUBE_ROOT/state
KUBECONFIG_FILE=$STATE/kubeconfig
AUDIT_LOG=$STATE/audit.log

# The cluster's network namespace and cgroup belong to the machine, so one
# machine runs one test cluster. This folder says whose it is.
NETNS=portolan-test
MACHINE=/run/portolan-test

say() { printf 'kube: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

require_root() {
    [[ $(id -u) == 0 ]] || die "$(basename "$0") makes network namespaces and mounts, which needs root"
}

# Other machines' users bring a cluster: PORTOLAN_TEST_CLUSTER=existing and KUBECONFIG.
cluster_exists() {
    case ${PORTOLAN_TEST_CLUSTER:-} in
    '') return 1 ;;
    existing)
        [[ -n ${KUBECONFIG:-} ]] || die "PORTOLAN_TEST_CLUSTER=existing needs KUBECONFIG set: tests never guess which cluster to change"
        ;;
    *) die "PORTOLAN_TEST_CLUSTER is '$PORTOLAN_TEST_CLUSTER': leave it unset, or set it to 'existing'" ;;
    esac
}
