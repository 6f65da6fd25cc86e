import { isIP } from 'node:net';

/** A registry host as it stands in a reference: lower case, with its port only where one was written. */
const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const HOST = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[[0-9a-f:.]+\\])(?::[0-9]{1,5})?$`);
const MAX_HOST_LENGTH = 253 + ':65535'.length;

/**
 * Reads a registry host (`ghcr.io`, `harbor.corp:8443`, `[fd00::5]:5000`). Docker Hub's other names are
 * `docker.io`, because that is the name under which every runtime looks up its mirrors.
 * `undefined` when the text is no host, or its port is out of range.
 */
export function parseHost(text: string): string | undefined {
  const host = parseAuthority(text);
  return host !== undefined && DOCKER_HUB_NAMES.has(host) ? DOCKER_HUB : host;
}

/** Reads a host with or without a port, for what it is: `registry-1.docker.io` stays that. */
export function parseAuthority(text: string): string | undefined {
  const host = text.toLowerCase();
  if (host.length > MAX_HOST_LENGTH || !HOST.test(host)) return undefined;
  const port = /:([0-9]+)$/.exec(host.replace(/^\[.*\]/, ''))?.[1];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535)) return undefined;
  return host;
}

/** Whether a runtime pulls from this host without TLS: containerd and Docker do on the loopback, CRI-O nowhere. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '').replaceAll(/[[\]]/g, '');
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

export const DOCKER_HUB = 'docker.io';
const DOCKER_HUB_NAMES: ReadonlySet<string> = new Set([
  'docker.io',
  'index.docker.io',
  'registry-1.docker.io',
  'registry.hub.docker.com',
]);
