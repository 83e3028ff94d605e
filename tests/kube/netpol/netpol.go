// Package netpol enforces NetworkPolicies on a single node whose pods are
// routed (CNI plugin ptp), so that all traffic between pods crosses the forward
// hook. It renders the policies as one nftables table and replaces that table
// whenever a policy, a pod or a namespace changes what it says.
package netpol

import (
	"context"
	"fmt"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// settle bounds how often the table is rendered while a burst of events comes in.
const settle = 20 * time.Millisecond

// retry is how long a table that nft refused waits for its next attempt.
const retry = time.Second

// NewCommand is the component's command line.
func NewCommand() *cobra.Command {
	var kubeconfig string
	command := &cobra.Command{
		Use:   "netpol",
		Short: "Enforce NetworkPolicies with nftables in the current network namespace",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return fmt.Errorf("read --kubeconfig: %w", err)
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("make a client: %w", err)
			}
			return enforce(ctx, client)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "file that says how to reach the API server")
	if err := command.MarkFlagRequired("kubeconfig"); err != nil {
		panic(err)
	}
	return command
}

// enforce keeps the table in step with the cluster until ctx ends.
func enforce(ctx context.Context, client kubernetes.Interface) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	source := source{factory}
	changed, err := source.changes()
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("list %v: stopped before it was complete", kind)
		}
	}

	applied := ""
	for {
		delay := settle
		if err := source.apply(ctx, &applied); err != nil {
			klog.ErrorS(err, "The table was not replaced; trying again", "after", retry)
			delay = retry
			notify(changed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// source reads the cluster's state from informers.
type source struct {
	informers.SharedInformerFactory
}

// changes registers the informers; the channel holds a value after any of them saw an event.
func (s source) changes() (chan struct{}, error) {
	changed := make(chan struct{}, 1)
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify(changed) },
		UpdateFunc: func(any, any) { notify(changed) },
		DeleteFunc: func(any) { notify(changed) },
	}
	for _, informer := range []cache.SharedIndexInformer{
		s.Core().V1().Pods().Informer(),
		s.Core().V1().Namespaces().Informer(),
		s.Networking().V1().NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
	}
	return changed, nil
}

func notify(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default: // one pending value stands for any number of events
	}
}

// apply renders the state and loads it, unless it reads as what was applied last.
func (s source) apply(ctx context.Context, applied *string) error {
	state, err := s.state()
	if err != nil {
		return err
	}
	table, err := Render(state)
	if err != nil {
		return err
	}
	if table == *applied {
		return nil
	}
	nft := exec.CommandContext(ctx, "nft", "-f", "-")
	nft.Stdin = strings.NewReader(table)
	if output, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, output)
	}
	*applied = table
	klog.InfoS("Replaced the table", "policies", len(state.Policies), "pods", len(state.Pods))
	return nil
}

func (s source) state() (State, error) {
	pods, err := s.Core().V1().Pods().Lister().List(labels.Everything())
	if err != nil {
		return State{}, err
	}
	policies, err := s.Networking().V1().NetworkPolicies().Lister().List(labels.Everything())
	if err != nil {
		return State{}, err
	}
	namespaces, err := s.Core().V1().Namespaces().Lister().List(labels.Everything())
	if err != nil {
		return State{}, err
	}
	state := State{Policies: policies, Namespaces: map[string]labels.Set{}}
	for _, namespace := range namespaces {
		state.Namespaces[namespace.Name] = namespace.Labels
	}
	for _, pod := range pods {
		if hasOwnAddress(pod) {
			state.Pods = append(state.Pods, pod)
		}
	}
	return state, nil
}

// hasOwnAddress excludes pods on the node's address and ended pods, whose address another may hold by now.
func hasOwnAddress(pod *corev1.Pod) bool {
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	return !ended && !pod.Spec.HostNetwork && pod.Status.PodIP != ""
}
