import * as z from 'zod';
import { textIn } from '../kubernetes/config-map.ts';
import type { Answer } from '../webhook/admission-review.ts';
import { checkEdit } from '../webhook/config-check.ts';
import type { RegistryPlace } from '../webhook/rewrite.ts';

const configMapSchema = z.object({
  metadata: z.object({ namespace: z.string(), name: z.string() }),
  data: z.record(z.string(), z.string()).nullish(),
  binaryData: z.record(z.string(), z.string()).nullish(),
});

/** What is said to an edit of the ConfigMap with the configuration. Whatever is no ConfigMap passes. */
export function checkConfigMap(object: unknown, registry: RegistryPlace): Answer {
  const found = configMapSchema.safeParse(object).data;
  if (found === undefined) return {};
  const { metadata, data, binaryData } = found;
  return checkEdit(textIn({ data: data ?? {}, binaryData: binaryData ?? {} }, metadata), registry);
}
