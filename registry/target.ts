import type { Config, Upstream } from '../config/config.ts';
import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from './store.ts';

/** A repository at an upstream, with the configuration that was in force when it was asked for. */
export interface Target {
  readonly config: Config;
  readonly upstream: Upstream;
  readonly repository: string;
  /** The Via header of the request that this is done for, so that a loop through several mirrors is seen. */
  readonly via?: string;
}

export function keyOf({ upstream, repository }: Target): RepositoryKey {
  return { host: upstream.host, repository };
}

/** `docker.io/library/nginx` */
export function nameOf({ upstream, repository }: Target): string {
  return `${upstream.host}/${repository}`;
}

/** `docker.io/library/nginx@sha256:…` */
export function digestName(target: Target, digest: Digest): string {
  return `${nameOf(target)}@${digest}`;
}
