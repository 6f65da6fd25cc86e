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

  constructor(
    kind: FailureKind,
    upstream: Upstream,
    why: string,
    options: { reached: boolean; cause?: unknown },
  ) {
    super(`${upstream.host}: ${why}`, 'cause' in options ? { cause: options.cause } : {});
    this.kind = kind;
    this.reached = options.reached;
  }
}

export function absent(upstream: Upstream, why: string): UpstreamFailure {
  return new UpstreamFailure('absent', upstream, why, { reached: true });
}

export function limited(upstream: Upstream): UpstreamFailure {
  return new UpstreamFailure('limited', upstream, 'it limits the rate of requests (429)', { reached: true });
}

export function unavailable(
  upstream: Upstream,
  why: string,
  options: { reached?: boolean; cause?: unknown } = {},
): UpstreamFailure {
  return new UpstreamFailure('unavailable', upstream, why, { reached: false, ...options });
}
