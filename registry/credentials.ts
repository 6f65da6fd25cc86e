import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import * as z from 'zod';
import type { Upstream } from '../config/config.ts';
import { parseHost } from '../oci/host.ts';
import { parseJson } from '../oci/json.ts';
import { unfit } from './upstream-failure.ts';

/** What the registry may show to one upstream to be somebody there. */
export interface Credentials {
  /** As the configuration calls them. */
  readonly name: string;
  /** The value of an `Authorization` header: the secret itself, never to be logged. */
  readonly basic: string;
  /** Differs when the credentials differ, and gives nothing of them away. */
  readonly fingerprint: string;
}

/** A Secret cannot hold more. */
const MAX_BYTES = 1024 * 1024;

const entrySchema = z.object({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
});
const fileSchema = z.object({ auths: z.record(z.string(), z.unknown()).optional() });

/**
 * The credentials of an upstream as the docker config file has them now, or `undefined` when the configuration
 * gives it none. The file is read each time: a mounted Secret is replaced while the program runs, and what was
 * taken away must not be used any longer. Nothing of its content goes into a message.
 *
 * @throws UpstreamFailure when the file or its entry cannot be used: asking anonymously instead would answer
 *   with what the credentials are not there to tell.
 */
export async function readCredentials(
  file: string | undefined,
  upstream: Upstream,
): Promise<Credentials | undefined> {
  const name = upstream.credentials;
  if (name === undefined) return undefined;
  if (file === undefined)
    throw unfit(
      upstream,
      `its credentials "${name}" are in no file; say with --docker-config where they are`,
    );
  const entry = entryOf(await readAuths(file, name, upstream), name);
  if (entry === undefined)
    throw unfit(upstream, `${file} has no entry "${name}" under "auths" for its credentials`);
  const userAndPassword = parseEntry(entry);
  if (userAndPassword === undefined)
    throw unfit(
      upstream,
      `the entry "${name}" of ${file} holds neither "auth" (base64 of user:password) nor "username" and "password"; identity tokens and credential helpers are not used`,
    );
  const basic = `Basic ${Buffer.from(userAndPassword).toString('base64')}`;
  return { name, basic, fingerprint: createHash('sha256').update(basic).digest('base64') };
}

async function readAuths(
  file: string,
  name: string,
  upstream: Upstream,
): Promise<Readonly<Record<string, unknown>>> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? ` (${String(cause.code)})` : '';
    throw unfit(upstream, `cannot read ${file}${code}, which is to hold its credentials "${name}"`, cause);
  }
  const parsed = text.length > MAX_BYTES ? undefined : fileSchema.safeParse(parseJson(text)).data;
  if (parsed === undefined)
    throw unfit(upstream, `${file}, which is to hold its credentials "${name}", is no docker config.json`);
  return parsed.auths ?? {};
}

/** The entry of this very name, or else the one that docker writes for the same registry. */
function entryOf(auths: Readonly<Record<string, unknown>>, name: string): unknown {
  if (Object.hasOwn(auths, name)) return auths[name];
  return Object.entries(auths).find(([key]) => registryOf(key) === registryOf(name))?.[1];
}

/** `https://index.docker.io/v1/` is what docker calls docker.io. */
function registryOf(key: string): string {
  const name = key
    .replace(/^https?:\/\//i, '')
    .replace(/\/+$/, '')
    .replace(/\/v[12]$/, '');
  return parseHost(name) ?? name;
}

function parseEntry(value: unknown): string | undefined {
  const entry = entrySchema.safeParse(value).data;
  if (entry === undefined) return undefined;
  const { auth, username, password } = entry;
  if (auth !== undefined && auth !== '') {
    // Docker itself takes padding with NUL from the end.
    const decoded = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '');
    return /^[^:]+:./s.test(decoded) ? decoded : undefined;
  }
  // RFC 7617, section 2: a user name cannot hold a colon.
  if (!username || !password || username.includes(':')) return undefined;
  return `${username}:${password}`;
}
