import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout } from 'node:timers/promises';
import { type Child, startChild } from './child.ts';

const MAIN = join(import.meta.dirname, '..', 'cli', 'main.ts');
/** Between looks at the metrics, which cost what they look at some milliseconds of processor time each. */
const FIRST_LOOK_MS = 5;
const LAST_LOOK_MS = 250;
/** The registry host for which the distant upstream stands. */
export const HOST = 'registry.example';
const CA_FILE = 'upstream-ca.pem';

export interface WeirOptions {
  /** Directory for the configuration and the output. */
  readonly directory: string;
  /** As `--store` takes it. */
  readonly store: string;
  readonly upstreamUrl: string;
  /** A duration as the configuration writes it. */
  readonly tagTtl?: string;
  /** A command that runs the one that is given to it as parameters. */
  readonly wrapper?: readonly string[];
  /** Flags for Node. */
  readonly nodeFlags?: readonly string[];
  /** PEM of the authority that the upstream's certificate is of, where it has one. */
  readonly ca?: string | undefined;
  /** With `tls.crt` and `tls.key`, where it is to speak TLS. */
  readonly certDir?: string;
}

/** `weir registry`, as it is run in a cluster. */
export class WeirProcess {
  readonly #child: Child;
  readonly #options: WeirOptions;
  readonly url: string;

  private constructor(child: Child, options: WeirOptions, url: string) {
    this.#child = child;
    this.#options = options;
    this.url = url;
  }

  static async start(options: WeirOptions): Promise<WeirProcess> {
    count += 1;
    const { directory, store, wrapper = [], nodeFlags = [] } = options;
    await writeConfiguration(options);
    // Where the store is no directory; it is gone with the other one then, also after a SIGKILL.
    const spool = join(directory, `spool-${count}`);
    if (!store.startsWith('file:')) await mkdir(spool);
    const parameters = [
      ...nodeFlags,
      MAIN,
      'registry',
      '--config',
      configFile(directory),
      '--listen',
      '127.0.0.1:0',
      '--store',
      store,
      ...(store.startsWith('file:') ? [] : ['--spool-dir', spool]),
      ...(options.ca === undefined ? [] : ['--ca-dir', directory]),
      ...(options.certDir === undefined ? [] : ['--cert-dir', options.certDir]),
    ];
    const [command, ...rest] = [...wrapper, process.execPath, ...parameters];
    const child = await startChild(command ?? process.execPath, rest, join(directory, `weir-${count}.log`));
    const url = await child.match(/"url":"(https?:[^"]+)".*the registry answers/);
    return new WeirProcess(child, options, url);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Has the configuration name another upstream; it is in force a little later. */
  async redirect(upstreamUrl: string): Promise<void> {
    await writeConfiguration({ ...this.#options, upstreamUrl });
  }

  /** The sum of a metric over its labels. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    const samples = text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'));
    return samples.reduce((sum, [, value]) => sum + Number(value), 0);
  }

  /** Resolves when no blob is being read from an upstream any more. */
  async settled(): Promise<void> {
    let pause = FIRST_LOOK_MS;
    while ((await this.metric('weir_registry_fills')) > 0) {
      await setTimeout(pause);
      pause = Math.min(2 * pause, LAST_LOOK_MS);
    }
  }

  async output(): Promise<string> {
    return await this.#child.output();
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#child.stop(signal);
  }
}

async function writeConfiguration({ directory, upstreamUrl, tagTtl = '1h', ca }: WeirOptions): Promise<void> {
  if (ca !== undefined) await writeFile(join(directory, CA_FILE), ca);
  const trust = ca === undefined ? '' : `, ca: ${CA_FILE}`;
  const upstream = `{ endpoint: "${upstreamUrl}", tags: { ttl: ${tagTtl} }${trust} }`;
  await writeFile(configFile(directory), `upstreams:\n  ${HOST}: ${upstream}\n`);
}

function configFile(directory: string): string {
  return join(directory, 'config.yaml');
}

let count = 0;
