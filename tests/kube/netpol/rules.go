package netpol

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// State is everything a table is made from.
type State struct {
	// Pods that have an IPv4 address of their own.
	Pods []*corev1.Pod
	// Namespaces holds the labels of each namespace.
	Namespaces map[string]labels.Set
	Policies   []*networkingv1.NetworkPolicy
}

// direction is one of the two halves of a policy, with the header field that names the peer.
type direction struct {
	policyType networkingv1.PolicyType
	chain      string
	subject    string
	peer       string
}

var (
	ingress = direction{networkingv1.PolicyTypeIngress, "ingress", "daddr", "saddr"}
	egress  = direction{networkingv1.PolicyTypeEgress, "egress", "saddr", "daddr"}
)

// rule is an ingress or egress rule of a policy.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// peer is one address or block that a rule allows; pod is nil for a block and for "anyone".
type peer struct {
	match string
	pod   *corev1.Pod
}

// Render writes the policies as an nft script that replaces the whole table in one transaction.
//
// A pod that at least one policy of a direction selects gets a chain which
// returns for what those policies allow and rejects the rest. Traffic of the
// node itself (kubelet probes, commands run on the node) is output, not
// forwarded, and so is never filtered; Kubernetes asks for that. Egress also
// filters the input hook, where a pod reaches the node, API server included.
// A port's name is resolved at the destination pod; towards an ipBlock, or
// in an egress rule without peers, a named port therefore allows nothing.
func Render(state State) (string, error) {
	pods := slices.SortedFunc(slices.Values(state.Pods), func(a, b *corev1.Pod) int {
		return cmp.Compare(a.Status.PodIP, b.Status.PodIP)
	})
	var chains, forward, input strings.Builder
	for _, pod := range pods {
		for _, direction := range []direction{ingress, egress} {
			allowed, isolated, err := state.allowed(direction, pod)
			if err != nil {
				return "", err
			}
			if !isolated {
				continue
			}
			ip := pod.Status.PodIP
			jump := fmt.Sprintf("    ip %s %s jump %s_%s\n", direction.subject, ip, direction.chain, ip)
			forward.WriteString(jump)
			if direction == egress {
				input.WriteString(jump)
			}
			writeChain(&chains, direction, ip, allowed)
		}
	}
	return fmt.Sprintf(script, &chains, &forward, &input), nil
}

// script starts with an empty declaration because deleting a table that is not there is an error.
const script = `table inet netpol
delete table inet netpol
table inet netpol {
%s  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
%s  }
  chain input {
    type filter hook input priority filter; policy accept;
    ct state established,related accept
%s  }
}
`

// writeChain rejects with an ICMP error of its own, so that a refused connection
// fails at once and is told apart from a closed port.
func writeChain(out *strings.Builder, direction direction, ip string, allowed []string) {
	fmt.Fprintf(out, "  chain %s_%s {\n", direction.chain, ip)
	fmt.Fprintf(out, "    ip %s %s return\n", direction.peer, ip) // a pod always reaches itself
	for _, match := range allowed {
		fmt.Fprintf(out, "    %s\n", strings.TrimSpace(match+" return"))
	}
	out.WriteString("    reject with icmpx type admin-prohibited\n  }\n")
}

// allowed lists what the policies of a direction let through for a pod; isolated says whether there are any.
func (s State) allowed(direction direction, subject *corev1.Pod) (matches []string, isolated bool, err error) {
	for _, policy := range s.Policies {
		if policy.Namespace != subject.Namespace || !slices.Contains(policy.Spec.PolicyTypes, direction.policyType) {
			continue
		}
		selected, err := selects(&policy.Spec.PodSelector, subject.Labels)
		if err != nil {
			return nil, false, fmt.Errorf("%s/%s: podSelector: %w", policy.Namespace, policy.Name, err)
		}
		if !selected {
			continue
		}
		isolated = true
		for _, rule := range rules(direction, policy) {
			found, err := s.ruleMatches(direction, policy.Namespace, rule, subject)
			if err != nil {
				return nil, false, fmt.Errorf("%s/%s: %w", policy.Namespace, policy.Name, err)
			}
			matches = append(matches, found...)
		}
	}
	slices.Sort(matches)
	return slices.Compact(matches), isolated, nil
}

func rules(direction direction, policy *networkingv1.NetworkPolicy) (all []rule) {
	if direction == ingress {
		for _, r := range policy.Spec.Ingress {
			all = append(all, rule{r.From, r.Ports})
		}
		return all
	}
	for _, r := range policy.Spec.Egress {
		all = append(all, rule{r.To, r.Ports})
	}
	return all
}

// ruleMatches is every combination of a rule's peers and ports.
func (s State) ruleMatches(direction direction, namespace string, rule rule, subject *corev1.Pod) (matches []string, err error) {
	peers, err := s.peers(direction, namespace, rule.peers)
	if err != nil {
		return nil, err
	}
	for _, peer := range peers {
		destination := peer.pod
		if direction == ingress {
			destination = subject
		}
		for _, port := range portMatches(rule.ports, destination) {
			matches = append(matches, strings.TrimSpace(peer.match+" "+port))
		}
	}
	return matches, nil
}

func (s State) peers(direction direction, namespace string, specs []networkingv1.NetworkPolicyPeer) (all []peer, err error) {
	if len(specs) == 0 {
		return []peer{{}}, nil
	}
	for _, spec := range specs {
		if spec.IPBlock != nil {
			if match := blockMatch(direction, spec.IPBlock); match != "" {
				all = append(all, peer{match: match})
			}
			continue
		}
		for _, pod := range s.Pods {
			selected, err := s.selectsPeer(namespace, spec, pod)
			if err != nil {
				return nil, err
			}
			if selected {
				all = append(all, peer{fmt.Sprintf("ip %s %s", direction.peer, pod.Status.PodIP), pod})
			}
		}
	}
	return all, nil
}

// selectsPeer applies the two selectors: without a namespaceSelector only the policy's namespace counts.
func (s State) selectsPeer(namespace string, spec networkingv1.NetworkPolicyPeer, pod *corev1.Pod) (bool, error) {
	if spec.NamespaceSelector == nil && pod.Namespace != namespace {
		return false, nil
	}
	if spec.NamespaceSelector != nil {
		if selected, err := selects(spec.NamespaceSelector, s.Namespaces[pod.Namespace]); err != nil || !selected {
			return false, err
		}
	}
	if spec.PodSelector == nil {
		return true, nil
	}
	return selects(spec.PodSelector, pod.Labels)
}

func selects(spec *metav1.LabelSelector, set labels.Set) (bool, error) {
	selector, err := metav1.LabelSelectorAsSelector(spec)
	if err != nil {
		return false, err
	}
	return selector.Matches(set), nil
}

// blockMatch is empty for an IPv6 block: the cluster's pods have none to match.
func blockMatch(direction direction, block *networkingv1.IPBlock) string {
	if prefix, err := netip.ParsePrefix(block.CIDR); err != nil || !prefix.Addr().Is4() {
		return ""
	}
	match := fmt.Sprintf("ip %s %s", direction.peer, block.CIDR)
	for _, except := range block.Except {
		match += fmt.Sprintf(" ip %s != %s", direction.peer, except)
	}
	return match
}

// portMatches is one empty match for a rule that names no ports, and none for a name the destination lacks.
func portMatches(specs []networkingv1.NetworkPolicyPort, destination *corev1.Pod) (matches []string) {
	if len(specs) == 0 {
		return []string{""}
	}
	for _, spec := range specs {
		protocol := corev1.ProtocolTCP
		if spec.Protocol != nil {
			protocol = *spec.Protocol
		}
		name := strings.ToLower(string(protocol))
		if spec.Port == nil {
			matches = append(matches, "meta l4proto "+name)
			continue
		}
		port := spec.Port.IntVal
		if spec.Port.Type == intstr.String {
			port = namedPort(destination, spec.Port.StrVal, protocol)
		}
		switch {
		case port == 0:
		case spec.EndPort != nil:
			matches = append(matches, fmt.Sprintf("%s dport %d-%d", name, port, *spec.EndPort))
		default:
			matches = append(matches, fmt.Sprintf("%s dport %d", name, port))
		}
	}
	return matches
}

// namedPort is 0 when the pod is unknown or has no port of that name and protocol.
func namedPort(pod *corev1.Pod, name string, protocol corev1.Protocol) int32 {
	if pod == nil {
		return 0
	}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && cmp.Or(port.Protocol, corev1.ProtocolTCP) == protocol {
				return port.ContainerPort
			}
		}
	}
	return 0
}
