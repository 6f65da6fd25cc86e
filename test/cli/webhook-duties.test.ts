import { EventEmitter, on } from 'node:events';
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

const REGISTERED = [/the webhook for Pods is registered/, /the webhook for the configuration is registered/];

suite('what one replica does for all', () => {
  for (const [at, kind] of ['mutatingwebhookconfigurations', 'validatingwebhookconfigurations'].entries())
    test(`is done all the same where the API server refuses the ${kind}`, async (t) => {
      const refused = `${REGISTRATIONS}/${kind}`;
      const others = REGISTERED.filter((_, index) => index !== at);
      const lines = [new RegExp(`register in ${kind}.*stays as it is`), ...others];
      await logged(t, lines, { refused, maintain: () => Promise.resolve() });
    });

  test('is done all the same where certificates cannot be looked after, or not in time', async (t) => {
    await logged(t, [/the Secret may not be made.*stay as they are/, ...REGISTERED], {
      maintain: () => Promise.reject(new Error('the Secret may not be made')),
    });
    const late = Promise.withResolvers<void>();
    t.after(() => late.resolve());
    await logged(t, REGISTERED, { maintain: () => late.promise });
  });
});

/** Resolves when a replica that leads has logged a line like each of these. */
async function logged(
  t: TestContext,
  expressions: readonly RegExp[],
  { refused, maintain }: { readonly refused?: string; readonly maintain: () => Promise<void> },
): Promise<void> {
  const api = await ScriptedApi.start(t);
  api.set(ROLE, { metadata: { uid: 'role' } });
  api.fault = ({ method, path, response }) => {
    if (method === 'GET' || refused === undefined || !path.startsWith(refused)) return false;
    refuse(response, 422);
    return true;
  };
  process.env['KUBECONFIG'] = api.kubeconfig;
  const lines = new EventEmitter();
  const all = Promise.all(expressions.map((expression) => lineLike(lines, expression)));
  const made = new WebhookDuties({
    kubernetes: connectKubernetes('test'),
    lease: { namespace: 'weir', name: 'lease' },
    identity: 'me',
    configMap: { namespace: 'weir', name: 'weir' },
    service: { namespace: 'weir', name: 'weir-webhook', port: 443 },
    clusterRole: 'weir',
    certificates: { maintain, close: () => undefined },
    served: () => ({ identity: { cert: '', key: '' }, authorities: 'authorities' }),
    config: () => parseConfig('upstreams: { quay.io: {} }\n').config,
    isNeeded: () => true,
    metrics: createMetrics(),
    log: pino({}, { write: (line: string) => lines.emit('line', line) }),
  });
  t.after(() => made.close());
  await all;
}

async function lineLike(lines: EventEmitter, expression: RegExp): Promise<void> {
  for await (const [line] of on(lines, 'line')) if (expression.test(String(line))) return;
}
