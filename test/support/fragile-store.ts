import type { Store, StoredBlob } from '../../registry/store.ts';

/** A store that can be made to fail, over a real one. */
export class FragileStore implements Store {
  /** Names of the operations that fail. */
  broken: ReadonlySet<string> = new Set();
  /** Reading a blob fails after so many bytes. */
  breaksAt = Number.POSITIVE_INFINITY;
  /** Operations wait for it before they do anything. */
  gates: ReadonlyMap<string, Promise<void>> = new Map();
  readonly #real: Store;

  constructor(real: Store) {
    this.#real = real;
  }

  /** How often each operation was asked for. */
  readonly asked = new Map<string, number>();

  async #do<T>(operation: string, work: () => Promise<T>): Promise<T> {
    this.asked.set(operation, (this.asked.get(operation) ?? 0) + 1);
    await this.gates.get(operation);
    if (this.broken.has(operation)) throw new Error(`${operation}: the store is away`);
    return work();
  }

  async open(...parameters: Parameters<Store['open']>): Promise<StoredBlob | undefined> {
    const blob = await this.#do('open', () => this.#real.open(...parameters));
    if (blob === undefined) return undefined;
    return {
      size: blob.size,
      close: () => blob.close(),
      copyTo: async (write, range, signal) => {
        const end = Math.min(range.end, this.breaksAt - 1);
        if (range.start <= end) await blob.copyTo(write, { start: range.start, end }, signal);
        if (end < range.end) throw new Error('the store broke off');
      },
    };
  }

  stat: Store['stat'] = (digest) => this.#do('stat', () => this.#real.stat(digest));
  put: Store['put'] = (digest, bytes) => this.#do('put', () => this.#real.put(digest, bytes));
  putFile: Store['putFile'] = (digest, path) => this.#do('putFile', () => this.#real.putFile(digest, path));
  link: Store['link'] = (key, digest) => this.#do('link', () => this.#real.link(key, digest));
  putLink: Store['putLink'] = (key, digest, link) =>
    this.#do('putLink', () => this.#real.putLink(key, digest, link));
  tag: Store['tag'] = (key, tag) => this.#do('tag', () => this.#real.tag(key, tag));
  removeTag: Store['removeTag'] = (key, tag) => this.#do('removeTag', () => this.#real.removeTag(key, tag));
  remove: Store['remove'] = (digest) => this.#do('remove', () => this.#real.remove(digest));
  digests: Store['digests'] = () => this.#real.digests();
  referrers: Store['referrers'] = (key, digest) =>
    this.#do('referrers', () => this.#real.referrers(key, digest));
  putReferrers: Store['putReferrers'] = (key, digest, record) =>
    this.#do('putReferrers', () => this.#real.putReferrers(key, digest, record));
  putTag: Store['putTag'] = (key, tag, record) =>
    this.#do('putTag', () => this.#real.putTag(key, tag, record));
}

/** Every operation. */
export const EVERYTHING: ReadonlySet<string> = new Set([
  'open',
  'stat',
  'put',
  'putFile',
  'link',
  'putLink',
  'tag',
  'putTag',
  'referrers',
  'removeTag',
  'remove',
  'putReferrers',
]);
