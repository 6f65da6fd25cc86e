import { join } from 'node:path';
import process from 'node:process';
import { makeIdentity } from '../test/support/certificates.ts';
import { type Child, startChild } from './child.ts';
import {
  type Fault,
  type LinkSettings,
  listeningSchema,
  type Pushed,
  pushedSchema,
  type Seen,
  type SeenRequest,
  seenSchema,
} from './upstream-control.ts';

const MAIN = join(import.meta.dirname, 'distant-upstream.ts');

/** The distant upstream, started and told what to do. */
export class UpstreamProcess {
  readonly #child: Child;
  readonly #control: string;
  /** `http://127.0.0.1:PORT` of the registry, or `https:`. */
  readonly url: string;
  /** PEM of the authority that its certificate is of, with TLS. */
  readonly ca: string | undefined;
  #images = 0;

  private constructor(child: Child, ports: { data: number; control: number }, ca: string | undefined) {
    this.#child = child;
    this.ca = ca;
    this.url = `${ca === undefined ? 'http' : 'https'}://127.0.0.1:${ports.data}`;
    this.#control = `http://127.0.0.1:${ports.control}`;
  }

  /** `directory`: for its output, and its certificate. */
  static async start(directory: string, { tokens = false, tls = false } = {}): Promise<UpstreamProcess> {
    const identity = tls ? await makeIdentity(directory, ['IP:127.0.0.1']) : undefined;
    const flags = [...(tokens ? ['--tokens'] : []), ...(tls ? ['--tls', directory] : [])];
    const child = await startChild(process.execPath, [MAIN, ...flags], join(directory, 'upstream.log'));
    const ports: unknown = JSON.parse(await child.match(/^(\{.*\})$/m));
    return new UpstreamProcess(child, listeningSchema.parse(ports), identity?.ca);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** An image with layers of these sizes that nobody has pulled yet. */
  async push(sizes: readonly number[]): Promise<Pushed> {
    this.#images += 1;
    return pushedSchema.parse(
      await this.#tell('/images', { repository: `bench/image-${this.#images}`, sizes }),
    );
  }

  async setFault(fault: Fault): Promise<void> {
    await this.#tell('/fault', fault);
  }

  async setLink(settings: LinkSettings): Promise<void> {
    await this.#tell('/link', settings);
  }

  /** Closes connections on which nothing is asked at the moment. */
  async closeIdle(): Promise<void> {
    await this.#tell('/close-idle');
  }

  /** Has connections refused until {@link resume}. */
  async refuse(): Promise<void> {
    await this.#tell('/stop');
  }

  async resume(): Promise<void> {
    await this.#tell('/resume');
  }

  /** What it was asked since it was started, or since {@link forget}. */
  async seen(): Promise<Seen> {
    return seenSchema.parse(await (await fetch(this.#control)).json());
  }

  async forget(): Promise<void> {
    await this.#tell('/forget');
  }

  /** The requests with this method for what ends so. */
  async requests(method: string, end: string): Promise<SeenRequest[]> {
    const { requests } = await this.seen();
    return requests.filter(
      (request) => request.method === method && request.path.split('?')[0]?.endsWith(end),
    );
  }

  async stop(): Promise<void> {
    await this.#child.stop('SIGKILL');
  }

  async #tell(path: string, message: unknown = {}): Promise<unknown> {
    const answer = await fetch(this.#control + path, { method: 'POST', body: JSON.stringify(message) });
    if (!answer.ok) throw new Error(`the distant upstream refused ${path}: ${answer.status}`);
    return await answer.json();
  }
}
