import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import process from 'node:process';
import { suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { WebhookDuties } from '../../cli/webhook-duties.ts';
import { parseConfig } from '../../config/parse.ts';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { createMetrics } from '../../process/metrics.ts';
import { refuse, ScriptedApi } from '../kubernetes/scripted-api.ts';

const REGISTRATIONS = '/apis/admissionregistration.k8s.io/v1';
const ROLE = '/apis/rbac.authorization.k8s.io/v1/clusterroles/weir';

suite('what one replica does for all', () => {
  const kinds = ['mutatingwebhookconfigurations', 'validatingwebhookconfigurations'];
  for (const kind of kinds)
    test(`is done all the same where the API server refuses the ${kind}`, async (t) => {
      const { api, failed } = await duties(t, {
        refused: `${REGISTRATIONS}/${kind}`,
        maintain: Promise.resolve(),
      });
      assert.match(await failed, new RegExp(`register in ${kind}`));
      const registered = kinds.filter((one) => api.get(`${REGISTRATIONS}/${one}/weir`) !== undefined);
      assert.deepEqual(
        registered,
        kinds.filter((one) => one !== kind),
      );
    });

  test('is done all the same where certificates cannot be looked after', async (t) => {
    const maintain = Promise.reject(new Error('the Secret may not be made'));
    const { api, failed } = await duties(t, { refused: '/none', maintain });
    assert.match(await failed, /the Secret may not be made/);
    for (const kind of kinds) assert.ok(api.get(`${REGISTRATIONS}/${kind}/weir`), kind);
  });
});

/** Of a replica that leads, and the first failure that it logs. */
async function duties(
  t: TestContext,
  { refused, maintain }: { readonly refused: string; readonly maintain: Promise<void> },
): Promise<{ readonly api: ScriptedApi; readonly failed: Promise<string> }> {
  maintain.catch(() => undefined);
  const api = await ScriptedApi.start(t);
  api.set(ROLE, { metadata: { uid: 'role' } });
  api.fault = ({ method, path, response }) => {
    if (method === 'GET' || !path.startsWith(refused)) return false;
    refuse(response, 422);
    return true;
  };
  process.env['KUBECONFIG'] = api.kubeconfig;
  const lines = new EventEmitter();
  const failed = once(lines, 'warn').then(([line]) => String(line));
  const made = new WebhookDuties({
    kubernetes: connectKubernetes('test'),
    lease: { namespace: 'weir', name: 'lease' },
    identity: 'me',
    configMap: { namespace: 'weir', name: 'weir' },
    service: { namespace: 'weir', name: 'weir-webhook', port: 443 },
    clusterRole: 'weir',
    certificates: { maintain: () => maintain, close: () => undefined },
    served: () => ({ identity: { cert: '', key: '' }, authorities: 'authorities' }),
    config: () => parseConfig('upstreams: { quay.io: {} }\n').config,
    isNeeded: () => true,
    metrics: createMetrics(),
    log: pino(
      {},
      { write: (line: string) => void (line.includes('"level":40') && lines.emit('warn', line)) },
    ),
  });
  t.after(() => made.close());
  return { api, failed };
}
