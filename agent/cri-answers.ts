import * as z from 'zod';
import { parseJson } from '../oci/json.ts';

export interface RuntimeVersion {
  /** `containerd`, `cri-o`, `docker`. */
  readonly name: string;
  readonly version: string;
}

export interface RuntimeStatus {
  /** Why it does not call itself ready; `undefined` when it does. */
  readonly notReady: string | undefined;
  /**
   * The `config_path` by which the running runtime goes: containerd 1.x tells it. `undefined` when it does not say, as
   * 2.x and other runtimes.
   */
  readonly configPath: string | undefined;
}

export interface CriImage {
  readonly id: string;
  /** Every reference by which it is known, with a tag or a digest. */
  readonly references: readonly string[];
}

const CONTAINER_RUNNING = 1;
const SANDBOX_READY = 0;

export function readVersion(answer: unknown): RuntimeVersion {
  const { runtimeName, runtimeVersion } = versionSchema.parse(answer);
  return { name: runtimeName, version: runtimeVersion };
}

const versionSchema = z.object({ runtimeName: z.string(), runtimeVersion: z.string() });

export function readStatus(answer: unknown): RuntimeStatus {
  const { status, info } = statusSchema.parse(answer);
  const ready = status?.conditions.find(({ type }) => type === 'RuntimeReady');
  const why = `${ready?.reason ?? ''} ${ready?.message ?? ''}`.trim();
  const config = configSchema.safeParse(parseJson(info['config'] ?? ''));
  return {
    notReady: ready?.status === true ? undefined : why || 'it does not say so',
    configPath: config.success ? config.data.registry.configPath : undefined,
  };
}

const conditionSchema = z.object({
  type: z.string(),
  status: z.boolean(),
  reason: z.string(),
  message: z.string(),
});
const statusSchema = z.object({
  status: z.object({ conditions: z.array(conditionSchema).default([]) }).nullish(),
  info: z.record(z.string(), z.string()).default({}),
});
const configSchema = z.object({ registry: z.object({ configPath: z.string() }) });

/** The identities of containers that run. */
export function readRunning(answer: unknown): readonly string[] {
  return idsOf(containersSchema.parse(answer).containers, CONTAINER_RUNNING);
}

/** The identities of sandboxes that are ready. */
export function readReady(answer: unknown): readonly string[] {
  return idsOf(sandboxesSchema.parse(answer).items, SANDBOX_READY);
}

const listed = z.array(z.object({ id: z.string(), state: z.number() })).default([]);
const containersSchema = z.object({ containers: listed });
const sandboxesSchema = z.object({ items: listed });

function idsOf(found: z.infer<typeof listed>, wanted: number): readonly string[] {
  return found.filter(({ state }) => state === wanted).map(({ id }) => id);
}

export function readImages(answer: unknown): readonly CriImage[] {
  return imagesSchema
    .parse(answer)
    .images.map(({ id, repoTags, repoDigests }) => ({ id, references: [...repoTags, ...repoDigests] }));
}

const imageSchema = z.object({
  id: z.string(),
  repoTags: z.array(z.string()).default([]),
  repoDigests: z.array(z.string()).default([]),
});
const imagesSchema = z.object({ images: z.array(imageSchema).default([]) });

export function readPulled(answer: unknown): string {
  return pulledSchema.parse(answer).imageRef;
}

const pulledSchema = z.object({ imageRef: z.string() });
