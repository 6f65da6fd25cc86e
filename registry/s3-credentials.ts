import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly expiration: Date;
}

/** The SDK asks for credentials again when they end within five minutes. */
const SDK_MARGIN_MS = 300_000;
/** A Secret that was changed is in use after so long, without a restart. */
const REREAD_AFTER_MS = 60_000;

/**
 * Reads credentials from a directory, as a mounted Secret is one: the files have the names that the same Secret
 * would have as environment variables.
 *
 * @throws Error that names the file.
 */
export async function readCredentials(directory: string): Promise<S3Credentials> {
  const [accessKeyId, secretAccessKey, sessionToken] = await Promise.all([
    readRequired(directory, 'AWS_ACCESS_KEY_ID'),
    readRequired(directory, 'AWS_SECRET_ACCESS_KEY'),
    readOptional(directory, 'AWS_SESSION_TOKEN'),
  ]);
  return {
    accessKeyId,
    secretAccessKey,
    ...(sessionToken === undefined ? {} : { sessionToken }),
    expiration: new Date(Date.now() + SDK_MARGIN_MS + REREAD_AFTER_MS),
  };
}

async function readRequired(directory: string, name: string): Promise<string> {
  const text = await readOptional(directory, name);
  if (text === undefined) throw new S3CredentialsError(`${join(directory, name)} is not there, or empty`);
  return text;
}

async function readOptional(directory: string, name: string): Promise<string | undefined> {
  try {
    const text = (await readFile(join(directory, name), 'utf8')).trim();
    return text === '' ? undefined : text;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return undefined;
    throw new S3CredentialsError(`cannot read ${join(directory, name)}`, { cause });
  }
}

export class S3CredentialsError extends Error {
  override readonly name = 'S3CredentialsError';
}
