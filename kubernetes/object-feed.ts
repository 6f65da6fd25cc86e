import type { Logger } from 'pino';
import { pauseUnlessStopped } from '../process/pause.ts';
import type { Collection, Kubernetes, ObjectOf, Selection } from './api.ts';
import { apiProblem, statusOf } from './client.ts';

/** Where objects go, each under `NAMESPACE/NAME`. */
export interface ObjectSink<Name extends Collection> {
  put(key: string, object: ObjectOf<Name>): void;
  remove(key: string): void;
  /** After each list: there are no others. */
  keepOnly(keys: ReadonlySet<string>): void;
}

export interface ObjectFeedOptions<Name extends Collection> {
  readonly kubernetes: Kubernetes;
  /** For people: `ConfigMap weir/weir`. */
  readonly what: string;
  readonly collection: Name;
  readonly selection: Selection;
  /** How many objects are listed at once; all of them when it is missing. */
  readonly pageSize?: number;
  readonly sink: ObjectSink<Name>;
  readonly log: Logger;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
/** After an API server that has more to do than it can: with thousands of nodes that ask again, it never catches up. */
const LONGEST_PAUSE_WHEN_BUSY_MS = 120_000;
/** A watch that stood for so long was a good one. */
const SOUND_MS = 10_000;

/** A history that was rewritten, and has grown past the version that is known, tells nothing of it. */
const LIST_AGAIN_MS = 4 * 3_600_000;

/**
 * Objects of one collection: listed, watched from there on, and watched further from the last version that was told of
 * when a watch ends or breaks. They are listed again when the API server says that it cannot go on from there (a
 * compacted history), and when a watch tells nothing at all, not even a bookmark: that is how a version ends which is
 * yet to come, as after an etcd that was restored from a backup. So what is known is right again whatever became of the
 * events between. While the API server is away, what was known last stays; the pauses grow, the more so when it is
 * there and cannot keep up, and are not the same on two nodes.
 */
export class ObjectFeed<Name extends Collection> {
  readonly #options: ObjectFeedOptions<Name>;
  readonly #stop = new AbortController();
  /** Up to which the objects are known; `undefined` when they are to be listed. */
  #version: string | undefined;
  #listDue = 0;
  #pause = FIRST_PAUSE_MS;
  #isAway = false;

  constructor(options: ObjectFeedOptions<Name>) {
    this.#options = options;
    void this.#run();
  }

  /** Nothing is told from now on. */
  close(): void {
    this.#stop.abort();
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      let isBusy = false;
      try {
        if (performance.now() > this.#listDue) this.#version = undefined;
        this.#version ??= await this.#list();
        if (!signal.aborted) await this.#watch(this.#version);
      } catch (error) {
        isBusy = isFromBusyServer(error);
        if (!isToGoOnAfter(error)) this.#version = undefined;
        this.#tell(error);
      }
      await pauseUnlessStopped(this.#pause * (0.5 + Math.random()), signal);
      this.#pause = isBusy
        ? Math.min(this.#pause * 4, LONGEST_PAUSE_WHEN_BUSY_MS)
        : Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
    }
  }

  /** Returns when the watch has ended as watches do. @throws Error of the API. */
  async #watch(resourceVersion: string | undefined): Promise<void> {
    const { kubernetes, collection, selection } = this.#options;
    const ended = Promise.withResolvers<unknown>();
    let isOver = false;
    const end = (error: unknown): void => {
      isOver = true;
      ended.resolve(error);
    };
    const since = { ...selection, resourceVersion };
    const onEvent = (type: string, object: ObjectOf<Name> & { readonly message?: string }): void => {
      if (type === 'ERROR') {
        end(new LostHistory(object.message ?? 'the API server ended the watch'));
        return;
      }
      this.#version = object.metadata?.resourceVersion ?? this.#version;
      if (type !== 'BOOKMARK') this.#onChange(type, object);
    };
    const request = await kubernetes.watch(collection, since, onEvent, end);
    const onStop = (): void => request.abort();
    this.#stop.signal.addEventListener('abort', onStop);
    if (this.#stop.signal.aborted) onStop();
    if (!isOver) this.#tellAgain();
    const stoodAt = performance.now();
    const error = await ended.promise;
    request.abort();
    this.#stop.signal.removeEventListener('abort', onStop);
    if (performance.now() - stoodAt > SOUND_MS) this.#pause = FIRST_PAUSE_MS;
    if (error instanceof Error && error.name === 'TimeoutError') this.#version = undefined;
    else if (error instanceof Error) throw error;
  }

  /** Page by page. @returns the version from which to watch. @throws Error of the API. */
  async #list(): Promise<string | undefined> {
    const { kubernetes, collection, selection, pageSize, sink } = this.#options;
    const keys = new Set<string>();
    for (let from = ''; ; ) {
      const page =
        pageSize === undefined ? {} : { limit: pageSize, ...(from === '' ? {} : { continue: from }) };
      const { items, metadata } = await kubernetes.list(collection, { ...selection, ...page });
      if (this.#stop.signal.aborted) return undefined;
      for (const object of items) {
        const key = keyOf(object);
        keys.add(key);
        sink.put(key, object);
      }
      from = metadata?.continue ?? '';
      if (from !== '') continue;
      sink.keepOnly(keys);
      this.#listDue = performance.now() + LIST_AGAIN_MS * (0.8 + 0.4 * Math.random());
      return metadata?.resourceVersion;
    }
  }

  #onChange(type: string, object: ObjectOf<Name>): void {
    const { sink } = this.#options;
    if (this.#stop.signal.aborted) return;
    if (type === 'DELETED') sink.remove(keyOf(object));
    else sink.put(keyOf(object), object);
  }

  #tell(error: unknown): void {
    if (this.#stop.signal.aborted || this.#isAway) return;
    this.#isAway = true;
    const { what, log } = this.#options;
    log.warn({ err: apiProblem(`watch ${what}`, error) }, 'what was known last stays in force');
  }

  #tellAgain(): void {
    if (this.#isAway) this.#options.log.info(`${this.#options.what} is watched again`);
    this.#isAway = false;
  }
}

/** What the API server says on a watch that it cannot go on with, mostly since its history is compacted. */
class LostHistory extends Error {}

/** It put the request off, or did not come to it in time; not one that is away, or refuses. */
function isFromBusyServer(error: unknown): boolean {
  const status = refusalOf(error);
  return status === 429 || status === 504 || (error instanceof Error && error.name === 'TimeoutError');
}

/** A connection that broke, or a server that has no time or no health at the moment, knows that version later. */
function isToGoOnAfter(error: unknown): boolean {
  const status = refusalOf(error);
  return !(error instanceof LostHistory) && (status === undefined || [429, 500, 502, 503].includes(status));
}

function refusalOf(error: unknown): number | undefined {
  // A watch that is refused has it under this name.
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : statusOf(error);
  return typeof status === 'number' ? status : undefined;
}

function keyOf({ metadata }: ObjectOf<Collection>): string {
  return `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`;
}
