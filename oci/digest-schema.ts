import * as z from 'zod';
import { type Digest, parseDigest } from './digest.ts';

/** A digest in JSON. Apart from the digest itself, so that threads that only hash need not load a parser. */
export const digestSchema = z.string().transform((text, context): Digest => {
  const digest = parseDigest(text);
  if (digest !== undefined) return digest;
  context.addIssue({ code: 'custom', message: `${text.slice(0, 80)} is no digest` });
  return z.NEVER;
});
