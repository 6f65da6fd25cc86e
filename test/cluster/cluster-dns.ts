// The resolver of the cluster's Pods: Services by the names that Kubernetes gives them, all else as the nodes
// have it. Started by control-plane.ts as
//
//	node cluster-dns.ts API_SERVER TOKEN_FILE
//
// with the cluster's authority in NODE_EXTRA_CA_CERTS.

import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import * as z from 'zod';
import { answerFrom, forward, nameIn, serveDns } from './dns.ts';
import { CONTROL_PLANE, PUBLIC_DNS } from './layout.ts';

const ZONE = 'cluster.local';
const INTERVAL_MS = 500;

const metadataSchema = z.object({
  name: z.string(),
  namespace: z.string(),
  labels: z.record(z.string(), z.string()).default({}),
});
const servicesSchema = z.object({
  items: z.array(
    z.object({ metadata: metadataSchema, spec: z.object({ clusterIP: z.string().default('None') }) }),
  ),
});
const slicesSchema = z.object({
  items: z.array(
    z.object({
      metadata: metadataSchema,
      addressType: z.string(),
      endpoints: z
        .array(
          z.object({
            addresses: z.array(z.string()),
            conditions: z.object({ ready: z.boolean().default(true) }).default({ ready: true }),
          }),
        )
        .nullish(),
    }),
  ),
});

const [server = '', tokenFile = ''] = process.argv.slice(2);
const token = readFileSync(tokenFile, 'utf8').trim();
let services = new Map<string, readonly string[]>();

serveDns(CONTROL_PLANE, async (query) => {
  const name = nameIn(query);
  return name === ZONE || name.endsWith(`.${ZONE}`)
    ? answerFrom(query, (wanted) => services.get(wanted))
    : forward(query, PUBLIC_DNS);
});
for (;;) {
  services = await readServices().catch((error: unknown) => {
    // The API server comes up later, and may go away: what was known is still the best answer.
    console.error(error);
    return services;
  });
  await setTimeout(INTERVAL_MS);
}

async function readServices(): Promise<Map<string, readonly string[]>> {
  const { items } = servicesSchema.parse(await get('/api/v1/services'));
  const slices = slicesSchema.parse(await get('/apis/discovery.k8s.io/v1/endpointslices')).items;
  return new Map(
    items.map(({ metadata: { name, namespace }, spec: { clusterIP } }) => {
      const own = slices.filter(
        ({ metadata, addressType }) =>
          metadata.namespace === namespace &&
          metadata.labels['kubernetes.io/service-name'] === name &&
          addressType === 'IPv4',
      );
      const ready = own.flatMap(({ endpoints }) =>
        (endpoints ?? []).filter(({ conditions }) => conditions.ready).flatMap(({ addresses }) => addresses),
      );
      return [`${name}.${namespace}.svc.${ZONE}`, clusterIP === 'None' ? ready : [clusterIP]];
    }),
  );
}

async function get(path: string): Promise<unknown> {
  const answer = await fetch(`${server}${path}`, { headers: { authorization: `Bearer ${token}` } });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}
