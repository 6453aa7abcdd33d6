# Built on this machine for whatever machine is asked for (docker buildx build --platform linux/arm64 ...).
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
WORKDIR /src
# In layers that change from seldom to often: packages, the crates we use, our own code.
COPY scripts scripts
RUN scripts/need build dist && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src && touch src/lib.rs && cargo fetch --locked
COPY . .
# Docker calls machines as Debian does, but for armhf, which is arm. Nothing is said where nothing else is asked for.
ARG TARGETARCH
RUN machine=$(awk -v docker="$TARGETARCH" '$4 == docker || $4 == docker "hf" { print $1 }' scripts/machines) && \
    make dist ${machine:+MACHINE=$machine}

FROM scratch
COPY --from=build /src/dist/ebpf-sidecar-* /ebpf-sidecar
# Inside a container, loopback is nobody's.
ENV EBPF_SIDECAR_SERVER_HTTP_ADDRESS=0.0.0.0 \
    EBPF_SIDECAR_SERVER_GRPC_ADDRESS=0.0.0.0
EXPOSE 8080 9090
ENTRYPOINT ["/ebpf-sidecar"]
