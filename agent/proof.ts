import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import { CANARY_HOST, type Canary, canaryOf } from '../oci/canary.ts';
import { hexOf } from '../oci/digest.ts';
import { goArchitecture } from '../oci/platform.ts';
import { messageOf } from '../process/file-problem.ts';
import { Cri, CriError, type CriPlace } from './cri.ts';
import type { RuntimeVersion } from './cri-answers.ts';
import { causeOf } from './proof-cause.ts';
import { mirrorProblem } from './proof-probe.ts';

/** Whether pulls of this node come to the mirror. */
export type Proof =
  /** The runtime pulled an image that nobody but our registry has. */
  | { readonly kind: 'proven'; readonly runtime: RuntimeVersion }
  /** The runtime does not ask the mirror, or cannot use it, while the mirror is there. */
  | { readonly kind: 'bypassed'; readonly reason: string }
  /** Nothing can be said: the mirror, or the runtime's CRI, does not answer. */
  | { readonly kind: 'unproven'; readonly reason: string };

export interface ProofOptions extends CriPlace {
  /** The URL that hosts.toml names, as the node reaches it. */
  readonly mirror: string;
  /** PEM of the authority that signs its certificate. */
  readonly mirrorCa?: string | undefined;
  /** Where the files of weir are, as the node knows it. */
  readonly certsDir: string;
  readonly log: Logger;
  /** For the pull, in milliseconds. */
  readonly timeout?: number;
  /** Of the node (`amd64`); without it, that of this process. */
  readonly architecture?: string;
  readonly signal?: AbortSignal;
}

/** Thousands of times what a pull of the canary takes, and about what a look-up in an unreachable DNS does. */
const PULL_MS = 10_000;
const ASK_MS = 5_000;
const REMOVE_MS = 10_000;

/**
 * Has the runtime pull an image of {@link CANARY_HOST}, made up for this one pull, and removes it again, with those
 * that an agent left which was killed in between. No other image is touched.
 *
 * @throws only what the signal was aborted with.
 */
export async function prove(options: ProofOptions): Promise<Proof> {
  const { signal } = options;
  try {
    const cri = await Cri.connect(options);
    try {
      return await proveWith(cri, options);
    } finally {
      cri.close();
    }
  } catch (error) {
    signal?.throwIfAborted();
    return { kind: 'unproven', reason: messageOf(error).replaceAll(/\s+/g, ' ') };
  }
}

async function proveWith(cri: Cri, options: ProofOptions): Promise<Proof> {
  const { signal } = options;
  const runtime = await cri.version({ timeout: ASK_MS, signal });
  await removeLeftovers(cri, signal);
  const first = await attempt(cri, runtime, options);
  // A second time for an error that the mirror had in just that moment.
  return first.isSure ? first.proof : (await attempt(cri, runtime, options)).proof;
}

async function attempt(
  cri: Cri,
  runtime: RuntimeVersion,
  options: ProofOptions,
): Promise<{ readonly proof: Proof; readonly isSure: boolean }> {
  const { mirror, mirrorCa, certsDir, signal, architecture = goArchitecture() } = options;
  const canary = canaryOf({ architecture, nonce: randomBytes(16).toString('hex') });
  const pulled = await pull(cri, canary, options);
  if (pulled.kind === 'pulled') return { proof: judge(pulled.image, canary, runtime), isSure: true };
  const configPath = await configPathOf(cri, signal);
  const { reason, isUnread } = causeOf(pulled.error, {
    runtime: runtime.name,
    mirror,
    certsDir,
    configPath,
  });
  const problem = isUnread ? undefined : await mirrorProblem(mirror, canary, { ca: mirrorCa, signal });
  if (problem === undefined) return { proof: { kind: 'bypassed', reason }, isSure: isUnread };
  return { proof: { kind: 'unproven', reason: `the mirror does not answer: ${problem}` }, isSure: true };
}

function judge(image: string, { config, manifest }: Canary, runtime: RuntimeVersion): Proof {
  if ([config, manifest].some(({ digest }) => image.includes(hexOf(digest))))
    return { kind: 'proven', runtime };
  return {
    kind: 'bypassed',
    reason: `somebody else answered for ${CANARY_HOST}: the runtime was given another image than the mirror has`,
  };
}

type Pulled =
  | { readonly kind: 'pulled'; readonly image: string }
  | { readonly kind: 'failed'; readonly error: string };

async function pull(
  cri: Cri,
  { reference }: Canary,
  { timeout = PULL_MS, signal, log }: ProofOptions,
): Promise<Pulled> {
  try {
    return { kind: 'pulled', image: await cri.pull(reference, { timeout, signal }) };
  } catch (error) {
    if (!(error instanceof CriError) || error.kind === 'unreachable' || error.kind === 'unsupported')
      throw error;
    return {
      kind: 'failed',
      error: error.kind === 'timeout' ? `it did not end within ${timeout / 1000} s` : error.message,
    };
  } finally {
    // Whether it is there or not, and also when the agent is to stop.
    await cri.remove(reference, { timeout: REMOVE_MS }).catch((error: unknown) => {
      log.warn({ err: error, image: reference }, 'the canary could not be removed; the next proof does it');
    });
  }
}

/** Of agents that were killed while they had one. An image that has any other name too is somebody's, and stays. */
async function removeLeftovers(cri: Cri, signal: AbortSignal | undefined): Promise<void> {
  const options = { timeout: REMOVE_MS, signal };
  for (const { references } of await cri.images(options)) {
    const [reference] = references;
    if (reference !== undefined && references.every((name) => name.startsWith(`${CANARY_HOST}/`)))
      await cri.remove(reference, options);
  }
}

/** It only helps to explain. */
async function configPathOf(cri: Cri, signal: AbortSignal | undefined): Promise<string | undefined> {
  try {
    return await cri.configPath({ timeout: ASK_MS, signal });
  } catch (error) {
    if (!(error instanceof CriError)) throw error;
    return undefined;
  }
}
