// A container runtime interface on a socket of its own, whose images and failures a test sets. It really asks the
// mirror for what it is told to pull, as a runtime does that reads its hosts.toml.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Server as NetServer } from 'node:net';
import type { TestContext } from 'node:test';
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import * as z from 'zod';
import { criMessages } from '../../agent/cri-messages.ts';
import { type Canary, canaryOf, parseCanary } from '../../oci/canary.ts';
import { parseReference } from '../../oci/reference.ts';

export interface ScriptedCri {
  readonly socket: string;
  /** By reference: the identities of images. */
  readonly images: Map<string, { id: string; references: readonly string[] }>;
  /** Every call, as `PullImage REFERENCE`. */
  readonly calls: string[];
  /** What it gives for a reference; throws what the runtime says. */
  pull: (reference: string) => Promise<string>;
  configPath: string | undefined;
  /** In place of its own answers, by the name of the method. */
  answers: Readonly<Record<string, () => object>>;
  close(): void;
}

export async function startCri(socket: string): Promise<ScriptedCri> {
  const server = new Server();
  const cri: ScriptedCri = {
    socket,
    images: new Map(),
    calls: [],
    pull: () => Promise.reject(new Error('nothing is scripted')),
    configPath: undefined,
    answers: {},
    close: () => server.forceShutdown(),
  };
  const handlers: Record<string, (reference: string) => object | Promise<object>> = {
    Version: () => ({ runtimeName: 'containerd', runtimeVersion: '1.2.3' }),
    Status: () => ({
      status: { conditions: [{ type: 'RuntimeReady', status: true, reason: '', message: '' }] },
      info:
        cri.configPath === undefined
          ? {}
          : { config: JSON.stringify({ registry: { configPath: cri.configPath } }) },
    }),
    ListImages: () => ({
      images: [...cri.images.values()].map(({ id, references }) => ({
        id,
        repoTags: references.filter((name) => !name.includes('@')),
        repoDigests: references.filter((name) => name.includes('@')),
      })),
    }),
    PullImage: async (reference) => {
      const id = await cri.pull(reference);
      cri.images.set(reference, { id, references: [reference] });
      return { imageRef: id };
    },
    RemoveImage: (reference) => {
      for (const [key, { references }] of cri.images)
        if (references.includes(reference)) cri.images.delete(key);
      return {};
    },
  };
  for (const service of ['RuntimeService', 'ImageService']) {
    const definition = criMessages()[`runtime.v1.${service}`];
    if (definition === undefined || 'format' in definition) throw new Error(`${service} is not defined`);
    const implementation: UntypedServiceImplementation = {};
    for (const name of Object.keys(definition)) {
      const handle: handleUnaryCall<unknown, object> = (call, answer) => {
        const reference = requestSchema.parse(call.request).image?.image ?? '';
        cri.calls.push(`${name} ${reference}`.trim());
        Promise.resolve(reference)
          .then(cri.answers[name] ?? handlers[name] ?? (() => ({})))
          .then(
            (value) => answer(null, value ?? {}),
            (error: unknown) =>
              answer({ code: status.UNKNOWN, details: error instanceof Error ? error.message : '' }),
          );
      };
      implementation[name] = handle;
    }
    server.addService(definition, implementation);
  }
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.bindAsync(`unix://${socket}`, ServerCredentials.createInsecure(), (error) =>
    error === null ? resolve() : reject(error),
  );
  await promise;
  return cri;
}

const requestSchema = z.object({ image: z.object({ image: z.string() }).nullish() });

/** The image that a runtime is told to pull. */
export function canaryBehind(reference: string): Canary {
  return canaryOf(parseCanary(parseReference(reference).repository) ?? assert.fail(reference));
}

/** A server on a port of its own, or on a socket; its URL. */
export async function listen(t: TestContext, server: NetServer, path?: string): Promise<string> {
  t.after(() => server.close());
  if (path === undefined) server.listen(0, '127.0.0.1');
  else server.listen(path);
  await once(server, 'listening');
  const address = server.address();
  return typeof address === 'object' ? `http://127.0.0.1:${address?.port}` : '';
}
