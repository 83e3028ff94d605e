package netpol

import (
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

const serverIP, clientIP, otherIP = "10.244.0.2", "10.244.0.3", "10.244.0.4"

// cluster has a server and a client in namespace a, and a pod like the client in namespace b.
func cluster(t *testing.T, policies ...string) State {
	t.Helper()
	state := State{
		Namespaces: map[string]labels.Set{"a": {"team": "a"}, "b": {"team": "b"}},
		Pods: []*corev1.Pod{
			pod("a", "server", serverIP, corev1.ContainerPort{Name: "http", ContainerPort: 8080}),
			pod("a", "client", clientIP),
			pod("b", "client", otherIP),
		},
	}
	for _, text := range policies {
		policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "policy"}}
		if err := yaml.UnmarshalStrict([]byte(text), &policy.Spec); err != nil {
			t.Fatal(err)
		}
		state.Policies = append(state.Policies, policy)
	}
	return state
}

func pod(namespace, name, ip string, ports ...corev1.ContainerPort) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
		Status:     corev1.PodStatus{PodIP: ip},
	}
}

// chain returns the rules of a chain, without the one for the pod itself and the final reject.
func chain(t *testing.T, table, name string) []string {
	t.Helper()
	_, rest, found := strings.Cut(table, "  chain "+name+" {\n")
	if !found {
		t.Fatalf("no chain %s in\n%s", name, table)
	}
	body, _, _ := strings.Cut(rest, "\n  }")
	lines := strings.Split(body, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "reject") {
		t.Fatalf("chain %s ends with %q, not with a reject", name, last)
	}
	return lines[1 : len(lines)-1]
}

func TestRender(t *testing.T) {
	const toServer = "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress], ingress: "
	const fromClient = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: "
	cases := []struct {
		promise, policy, chain string
		want                   []string
	}{
		{"a policy without rules admits nobody", toServer + "[]}", "ingress_" + serverIP, nil},
		{"an empty rule admits everyone", toServer + "[{}]}", "ingress_" + serverIP, []string{"return"}},
		{"a podSelector alone stays in the policy's namespace",
			toServer + "[{from: [{podSelector: {matchLabels: {app: client}}}]}]}", "ingress_" + serverIP,
			[]string{"ip saddr 10.244.0.3 return"}},
		{"both selectors together must both match",
			toServer + "[{from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: client}}}]}]}",
			"ingress_" + serverIP, []string{"ip saddr 10.244.0.4 return"}},
		{"selectors in two peers add up",
			toServer + "[{from: [{namespaceSelector: {matchLabels: {team: b}}}, {podSelector: {matchLabels: {app: client}}}]}]}",
			"ingress_" + serverIP, []string{"ip saddr 10.244.0.3 return", "ip saddr 10.244.0.4 return"}},
		{"peers that match no pod admit nobody",
			toServer + "[{from: [{podSelector: {matchLabels: {app: absent}}}]}]}", "ingress_" + serverIP, nil},
		{"ports are numbers, ranges, names of the pod's, or all of a protocol",
			toServer + "[{ports: [{port: 80}, {port: 90, endPort: 99}, {port: http}, {port: absent}, {protocol: UDP}]}]}",
			"ingress_" + serverIP,
			[]string{"meta l4proto udp return", "tcp dport 80 return", "tcp dport 8080 return", "tcp dport 90-99 return"}},
		{"a block has exceptions, and IPv6 matches nothing",
			toServer + "[{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 'fd00::/8'}}]}]}",
			"ingress_" + serverIP, []string{"ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 return"}},
		{"an egress port's name is looked up at each destination",
			fromClient + "[{to: [{podSelector: {}}], ports: [{port: http}]}]}", "egress_" + clientIP,
			[]string{"ip daddr 10.244.0.2 tcp dport 8080 return"}},
	}
	for _, c := range cases {
		t.Run(c.promise, func(t *testing.T) {
			table, err := Render(cluster(t, c.policy))
			if err != nil {
				t.Fatal(err)
			}
			if got := chain(t, table, c.chain); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got %q, want %q", got, c.want)
			}
			checkSyntax(t, table)
		})
	}
}

func TestOnlySelectedPodsAreIsolated(t *testing.T) {
	table, err := Render(cluster(t, "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(table, "ingress_") || strings.Contains(table, "egress_"+serverIP) || strings.Contains(table, otherIP) {
		t.Errorf("a pod or direction that no policy selects has rules:\n%s", table)
	}
	if jumps := strings.Count(table, "jump egress_"+clientIP); jumps != 2 {
		t.Errorf("got %d jumps, want one each for forwarded traffic and for the node", jumps)
	}
}

func TestPoliciesOfOneDirectionAddUp(t *testing.T) {
	const allow = "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: %}}}]}]}"
	table, err := Render(cluster(t, strings.Replace(allow, "%", "client", 1), strings.Replace(allow, "%", "server", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := chain(t, table, "ingress_"+serverIP); len(got) != 2 {
		t.Errorf("got %q, want a rule of each policy", got)
	}
}

// checkSyntax asks nft itself, in a network namespace of its own.
func checkSyntax(t *testing.T, table string) {
	t.Helper()
	nft := exec.Command("unshare", "--net", "nft", "--check", "-f", "-")
	nft.Stdin = strings.NewReader(table)
	if output, err := nft.CombinedOutput(); err != nil {
		t.Errorf("nft refuses the table: %v: %s\n%s", err, output, table)
	}
}
