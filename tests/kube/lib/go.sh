# shellcheck shell=bash
# Settings of every go command here: with other ones all of Kubernetes would be compiled once more.
# The stamp says what a binary was made from, and nobody steps through it with a debugger: without what that needs, and
# with a compiler that collects its garbage less often, a build takes less of two cores.
export CGO_ENABLED=0
export GOFLAGS="-buildvcs=false -trimpath -gcflags=all=-dwarf=false"
export GOGC=400
