// Command coredns is CoreDNS with the plugins that the test cluster's Corefile
// names: the rest of them (clouds, tracing) would take longer to compile than
// all of Kubernetes' own controllers.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	coremain.Run()
}
