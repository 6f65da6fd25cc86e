# The image of all programs: Node and the bundled command, nothing else. It needs a builder that knows secrets
# (BuildKit, or buildah 1.24 and newer):
#
#   docker build --build-arg VERSION=… --build-arg REVISION=… --tag weir .
#   docker build --secret id=npmrc,src=$HOME/.npmrc …        where packages do not come from npm's own registry
#
# The same sources and bases give the same layer, once timestamps are fixed: `buildah bud --timestamp SECONDS`, or
# BuildKit's SOURCE_DATE_EPOCH with the output's `rewrite-timestamp=true`.
#
# Bases are pinned by the digest of their index, which covers every platform. For newer ones ask for the digests of
# the tags (`crane digest node:24-trixie-slim`), see that both platforms are there (`crane manifest`), and write them
# here. A base of one's own, given as an argument, has to have Node 24 where these have it.
ARG BUILD_BASE=docker.io/library/node:24-trixie-slim@sha256:6950b66b4c0cb0151ce89fa75074673850763d096b044f422c6729b588dd4956
ARG BASE=gcr.io/distroless/nodejs24-debian13:nonroot@sha256:bb6b03d81066993293a10feda7250e8e1cc034035fe9b61cfceededa7c8bf04d

# What comes out is JavaScript for any platform, so it is built on the builder's own.
FROM --platform=$BUILDPLATFORM ${BUILD_BASE} AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc npm ci --ignore-scripts --no-update-notifier
COPY . .
RUN node build/main.ts /weir

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="weir" \
      org.opencontainers.image.description="Every node of a Kubernetes cluster pulls its images through the cluster's own cache, without a change to any Pod." \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /weir /weir
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/nodejs/bin/node", "/weir/main.js"]
