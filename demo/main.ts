/**
 * `npm run demo`: weir's main job, for real, on one machine and its filesystem store. An upstream with a
 * generated image is started for it; `--image nginx:latest` pulls from the real one instead, and `--keep` stays.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { access, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { formatReference, parseReference } from '../oci/reference.ts';
import { describe } from '../process/lifecycle.ts';
import { makeImage, noise } from '../test/support/image.ts';
import { UpstreamRegistry } from '../test/support/upstream-registry.ts';
import { type Pulled, pull } from './pull.ts';

const { values } = parseArgs({
  options: {
    image: { type: 'string' },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log('npm run demo -- [--image IMAGE] [--keep]');
  process.exit(0);
}

const root = join(import.meta.dirname, '..');
const directory = await mkdtemp(join(tmpdir(), 'weir-demo-'));
const configFile = join(directory, 'config.yaml');
const certsDir = join(directory, 'certs.d');

const upstream = values.image === undefined ? await startUpstream() : undefined;
const image = values.image ?? 'hello-weir:1';
const { host } = parseReference(image);
const configuration = `upstreams:\n  ${host}: ${upstream === undefined ? '{}' : `{ endpoint: "${upstream.url}" }`}\n`;
await writeFile(configFile, configuration);

const weir = spawn(
  process.execPath,
  [
    join(root, 'cli', 'main.ts'),
    '--log-level',
    'info',
    'standalone',
    '--config',
    configFile,
    '--data',
    join(directory, 'data'),
    '--listen',
    '127.0.0.1:0',
    '--certs-dir',
    certsDir,
    '--state-dir',
    join(directory, 'state'),
  ],
  { stdio: ['ignore', 'ignore', 'pipe'] },
);
process.on('exit', () => weir.kill('SIGKILL'));
const ended = once(weir, 'exit');

try {
  const mirror = await mirrorUrl();
  step('The configuration', configuration);
  await fileThere(join(certsDir, host, 'hosts.toml'));
  step(
    `What weir wrote for containerd: ${join(certsDir, host, 'hosts.toml')}`,
    await readFile(join(certsDir, host, 'hosts.toml'), 'utf8'),
  );

  const before = await upstreamRequests(mirror);
  const cold = await pull(mirror, image);
  const between = await upstreamRequests(mirror);
  step(`Cold pull of ${image}`, `${tell(cold)}; requests to the upstream: ${between - before}\n`);
  const warm = await pull(mirror, image);
  const afterwards = await upstreamRequests(mirror);
  step(`Warm pull of ${image}`, `${tell(warm)}; requests to the upstream: ${afterwards - between}\n`);

  const edited = `${configuration}  registry.k8s.io: { direct: false }\n`;
  const began = performance.now();
  await writeFile(configFile, edited);
  await fileThere(join(certsDir, 'registry.k8s.io', 'hosts.toml'));
  const took = Math.round(performance.now() - began);
  step(
    `An edit of the configuration, and the file that is there ${took} ms later`,
    `${edited}\n${await readFile(join(certsDir, 'registry.k8s.io', 'hosts.toml'), 'utf8')}`,
  );

  if (values.keep) await stay(mirror);
  console.log(
    `${image}: ${tell(cold)} cold with ${between - before} upstream requests, ${tell(warm)} warm with ${afterwards - between}.`,
  );
  console.log(
    'Nodes did not need to be restarted and no Pod was changed: containerd reads hosts.toml at every pull.',
  );
} catch (error) {
  console.error(`The demo failed: ${describe(error)}`);
  process.exitCode = 1;
} finally {
  weir.kill('SIGTERM');
  await ended;
  await upstream?.stop();
  await rm(directory, { recursive: true, force: true });
}

/** Stands for Docker Hub, with a real OCI image of three layers, and wants a token as Docker Hub does. */
async function startUpstream(): Promise<UpstreamRegistry> {
  const registry = await UpstreamRegistry.start();
  registry.tokens = true;
  const layers = [
    { 'etc/motd': 'hello from weir\n' },
    { 'usr/lib/data': noise(24_000_000, 1) },
    { 'usr/lib/more': noise(8_000_000, 2) },
  ];
  registry.push('library/hello-weir', '1', await makeImage(layers));
  return registry;
}

/** The port that weir took, from its log. */
async function mirrorUrl(): Promise<string> {
  const lines: string[] = [];
  for await (const line of createInterface({ input: weir.stderr })) {
    lines.push(line);
    const url = /"url":"(http:[^"]+)".*the registry answers/.exec(line)?.[1];
    if (url === undefined) continue;
    weir.stderr.resume();
    return url;
  }
  throw new Error(`weir did not start:\n${lines.join('\n')}`);
}

async function upstreamRequests(mirror: string): Promise<number> {
  if (upstream !== undefined) return upstream.seen.length;
  const text = await (await fetch(`${mirror}/metrics`)).text();
  const counts = text.matchAll(/^weir_upstream_requests_total\{.*\} (\d+)$/gm);
  return counts.reduce((sum, [, count]) => sum + Number(count), 0);
}

/** Resolves when the file is there. */
async function fileThere(path: string): Promise<void> {
  await mkdir(certsDir, { recursive: true });
  const watcher = watch(certsDir, { recursive: true });
  const seen = Promise.withResolvers<void>();
  const look = (): void => void access(path).then(seen.resolve, () => undefined);
  watcher.on('change', look);
  look();
  await Promise.race([seen.promise, ended.then(() => Promise.reject(new Error('weir ended')))]).finally(() =>
    watcher.close(),
  );
}

async function stay(mirror: string): Promise<void> {
  step(
    'weir stays up; press Ctrl-C to end it',
    [
      `containerd: config_path = "${certsDir}" under [plugins."io.containerd.grpc.v1.cri".registry] (1.x) or`,
      '            [plugins."io.containerd.cri.v1.images".registry] (2.x), and restart it once;',
      `            or try it without: ctr images pull --hosts-dir ${certsDir} ${formatReference(parseReference(image))}`,
      `Docker:     { "registry-mirrors": ["${mirror}"] } in /etc/docker/daemon.json, then kill -HUP dockerd`,
      `anything:   ${new URL(mirror).host}/${host}/… in place of ${host}/…`,
      '',
    ].join('\n'),
  );
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM'), ended]);
}

function step(title: string, text: string): void {
  console.log(`── ${title}\n${text.replaceAll(/^(?=.)/gm, '   ')}`);
}

function tell({ bytes, layers, milliseconds }: Pulled): string {
  return `${(bytes / 1e6).toFixed(1)} MB, ${layers} layers, in ${Math.round(milliseconds)} ms`;
}
