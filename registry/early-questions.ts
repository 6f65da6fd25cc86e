import { LRUCache } from 'lru-cache';
import * as z from 'zod';
import type { Digest } from '../oci/digest.ts';
import { digestSchema } from '../oci/digest-schema.ts';
import { parseJson } from '../oci/json.ts';
import { digestName, type Target } from './target.ts';
import type { Manifest } from './upstream.ts';
import type { UpstreamBody } from './upstream-reading.ts';

/** A client that wants the blobs of a manifest begins with them at once. */
const EXPECTED_FOR_MS = 60_000;
const MAX_EXPECTED = 20_000;
/** Layers of one manifest; real ones have a few dozen. */
const MAX_NAMED = 1_000;

const descriptorSchema = z.object({ digest: digestSchema });
const imageSchema = z.object({
  config: descriptorSchema,
  layers: z.array(descriptorSchema).max(MAX_NAMED),
});

/** A blob that the upstream is being asked for, shared by all who open that blob at the moment. */
interface Question {
  readonly answer: Promise<UpstreamBody>;
  readonly abort: AbortController;
  holders: number;
  /** Taken, or let go of. */
  isOver: boolean;
}

/** One caller's hold on a question. */
export interface Early {
  /** The answer, which is the caller's from now on; `undefined` when somebody else has it, or it was let go of. */
  take(): Promise<UpstreamBody> | undefined;
  /** To be called in the end; a question that nobody took is let go of when its last holder leaves. */
  leave(): void;
}

/**
 * Questions for blobs whose manifest came from the upstream a moment ago. Those are most likely not in the store
 * either, so that the upstream is asked for them while the store is still searched: otherwise the first byte of a
 * cold layer waits for the store and for the upstream one after the other.
 */
export class EarlyQuestions {
  readonly #expected = new LRUCache<string, true>({ max: MAX_EXPECTED, ttl: EXPECTED_FOR_MS });
  readonly #questions = new Map<string, Question>();

  /** Takes note of a manifest that was just fetched. */
  expect(target: Target, { bytes }: Manifest): void {
    const image = imageSchema.safeParse(parseJson(bytes.toString('utf8'))).data;
    if (image === undefined) return;
    for (const { digest } of [image.config, ...image.layers])
      this.#expected.set(digestName(target, digest), true);
  }

  /** Asks for the blob, once, if a manifest has just named it. */
  ask(
    target: Target,
    digest: Digest,
    fetch: (signal: AbortSignal) => Promise<UpstreamBody>,
  ): Early | undefined {
    const name = digestName(target, digest);
    if (this.#expected.delete(name)) this.#begin(name, fetch);
    const question = this.#questions.get(name);
    if (question === undefined) return undefined;
    question.holders += 1;
    return {
      take: () => {
        if (question.isOver) return undefined;
        question.isOver = true;
        this.#forget(name, question);
        return question.answer;
      },
      leave: () => {
        question.holders -= 1;
        if (question.holders > 0 || question.isOver) return;
        question.isOver = true;
        this.#forget(name, question);
        question.abort.abort(new Error('the blob is in the store'));
        question.answer.then((body) => body.cancel()).catch(() => undefined);
      },
    };
  }

  #begin(name: string, fetch: (signal: AbortSignal) => Promise<UpstreamBody>): void {
    const abort = new AbortController();
    const answer = fetch(abort.signal);
    // Whoever takes it hears of the failure; that of one let go of is nobody's business.
    answer.catch(() => undefined);
    this.#questions.set(name, { answer, abort, holders: 0, isOver: false });
  }

  #forget(name: string, question: Question): void {
    if (this.#questions.get(name) === question) this.#questions.delete(name);
  }
}
