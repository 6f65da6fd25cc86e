import * as z from 'zod';
import { type Digest, parseDigest } from '../oci/digest.ts';

// What the distant upstream can be told and asked, on a port of its own which is not distant.

const digestSchema = z.string().transform((text, context): Digest => {
  const digest = parseDigest(text);
  if (digest !== undefined) return digest;
  context.addIssue({ code: 'custom', message: 'no digest' });
  return z.NEVER;
});

/** Offsets are fractions of the blob. A fault with `times` is over after so many bodies. */
export const faultSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('none') }),
  z.object({ kind: z.literal('status'), status: z.number() }),
  /** Takes every request and answers none. */
  z.object({ kind: z.literal('silence') }),
  /** Cuts bodies of blobs at this offset. */
  z.object({ kind: z.literal('break'), at: z.number(), times: z.number() }),
  /** Cuts bodies of blobs after so much of the blob, wherever they began. */
  z.object({ kind: z.literal('break-every'), step: z.number() }),
  /** Sends nothing of a blob from this offset on, and keeps the connection. */
  z.object({ kind: z.literal('stall'), at: z.number(), times: z.number() }),
  z.object({ kind: z.literal('corrupt'), at: z.number() }),
]);
export type Fault = z.infer<typeof faultSchema>;

export const linkSchema = z.object({ roundTripMs: z.number(), bytesPerSecond: z.number() });
export type LinkSettings = z.infer<typeof linkSchema>;

export const pushSchema = z.object({ repository: z.string(), sizes: z.array(z.number()) });
export type Push = z.infer<typeof pushSchema>;

const descriptorSchema = z.object({ digest: digestSchema, size: z.number() });
export const pushedSchema = z.object({
  repository: z.string(),
  manifest: descriptorSchema,
  config: descriptorSchema,
  layers: z.array(descriptorSchema),
});
/** An image that the upstream has, as `latest`. */
export type Pushed = z.infer<typeof pushedSchema>;
export type Descriptor = z.infer<typeof descriptorSchema>;

export const listeningSchema = z.object({ data: z.number(), control: z.number() });

export const seenSchema = z.object({
  connections: z.number(),
  requests: z.array(
    z.object({
      method: z.string(),
      path: z.string(),
      range: z.string().optional(),
      /** 0: not answered yet. */
      status: z.number(),
      /** Of the body. */
      bytes: z.number(),
      /** Milliseconds since the epoch. */
      began: z.number(),
      ended: z.number().optional(),
    }),
  ),
});
export type Seen = z.infer<typeof seenSchema>;
export type SeenRequest = Seen['requests'][number];
