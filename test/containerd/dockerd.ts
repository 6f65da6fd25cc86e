// A real dockerd for one test, in a mount namespace of its own as the containerds of these tests: it starts a
// containerd of its own there, and has an /etc that it may write to, which ends with it. It runs no container.

import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import * as z from 'zod';
import { provide } from '../tools/cache.ts';
import { start } from '../tools/child.ts';
import { DOCKERDS, provideProgram } from '../tools/debian-programs.ts';
import { recipe } from './containerd.ts';

export const dockerVersions = ['20.10', '26.1'] as const;
export type DockerVersion = (typeof dockerVersions)[number];

export type RealDockerd = {
  readonly pid: number;
  /** Where its file system is seen from here. */
  readonly root: string;
  /** @throws Error with what it says when it cannot. */
  pull: (repository: string, tag: string) => Promise<void>;
  removeImages: () => Promise<void>;
  /** The digests by which it knows an image. */
  digests: (name: string) => Promise<readonly string[]>;
  /** What it goes by. */
  mirrors: () => Promise<readonly string[]>;
  stop: () => Promise<void>;
};

const home = '/run/weir';
// dockerd looks for a runc, and has nothing to run by it.
const script = `mount -o remount,bind,ro / && mount -t tmpfs tmpfs /run && mkdir -p ${home}/bin ${home}/root
cp -a /etc ${home}/etc && mount --bind ${home}/etc /etc && rm -rf /etc/docker
printf '#!/bin/sh\\necho runc version 1.1.5\\n' >${home}/bin/runc && chmod +x ${home}/bin/runc && exec "$@"`;
const flags = [
  `--data-root=${home}/root`,
  `--exec-root=${home}/exec`,
  `--pidfile=${home}/pid`,
  '--host=unix:///run/docker.sock',
  '--storage-driver=vfs',
  '--bridge=none',
  '--iptables=false',
  '--ip6tables=false',
  '--userland-proxy=false',
];

export async function startDockerd(version: DockerVersion): Promise<RealDockerd> {
  const dockerd = await provideProgram(DOCKERDS[version]);
  const containerd = await provide(recipe(version === '20.10' ? '1.6' : '1.7'));
  const { PATH } = process.env;
  const command = ['sh', '-c', script, 'sh', dockerd, ...flags];
  const daemon = await start('unshare', ['--mount', '--propagation', 'private', ...command], {
    env: { PATH: `${containerd}:${home}/bin:${PATH}`, TMPDIR: home },
    ready: (child) => child.line(/API listen on/),
  });
  const root = join('/proc', String(daemon.pid), 'root');
  const ask = (method: string, path: string): Promise<string> =>
    answerOf(join(root, 'run/docker.sock'), method, path);
  return {
    pid: daemon.pid,
    root,
    pull: async (repository, tag) => {
      const lines = await ask(
        'POST',
        `/images/create?fromImage=${encodeURIComponent(repository)}&tag=${tag}`,
      );
      if (lines.includes('"errorDetail"')) throw new Error(lines.trim().split('\n').at(-1));
    },
    removeImages: async () => {
      for (const { Id } of imagesSchema.parse(JSON.parse(await ask('GET', '/images/json'))))
        await ask('DELETE', `/images/${Id}?force=1`);
    },
    digests: async (name) =>
      imageSchema
        .parse(JSON.parse(await ask('GET', `/images/${name}/json`)))
        .RepoDigests.map((digest) => digest.replace(/^.*@/, '')),
    mirrors: async () => infoSchema.parse(JSON.parse(await ask('GET', '/info'))).RegistryConfig.Mirrors ?? [],
    stop: async () => {
      await daemon.stop();
    },
  };
}

const imagesSchema = z.array(z.object({ Id: z.string() }));
const imageSchema = z.object({ RepoDigests: z.array(z.string()) });
const infoSchema = z.object({ RegistryConfig: z.object({ Mirrors: z.array(z.string()).nullable() }) });

async function answerOf(socketPath: string, method: string, path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request({ socketPath, method, path, headers: { host: 'docker' } }, resolve)
    .on('error', reject)
    .end();
  const response = await promise;
  const body = await text(response);
  if ((response.statusCode ?? 500) >= 300)
    throw new Error(`${method} ${path}: ${response.statusCode} ${body}`);
  return body;
}
