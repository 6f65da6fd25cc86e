import * as z from 'zod';
import { parseJson } from '../oci/json.ts';

/** What an API server asks (k8s.io/api/admission/v1, AdmissionRequest), as far as it is looked at. */
const requestSchema = z.object({
  uid: z.string(),
  resource: z.object({ resource: z.string() }),
  subResource: z.string().nullish(),
  operation: z.string(),
  namespace: z.string().nullish(),
  name: z.string().nullish(),
  dryRun: z.boolean().nullish(),
  object: z.unknown().optional(),
  oldObject: z.unknown().optional(),
});
const reviewSchema = z.object({ request: requestSchema });
const anyReviewSchema = z.object({ request: z.object({ uid: z.string() }) });

export type AdmissionRequest = z.output<typeof requestSchema>;

/** What it is answered. */
export interface Answer {
  /** Why it is refused. */
  readonly refusal?: string;
  /** A JSON Patch of the object. */
  readonly patch?: readonly object[];
  /** Shown to whoever asked, as `kubectl` does. */
  readonly warnings?: readonly string[];
}

/** With a longer one, the API server may leave out others (k8s.io/api/admission/v1, AdmissionResponse.warnings). */
const MAX_WARNING = 256;
const MAX_WARNINGS = 10;

export interface Review {
  /** Without the id of the question, an answer would count as a failure. Empty when there is none. */
  readonly uid: string;
  /** `undefined` when it cannot be read. */
  readonly request: AdmissionRequest | undefined;
}

/** Whatever the text is. */
export function readReview(text: string): Review {
  const value = parseJson(text);
  const request = reviewSchema.safeParse(value).data?.request;
  return { uid: request?.uid ?? anyReviewSchema.safeParse(value).data?.request.uid ?? '', request };
}

/** The answer to the review with this id, as JSON. */
export function formatAnswer(uid: string, { refusal, patch, warnings = [] }: Answer): string {
  return JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid,
      allowed: refusal === undefined,
      ...(refusal === undefined ? {} : { status: { code: 422, reason: 'Invalid', message: refusal } }),
      ...(patch === undefined || patch.length === 0
        ? {}
        : { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') }),
      ...(warnings.length === 0
        ? {}
        : { warnings: warnings.slice(0, MAX_WARNINGS).map((warning) => shortened(warning)) }),
    },
  });
}

function shortened(warning: string): string {
  return warning.length <= MAX_WARNING ? warning : `${warning.slice(0, MAX_WARNING - 1)}…`;
}
