# Static binaries and nothing else: no shell, no libc, no package manager.
# `make static` puts the binaries where COPY takes them from.

FROM scratch AS portolan-bridge
COPY target/dist/portolan-bridge /portolan-bridge
USER 65532:65532
ENTRYPOINT ["/portolan-bridge"]

FROM scratch AS portolan
COPY target/dist/portolan /portolan
USER 65532:65532
ENTRYPOINT ["/portolan"]
