import { Client, credentials } from '@grpc/grpc-js';
import { fromJSON, type PackageDefinition } from '@grpc/proto-loader';
import * as z from 'zod';
import { parseJson } from '../oci/json.ts';
import type { CallOptions, CriPlace } from './cri.ts';
import { resolveOnNode } from './node-root.ts';

/** How a runtime is, and what runs on it. */
export interface Workload {
  /** Why it does not call itself ready; `undefined` when it does. */
  readonly notReady: string | undefined;
  /** Containers that run, and sandboxes of Pods that are ready, by their identities. */
  readonly running: readonly string[];
  /** The `config_path` that the running process goes by; only containerd 1.x tells it. */
  readonly configPath: string | undefined;
}

/** More than a node has containers for. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
const CONTAINER_RUNNING = 1;
const SANDBOX_READY = 0;

/** Asks a runtime over CRI. @throws Error when it does not answer in time. */
export async function askWorkload({ root = '/', socket }: CriPlace, options: CallOptions): Promise<Workload> {
  const path = await resolveOnNode(root, socket);
  const client = new Client(`unix://${path}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    // A proxy of the environment is none for a socket.
    'grpc.enable_http_proxy': 0,
  });
  try {
    const { status, info } = statusSchema.parse(await call(client, 'Status', { verbose: true }, options));
    const { containers } = containersSchema.parse(await call(client, 'ListContainers', {}, options));
    const { items } = sandboxesSchema.parse(await call(client, 'ListPodSandbox', {}, options));
    const ready = status.conditions.find(({ type }) => type === 'RuntimeReady');
    const config = configSchema.safeParse(parseJson(info['config'] ?? ''));
    return {
      notReady:
        ready?.status === true
          ? undefined
          : `${ready?.reason ?? ''} ${ready?.message ?? ''}`.trim() || 'it does not say so',
      running: [
        ...containers.filter(({ state }) => state === CONTAINER_RUNNING),
        ...items.filter(({ state }) => state === SANDBOX_READY),
      ].map(({ id }) => id),
      configPath: config.success ? config.data.registry.configPath : undefined,
    };
  } finally {
    client.close();
  }
}

const conditionSchema = z.object({
  type: z.string(),
  status: z.boolean(),
  reason: z.string(),
  message: z.string(),
});
const statusSchema = z.object({
  status: z
    .object({ conditions: z.array(conditionSchema).default([]) })
    .nullish()
    .transform((status) => status ?? { conditions: [] }),
  info: z.record(z.string(), z.string()).default({}),
});
const configSchema = z.object({ registry: z.object({ configPath: z.string() }) });
const listed = z.array(z.object({ id: z.string(), state: z.number() })).default([]);
const containersSchema = z.object({ containers: listed });
const sandboxesSchema = z.object({ items: listed });

type Name = 'Status' | 'ListContainers' | 'ListPodSandbox';

async function call(
  client: Client,
  name: Name,
  request: object,
  { timeout, signal }: CallOptions,
): Promise<unknown> {
  signal?.throwIfAborted();
  const service = workloadMessages()['runtime.v1.RuntimeService'];
  const method = service === undefined || 'format' in service ? undefined : service[name];
  if (method === undefined || typeof method === 'string') throw new Error(`CRI has no ${name}`);
  const { path, requestSerialize, responseDeserialize } = method;
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const sent = client.makeUnaryRequest(
    path,
    requestSerialize,
    responseDeserialize,
    request,
    { deadline: Date.now() + timeout },
    (error, answer) => (error === null ? resolve(answer) : reject(error)),
  );
  const cancel = (): void => sent.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await promise;
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

/** What is asked here of `runtime.v1`, as cri-messages.ts has it of what is asked elsewhere. */
export function workloadMessages(): PackageDefinition {
  messages ??= define();
  return messages;
}

let messages: PackageDefinition | undefined;

function define(): PackageDefinition {
  const names: readonly Name[] = ['Status', 'ListContainers', 'ListPodSandbox'];
  const methods = Object.fromEntries(
    names.map((name) => [
      name,
      { requestType: `${name}Request`, responseType: `${name}Response`, comment: '' },
    ]),
  );
  const nested = {
    RuntimeService: { methods },
    StatusRequest: { fields: { verbose: { type: 'bool', id: 1 } } },
    StatusResponse: {
      fields: {
        status: { type: 'RuntimeStatus', id: 1 },
        info: { keyType: 'string', type: 'string', id: 2 },
      },
    },
    RuntimeStatus: { fields: { conditions: { rule: 'repeated', type: 'RuntimeCondition', id: 1 } } },
    RuntimeCondition: {
      fields: {
        type: { type: 'string', id: 1 },
        status: { type: 'bool', id: 2 },
        reason: { type: 'string', id: 3 },
        message: { type: 'string', id: 4 },
      },
    },
    ListContainersRequest: { fields: {} },
    ListContainersResponse: { fields: { containers: { rule: 'repeated', type: 'Container', id: 1 } } },
    Container: { fields: { id: { type: 'string', id: 1 }, state: { type: 'int32', id: 6 } } },
    ListPodSandboxRequest: { fields: {} },
    ListPodSandboxResponse: { fields: { items: { rule: 'repeated', type: 'PodSandbox', id: 1 } } },
    PodSandbox: { fields: { id: { type: 'string', id: 1 }, state: { type: 'int32', id: 3 } } },
  };
  return fromJSON({ nested: { runtime: { nested: { v1: { nested } } } } }, { defaults: true });
}
