// What the upstreams of the tests hold, and by which name containerd asks for it.

import { arch } from 'node:os';
import { type Blob, type Image, type Layer, makeImage, makeIndex, seeded } from './image.ts';
import type { Upstream } from './upstream.ts';

export type PushedImage = {
  reference: string;
  /** As containerd names it to a mirror, in `?ns=`. */
  registry: string;
  /** Each digest that a pull needs, with the paths at which its upstream has it: a manifest also by its tag. */
  digests: ReadonlyMap<string, readonly string[]>;
  files: Map<string, string>;
};

export type PushedIndex = PushedImage & {
  /** Where the other platform's manifest, configuration and layers are. */
  foreignPaths: ReadonlySet<string>;
};

const architecture = arch() === 'x64' ? 'amd64' : arch();
const foreignArchitecture = architecture === 'arm64' ? 'amd64' : 'arm64';
const tag = '1';
const large = 24 * 1024 * 1024;
const small = 300_000;

/** One of Docker Hub's own, one of an organisation on ghcr.io, and one that is asked for by its digest. */
export async function pushImages(hub: Upstream, ghcr: Upstream): Promise<PushedImage[]> {
  const [web, tool, base] = await Promise.all([
    makeImage('docker', architecture, layersOf('web', large)),
    makeImage('oci', architecture, layersOf('tool', small)),
    makeImage('oci', architecture, layersOf('base', small).slice(0, 1)),
  ]);
  await hub.push('library/web', tag, web);
  await ghcr.push('acme/tool', tag, tool);
  await ghcr.push('acme/base', tag, base);
  return [
    {
      registry: 'docker.io',
      reference: `docker.io/library/web:${tag}`,
      digests: digestsOf('library/web', web, tag),
      files: web.files,
    },
    {
      registry: 'ghcr.io',
      reference: `ghcr.io/acme/tool:${tag}`,
      digests: digestsOf('acme/tool', tool, tag),
      files: tool.files,
    },
    {
      registry: 'ghcr.io',
      reference: `ghcr.io/acme/base@${base.manifest.digest}`,
      digests: digestsOf('acme/base', base, tag),
      files: base.files,
    },
  ];
}

/** One name for two platforms, this machine's and another. */
export async function pushIndex(hub: Upstream): Promise<PushedIndex> {
  const [own, foreign] = await Promise.all([
    makeImage('oci', architecture, layersOf('multi', small)),
    makeImage('oci', foreignArchitecture, layersOf('multi for another platform', small)),
  ]);
  const platforms = new Map([
    [foreignArchitecture, foreign],
    [architecture, own],
  ]);
  const index = makeIndex('oci', platforms);
  await hub.push('library/multi', tag, index);
  return {
    registry: 'docker.io',
    reference: `docker.io/library/multi:${tag}`,
    digests: new Map([
      manifestPaths('library/multi', index.manifest, tag),
      ...digestsOf('library/multi', own),
    ]),
    files: own.files,
    foreignPaths: new Set([...digestsOf('library/multi', foreign).values()].flat()),
  };
}

/** Files, a link, a large layer, and a last layer that changes and removes what came before. */
function layersOf(name: string, size: number): Layer[] {
  return [
    [
      { kind: 'directory', path: 'etc' },
      { kind: 'file', path: 'etc/name', content: Buffer.from(`${name}\n`) },
      { kind: 'file', path: 'etc/obsolete', content: Buffer.from('to be removed\n') },
      { kind: 'directory', path: 'old' },
      { kind: 'file', path: 'old/file', content: seeded(`${name} old`, 1000) },
      { kind: 'link', path: 'etc/alias', target: '../etc/name' },
    ],
    [
      { kind: 'directory', path: 'bin' },
      { kind: 'file', path: 'bin/program', content: seeded(`${name} program`, size), mode: 0o755 },
    ],
    [
      { kind: 'removed', path: 'etc/obsolete' },
      { kind: 'removed', path: 'old' },
      { kind: 'file', path: 'etc/name', content: Buffer.from(`${name}, changed\n`), mode: 0o600 },
    ],
  ];
}

/** The paths of an image that has a tag, or, as an entry of an index, none. */
function digestsOf(repository: string, image: Image, ...tags: string[]): Map<string, string[]> {
  const blobs = image.blobs.map(({ digest }): [string, string[]] => [
    digest,
    [`/v2/${repository}/blobs/${digest}`],
  ]);
  return new Map([manifestPaths(repository, image.manifest, ...tags), ...blobs]);
}

function manifestPaths(repository: string, { digest }: Blob, ...tags: string[]): [string, string[]] {
  return [digest, [digest, ...tags].map((reference) => `/v2/${repository}/manifests/${reference}`)];
}
