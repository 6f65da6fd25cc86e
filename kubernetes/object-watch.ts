import type { Collection, ObjectOf } from './api.ts';
import { ObjectFeed, type ObjectFeedOptions } from './object-feed.ts';

export interface ObjectWatchOptions<Name extends Collection> extends Omit<ObjectFeedOptions<Name>, 'sink'> {
  /** Is given all that there is, first when it is known for the first time. */
  readonly changed: (objects: readonly ObjectOf<Name>[]) => void;
}

/** Objects of one collection, of which all are told whenever some change. */
export class ObjectWatch<Name extends Collection> {
  readonly #changed: ObjectWatchOptions<Name>['changed'];
  readonly #feed: ObjectFeed<Name>;
  readonly #objects = new Map<string, ObjectOf<Name>>();
  #isScheduled = false;
  #isClosed = false;

  constructor({ changed, ...options }: ObjectWatchOptions<Name>) {
    this.#changed = changed;
    this.#feed = new ObjectFeed<Name>({
      ...options,
      sink: {
        put: (key, object) => {
          this.#objects.set(key, object);
          this.#publishSoon();
        },
        remove: (key) => {
          this.#objects.delete(key);
          this.#publishSoon();
        },
        keepOnly: (keys) => {
          for (const key of this.#objects.keys()) if (!keys.has(key)) this.#objects.delete(key);
          this.#publishSoon();
        },
      },
    });
  }

  /** Nothing is told from now on. */
  close(): void {
    this.#isClosed = true;
    this.#feed.close();
  }

  /** A burst of changes is told as one. */
  #publishSoon(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (!this.#isClosed) this.#changed([...this.#objects.values()]);
    });
  }
}
