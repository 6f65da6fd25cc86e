import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UpstreamProcess } from './upstream-process.ts';
import { type WeirOptions, WeirProcess } from './weir-process.ts';

/** A directory, a distant upstream, and what was started before it; all of it is gone when it is closed. */
export class Scene {
  readonly directory: string;
  readonly upstream: UpstreamProcess;
  readonly #weirs: WeirProcess[] = [];
  readonly #cleaners: (() => Promise<void>)[] = [];

  private constructor(directory: string, upstream: UpstreamProcess) {
    this.directory = directory;
    this.upstream = upstream;
  }

  static async open(options: { tokens?: boolean; tls?: boolean } = {}): Promise<Scene> {
    const directory = await mkdtemp(join(tmpdir(), 'weir-bench-'));
    return new Scene(directory, await UpstreamProcess.start(directory, options));
  }

  get storeDirectory(): string {
    return join(this.directory, 'store');
  }

  async startWeir(options: Partial<WeirOptions> = {}): Promise<WeirProcess> {
    const { directory, upstream } = this;
    const store = `file:${this.storeDirectory}`;
    const { url: upstreamUrl, ca } = upstream;
    const weir = await WeirProcess.start({ directory, store, upstreamUrl, ca, ...options });
    this.#weirs.push(weir);
    return weir;
  }

  /** Has this done when the scene is closed. */
  defer(clean: () => Promise<void>): void {
    this.#cleaners.push(clean);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#weirs.map((weir) => weir.stop()));
    await this.upstream.stop();
    for (const clean of this.#cleaners) await clean();
    await rm(this.directory, { recursive: true, force: true });
  }
}
