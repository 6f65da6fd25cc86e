import * as z from 'zod';
import type { AdmissionRequest } from './admission-review.ts';
import { podSchema } from './pod.ts';

/** An object of a namespace under which people are told something. */
export interface Subject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  /** Empty where nobody has said it. */
  readonly uid: string;
}

const namedSchema = z.object({
  metadata: z.object({
    name: z.string().nullish(),
    namespace: z.string().nullish(),
    uid: z.string().nullish(),
  }),
});

/**
 * Under what to tell of this request: the Pod, or, while that is not there yet and has no id, the controller that has
 * made it. `undefined` for a Pod that somebody makes by hand: they have the warnings of the answer.
 */
export function subjectOf(request: AdmissionRequest): Subject | undefined {
  return request.operation === 'CREATE' && !request.subResource ? controllerOf(request) : podOf(request);
}

function controllerOf({ namespace, object }: AdmissionRequest): Subject | undefined {
  const metadata = podSchema.safeParse(object).data?.metadata;
  const owner = metadata?.ownerReferences?.find(({ controller }) => controller === true);
  if (!owner?.name) return undefined;
  const { apiVersion, kind, name, uid } = owner;
  return { apiVersion, kind, namespace: namespace ?? metadata?.namespace ?? '', name, uid: uid ?? '' };
}

function podOf({ namespace, name, object }: AdmissionRequest): Subject | undefined {
  const metadata = namedSchema.safeParse(object).data?.metadata;
  const called = metadata?.name ?? name;
  if (!called) return undefined;
  const within = namespace ?? metadata?.namespace ?? '';
  return { apiVersion: 'v1', kind: 'Pod', namespace: within, name: called, uid: metadata?.uid ?? '' };
}
