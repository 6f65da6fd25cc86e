import * as z from 'zod';
import { parseAuthority } from '../oci/host.ts';
import { isPlatform } from '../oci/platform.ts';
import { NODES } from './config.ts';
import { parseDuration } from './duration.ts';
import { parseEndpoint } from './endpoint.ts';

/**
 * The shape of the configuration. Each refusal carries its remedy as a parameter of the issue, so that
 * {@link parseConfig} can show both. What depends on more than one key is looked at there.
 */
const refuse = (context: z.RefinementCtx, message: string, remedy: string): typeof z.NEVER => {
  context.addIssue({ code: 'custom', message, params: { remedy } });
  return z.NEVER;
};

const duration = z.string().transform((text, context) => {
  const milliseconds = parseDuration(text);
  return (
    milliseconds ??
    refuse(context, `"${text}" is no duration`, 'Write a number with its unit, as in 60s or 10m.')
  );
});

const endpoint = z.string().transform((text, context) => {
  try {
    return parseEndpoint(text);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return refuse(
      context,
      why,
      'Write https://HOST[:PORT], with a path only where the mirror keeps this registry under one.',
    );
  }
});

const authority = z.string().transform((text, context) => {
  const host = parseAuthority(text);
  return (
    host ??
    refuse(
      context,
      `"${text}" is no registry host`,
      'Write it as in image names: HOST or HOST:PORT, without a scheme or path.',
    )
  );
});

const prefix = z
  .string()
  .transform((text, context) =>
    /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/.test(text)
      ? text
      : refuse(
          context,
          `"${text}" is no path prefix`,
          'Write one path component of lower-case letters, digits, ".", "_" and "-".',
        ),
  );

const fileName = z
  .string()
  .transform((text, context) =>
    /^[\w][\w.-]*$/.test(text)
      ? text
      : refuse(
          context,
          `"${text}" is no file name`,
          'Write the name of a file in the directory of CA bundles, without a path.',
        ),
  );

const hop = z.string().transform((text, context) => {
  if (text === 'direct') return { kind: 'direct' as const };
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && ['http:', 'https:', 'socks5:'].includes(url.protocol) && url.hostname !== '')
    return { kind: 'proxy' as const, url: url.href };
  return refuse(
    context,
    `"${text}" is no proxy`,
    'Write http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT or direct.',
  );
});

/** What a namespace can be called (RFC 1123), or some of them: `*` and `?` stand for what is not said. */
const NAMESPACE = /^[a-z0-9*?](?:[a-z0-9*?-]{0,61}[a-z0-9*?])?$/;

const namespace = z
  .string()
  .transform((text, context) =>
    NAMESPACE.test(text)
      ? text
      : refuse(
          context,
          `"${text}" is no namespace`,
          'Write a namespace, as in team-a, or a pattern with * and ?, as in team-*.',
        ),
  );

const owner = z
  .string()
  .transform((text, context) =>
    /^(?:\*|[A-Z][A-Za-z0-9]{0,62})(?:\.[a-z0-9]+(?:[.-][a-z0-9]+)*)?$/.test(text)
      ? text
      : refuse(
          context,
          `"${text}" is no kind of owner`,
          'Write KIND.GROUP as in Cluster.postgresql.cnpg.io, or *.GROUP for every kind.',
        ),
  );

const tags = z.strictObject({
  ttl: duration.optional(),
  staleWhileRevalidate: duration.optional(),
  budget: duration.optional(),
});

const timeouts = z.strictObject({
  connect: duration.exactOptional(),
  answer: duration.exactOptional(),
  idle: duration.exactOptional(),
});

const platform = z
  .string()
  .transform((text, context) =>
    text === NODES || isPlatform(text)
      ? text
      : refuse(
          context,
          `"${text}" is no platform`,
          'Write OS/ARCHITECTURE, as in linux/arm64 or linux/arm/v7, or nodes for what the nodes of the cluster are.',
        ),
  );

const upstream = z.strictObject({
  endpoint: endpoint.optional(),
  mirror: endpoint.optional(),
  via: z.enum(['registry', 'node']).optional(),
  direct: z.boolean().optional(),
  egress: z.string().optional(),
  prefix: prefix.optional(),
  tags: tags.optional(),
  timeouts: timeouts.optional(),
  warm: z.array(platform).optional(),
  credentials: z.string().min(1).optional(),
  access: z.literal('everyone').optional(),
  ca: fileName.optional(),
  trustedHosts: z.array(authority).optional(),
});

export const configSchema = z.strictObject({
  enabled: z.boolean().optional(),
  defaults: z
    .strictObject({
      direct: z.boolean().optional(),
      egress: z.string().optional(),
      tags: tags.optional(),
      timeouts: timeouts.optional(),
      warm: z.array(platform).optional(),
    })
    .optional(),
  upstreams: z.record(z.string(), upstream.nullable()).nullish(),
  proxies: z.record(z.string(), endpoint).nullish(),
  egress: z.record(z.string(), z.strictObject({ proxy: z.union([hop, z.array(hop).min(1)]) })).nullish(),
  includeNamespaces: z.array(namespace).nullish(),
  excludeNamespaces: z.array(namespace).nullish(),
  // ketches/registry-proxy 1.3 writes both, empty.
  podSelector: z.record(z.string(), z.string()).nullish(),
  namespaceSelector: z.record(z.string(), z.string()).nullish(),
  fallback: z.enum(['auto', 'always', 'never']).optional(),
  rewriteTo: authority.exactOptional(),
  skipOwners: z.array(owner).nullish(),
});

export type RawConfig = z.output<typeof configSchema>;
export type RawUpstream = z.output<typeof upstream>;
export type RawTags = z.output<typeof tags>;

/** The keys of all upstreams. */
export function namesIn(raw: RawConfig): readonly (readonly [key: 'upstreams' | 'proxies', name: string])[] {
  return (['upstreams', 'proxies'] as const).flatMap((key) =>
    Object.keys(raw[key] ?? {}).map((name) => [key, name] as const),
  );
}
