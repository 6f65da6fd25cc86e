import type { Upstream } from '../config/config.ts';

/**
 * Why an upstream gave nothing:
 * - `absent`: it answered that there is nothing for us (401, 403, 404);
 * - `limited`: it wants fewer requests (429);
 * - `unavailable`: it could not be reached, failed, or sent what cannot be right.
 */
export type FailureKind = 'absent' | 'limited' | 'unavailable';

export class UpstreamFailure extends Error {
  override readonly name = 'UpstreamFailure';
  readonly kind: FailureKind;
  /** An answer came, so that another way out would bring the same one. */
  readonly reached: boolean;
  /** Of the answer that said so. */
  readonly status: number | undefined;

  constructor(
    kind: FailureKind,
    upstream: Upstream,
    why: string,
    options: { reached: boolean; status?: number; cause?: unknown },
  ) {
    super(`${upstream.host}: ${why}`, 'cause' in options ? { cause: options.cause } : {});
    this.kind = kind;
    this.reached = options.reached;
    this.status = options.status;
  }
}

/** Whether a GET may be given what this HEAD was not: some registries, and what they redirect to, answer GET alone. */
export function isOfHeadAlone(error: unknown): error is UpstreamFailure {
  return (
    error instanceof UpstreamFailure && error.reached && error.status !== 404 && error.kind !== 'limited'
  );
}

export function absent(upstream: Upstream, why: string, status?: number): UpstreamFailure {
  return new UpstreamFailure('absent', upstream, why, {
    reached: true,
    ...(status === undefined ? {} : { status }),
  });
}

export function limited(upstream: Upstream): UpstreamFailure {
  const why = 'it limits the rate of requests (429)';
  return new UpstreamFailure('limited', upstream, why, { reached: true, status: 429 });
}

/** What is configured, or was answered, cannot be right, so that another way out would bring the same. */
export function unfit(upstream: Upstream, why: string, cause?: unknown): UpstreamFailure {
  return unavailable(upstream, why, { reached: true, ...(cause === undefined ? {} : { cause }) });
}

export function unavailable(
  upstream: Upstream,
  why: string,
  options: { reached?: boolean; status?: number; cause?: unknown } = {},
): UpstreamFailure {
  return new UpstreamFailure('unavailable', upstream, why, { reached: false, ...options });
}
