import type { Logger } from '../process/log.ts';
import type { AdmissionRequest } from './admission-review.ts';
import type { ClusterView } from './cluster-view.ts';
import type { DecisionCounter } from './decision-counter.ts';
import { type Doubt, doubtOf, isDoubt } from './doubt.ts';
import type { Exemption } from './exemption.ts';
import type { Outcome } from './settlement.ts';
import { type Subject, subjectOf } from './subject.ts';

export interface VerdictOptions {
  readonly counter: DecisionCounter;
  readonly cluster: Pick<ClusterView, 'tell'>;
  readonly log: Logger;
}

/**
 * What becomes of one request: counted, and told of where somebody may want to know why. What is found out once the
 * answer is out (`over`) is only logged, since it was counted then already.
 */
export class Verdict {
  readonly over: AbortSignal;
  readonly #request: AdmissionRequest;
  readonly #options: VerdictOptions;
  #uid = '';

  constructor(request: AdmissionRequest, over: AbortSignal, options: VerdictOptions) {
    this.#request = request;
    this.over = over;
    this.#options = options;
  }

  /** The id of the Pod, which not every binding says. */
  identify(uid: string): void {
    this.#uid = uid;
  }

  /** The Pod passes as it is. */
  leave(why: string, more?: string): void {
    if (this.#isTooLate({ why })) return;
    this.#options.counter.count(this.#request, 'left', why);
    if (isDoubt(why)) this.tell({ why, ...(more === undefined ? {} : { more }) });
  }

  /** The Pod is none of the webhook's business. */
  exempt(why: Exemption): void {
    if (!this.#isTooLate({ why })) this.#options.counter.count(this.#request, 'left', why);
  }

  /** What became of each image. */
  settle(outcomes: readonly Outcome[]): void {
    if (this.#isTooLate({ outcomes })) return;
    this.#options.counter.countAll(this.#request, outcomes);
    for (const outcome of outcomes) {
      const doubt = doubtOf(outcome);
      if (doubt !== undefined) this.tell(doubt);
    }
  }

  tell(doubt: Doubt): void {
    const subject = this.#request.dryRun === true ? undefined : subjectOf(this.#request);
    if (subject !== undefined) this.#options.cluster.tell(this.#withId(subject), doubt);
  }

  #withId(subject: Subject): Subject {
    return subject.kind === 'Pod' && subject.uid === '' ? { ...subject, uid: this.#uid } : subject;
  }

  #isTooLate(found: object): boolean {
    const { namespace, name } = this.#request;
    if (this.over.aborted)
      this.#options.log.info(
        { namespace, pod: name, ...found },
        'decided after the answer, which was to pass',
      );
    return this.over.aborted;
  }
}
