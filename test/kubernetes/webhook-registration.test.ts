import assert from 'node:assert/strict';
import process from 'node:process';
import { suite, type TestContext, test } from 'node:test';
import * as z from 'zod';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { registerWebhooks } from '../../kubernetes/webhook-registration.ts';
import { ScriptedApi } from './scripted-api.ts';

const REGISTRY = 'mutatingwebhookconfigurations';
const PATH = `/apis/admissionregistration.k8s.io/v1/${REGISTRY}/weir`;
const ROLE = '/apis/rbac.authorization.k8s.io/v1/clusterroles/weir';
const OWNER = { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', name: 'weir', uid: 'role' };
const WANTED = {
  name: 'pods.weir.dev',
  admissionReviewVersions: ['v1'],
  clientConfig: { service: { namespace: 'weir', name: 'weir', path: '/pods', port: 443 } },
  sideEffects: 'None',
  namespaceSelector: { matchExpressions: [{ key: 'a', operator: 'NotIn', values: ['b'] }] },
  matchConditions: [],
};
/** As an API server has it: with its defaults, and without lists of nothing. */
const { matchConditions: _, ...SENT } = WANTED;
const STORED = { ...SENT, matchPolicy: 'Equivalent', objectSelector: {}, timeoutSeconds: 10 };

const storedSchema = z.looseObject({
  metadata: z.looseObject({ labels: z.unknown(), ownerReferences: z.unknown() }),
  webhooks: z.array(z.unknown()),
});

interface Registration {
  readonly webhooks: readonly object[];
  readonly owners?: readonly object[];
}

suite('a registration that is there', () => {
  test('is left alone while it is as it is to be, with what the API server adds', async (t) => {
    const { register } = await registered(t, { webhooks: [STORED] });
    assert.equal(await register(), 'kept');
  });

  const slips: Readonly<Record<string, Registration>> = {
    'authorities where none are wanted': {
      webhooks: [{ ...STORED, clientConfig: { ...STORED.clientConfig, caBundle: 'T0xE' } }],
    },
    'a selector of objects': { webhooks: [{ ...STORED, objectSelector: { matchLabels: { a: 'b' } } }] },
    'a narrower selector of namespaces': {
      webhooks: [
        { ...STORED, namespaceSelector: { ...STORED.namespaceSelector, matchLabels: { only: 'these' } } },
      ],
    },
    'a condition': { webhooks: [{ ...STORED, matchConditions: [{ name: 'never', expression: 'false' }] }] },
    'no owner': { webhooks: [STORED], owners: [] },
    'an owner that is gone': { webhooks: [STORED], owners: [{ ...OWNER, uid: 'gone' }] },
    'another webhook': { webhooks: [STORED, { ...STORED, name: 'other' }] },
  };
  for (const [what, slip] of Object.entries(slips))
    test(`is put right when it has ${what}`, async (t) => {
      const { register, stored } = await registered(t, slip);
      assert.equal(await register(), 'changed');
      assert.deepEqual(stored().webhooks, [WANTED]);
      assert.deepEqual(stored().metadata.ownerReferences, [OWNER]);
      assert.deepEqual(stored().metadata.labels, { mine: 'yes' }, 'and what makes no difference stays');
      assert.equal(await register(), 'kept');
    });
});

/** With this registration, and the ClusterRole to which it belongs. */
async function registered(t: TestContext, { owners = [OWNER], webhooks }: Registration) {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  api.set(ROLE, { metadata: { uid: 'role' } });
  api.set(PATH, { webhooks, metadata: { labels: { mine: 'yes' }, ownerReferences: owners } });
  const kubernetes = connectKubernetes('test');
  const place = { name: 'weir', clusterRole: 'weir' };
  return {
    register: () => registerWebhooks(kubernetes, REGISTRY, place, [WANTED]),
    stored: () => storedSchema.parse(api.get(PATH)),
  };
}
