// Schemas of Kubernetes' own objects for kubeconform, made from the API description in the Kubernetes module.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import type { Recipe } from '../tools/cache.ts';
import { run } from '../tools/command.ts';

/** How kubeconform finds a kind's schema in the recipe's directory. */
export const SCHEMA_NAMES = '{{.ResourceKind}}{{.KindSuffix}}.json';

const DEFINITIONS = '_definitions.json';

const kind = z.object({ group: z.string(), version: z.string(), kind: z.string() });
const definition = z.looseObject({ 'x-kubernetes-group-version-kind': z.array(kind).optional() });
const description = z.object({ definitions: z.record(z.string(), definition) });
const download = z.object({ Dir: z.string() });

type Kind = z.infer<typeof kind>;

export function kubernetesSchemas(): Recipe {
  const module = `k8s.io/kubernetes@${pinnedKubernetes()}`;
  const source = readFileSync(import.meta.filename);
  return {
    name: 'kubernetes-schemas',
    key: createHash('sha256').update(module).update(source).digest('hex').slice(0, 16),
    make: async (directory) => {
      const env = { ...process.env, GOTOOLCHAIN: 'local', GOWORK: 'off' };
      const { Dir } = download.parse(
        JSON.parse(await run('go', ['mod', 'download', '-json', module], { cwd: directory, env })),
      );
      const text = await readFile(join(Dir, 'api', 'openapi-spec', 'swagger.json'), 'utf8');
      const { definitions } = description.parse(JSON.parse(text));
      await writeFile(join(directory, DEFINITIONS), JSON.stringify({ definitions: strict(definitions) }));
      for (const [name, { 'x-kubernetes-group-version-kind': kinds }] of Object.entries(definitions)) {
        for (const one of kinds ?? []) {
          const reference = { $ref: `${DEFINITIONS}#/definitions/${name}` };
          await writeFile(join(directory, fileName(one)), JSON.stringify(reference));
        }
      }
    },
  };
}

/** The version that the cluster of the tests runs. */
function pinnedKubernetes(): string {
  const file = join(import.meta.dirname, '..', 'tools', 'kubernetes', 'go.mod');
  const version = /^\s*(?:require )?k8s\.io\/kubernetes (v\S+)/m.exec(readFileSync(file, 'utf8'))?.[1];
  if (version === undefined) throw new Error(`${file} requires no k8s.io/kubernetes`);
  return version;
}

function fileName({ group, version, kind }: Kind): string {
  const [first = ''] = group.split('.');
  return `${[kind, ...(first === '' ? [] : [first]), version].join('-').toLowerCase()}.json`;
}

/** JSON Schema of what OpenAPI describes, in which an unknown field is an error, as with `kubectl --validate=strict`. */
function strict(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(strict);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, inner]): [string, unknown] => [key, strict(inner)]);
  const schema: Record<string, unknown> = Object.fromEntries(entries);
  if (schema['format'] === 'int-or-string') return { type: ['string', 'integer'] };
  const closed = typeof schema['properties'] === 'object' && schema['type'] === 'object';
  return closed && schema['additionalProperties'] === undefined
    ? { ...schema, additionalProperties: false }
    : schema;
}
