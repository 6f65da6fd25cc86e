// What holds the webhook's account to its own registration, and there to what it is asked about.

import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { AdmissionregistrationV1Api } from '@kubernetes/client-node';
import { CHART, runTool } from '../../charts/helm.ts';
import { parseConfig } from '../../config/parse.ts';
import { apiProblem } from '../../kubernetes/client.ts';
import { registerWebhooks } from '../../kubernetes/webhook-registration.ts';
import { configWebhook, podWebhooks } from '../../webhook/registration.ts';
import { eventually } from '../containerd/weir.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { ADMINISTRATOR, clientAs, connectAs, tokenOf } from './account.ts';
import { type ApiServer, startApiServer } from './api-server.ts';

const NAMESPACE = 'mirrors';
const NAME = 'weir-webhook';
const MUTATING = 'mutatingwebhookconfigurations';
const VALIDATING = 'validatingwebhookconfigurations';
const { config } = parseConfig('upstreams: { docker.io: {} }\n');
const options = { service: { namespace: NAMESPACE, name: NAME, port: 443 }, authorities: '' };
const edits = configWebhook({ namespace: NAMESPACE, name: 'weir' }, options);

suite("the webhook's account among registrations", () => {
  let scratch: string;
  let api: ApiServer;
  let token: string;

  before(async () => {
    scratch = await makeScratch();
    api = await startApiServer(scratch);
    await api.kubectl('create', 'namespace', NAMESPACE);
    const flags = ['--namespace', NAMESPACE, '--kubeconfig', api.kubeconfig];
    await runTool('helm', 'install', 'weir', CHART, '--set', 'webhook.enabled=true', ...flags);
    token = await tokenOf(api, NAMESPACE, NAME);
    const isObeyed = async (): Promise<boolean> =>
      (await attempt(token, { metadata: { name: 'other' } })) !== undefined;
    await eventually('the API server obeys the policy', isObeyed);
  });
  after(async () => {
    await api?.stop();
    await removeScratch(scratch);
  });

  /** What the API server says against a registration, which is not made. `undefined`: nothing. */
  const attempt = async (owner: string, changes: object, kind = 'mutating'): Promise<string | undefined> => {
    const client = await clientAs(owner, api, scratch);
    const admission = client.makeApiClient(AdmissionregistrationV1Api);
    const metadata = { name: NAME };
    try {
      if (kind === 'mutating') {
        const body = { metadata, webhooks: podWebhooks('auto', { ...options, config }), ...changes };
        await admission.createMutatingWebhookConfiguration({ body, dryRun: 'All' });
      } else {
        const body = { metadata, webhooks: [edits], ...changes };
        await admission.createValidatingWebhookConfiguration({ body, dryRun: 'All' });
      }
      return undefined;
    } catch (error) {
      return apiProblem('register', error).message;
    }
  };

  const slip = (change: object): Promise<string> =>
    api.kubectl('patch', MUTATING, NAME, '--type=merge', '--patch', JSON.stringify(change));

  test('may register what the webhook registers, change it and withdraw it', async () => {
    const kubernetes = await connectAs(token, api, scratch);
    const place = { name: NAME, clusterRole: NAME };
    const register = (
      registry: typeof MUTATING | typeof VALIDATING,
      webhooks: Parameters<typeof registerWebhooks>[3],
    ) => registerWebhooks(kubernetes, registry, place, webhooks);
    const [some, all] = (['auto', 'always'] as const).map((mode) =>
      podWebhooks(mode, { ...options, config }),
    );
    assert.equal(await register(MUTATING, some ?? []), 'registered');
    assert.equal(await register(MUTATING, some ?? []), 'kept');
    await slip({ metadata: { ownerReferences: null } });
    assert.equal(await register(MUTATING, some ?? []), 'changed');
    assert.equal(await register(MUTATING, some ?? []), 'kept');
    assert.equal(await register(MUTATING, all ?? []), 'changed');
    assert.equal(await register(MUTATING, []), 'withdrawn');
    assert.equal(await register(VALIDATING, [edits]), 'registered');
    assert.equal(await register(VALIDATING, [edits]), 'kept');
    assert.equal(await register(VALIDATING, []), 'withdrawn');
  });

  const [pods] = podWebhooks('always', { ...options, config });
  assert.ok(pods !== undefined);
  const elsewhere = { service: { namespace: 'apps', name: NAME, path: '/' } };
  const refusals: readonly (readonly [what: string, changes: object, sentence: RegExp, kind?: string])[] = [
    ['another name', { metadata: { name: 'other' } }, /only register itself, as weir-webhook/],
    [
      'another Service',
      { webhooks: [{ ...pods, clientConfig: elsewhere }] },
      /only register its own Service/,
    ],
    [
      'a URL',
      { webhooks: [{ ...pods, clientConfig: { url: 'https://evil.example/' } }] },
      /only register its own Service/,
    ],
    ['refusing', { webhooks: [{ ...pods, failurePolicy: 'Fail' }] }, /may hold nothing up/],
    ['hesitating', { webhooks: [{ ...pods, timeoutSeconds: 10 }] }, /may hold nothing up/],
    [
      'everything',
      { webhooks: [{ ...pods, rules: [{ ...pods.rules[0], resources: ['*'] }] }] },
      /only be asked about Pods/,
    ],
    [
      'Secrets',
      { webhooks: [{ ...edits, rules: [{ ...edits.rules[0], resources: ['secrets'] }] }] },
      /only be asked about Pods, and about the configuration/,
      'validating',
    ],
    [
      'ConfigMaps of others',
      { webhooks: [{ ...edits, namespaceSelector: {} }] },
      /only be asked about Pods, and about the configuration/,
      'validating',
    ],
  ];
  for (const [what, changes, sentence, kind] of refusals)
    test(`is refused: ${what}`, async () => {
      assert.match((await attempt(token, changes, kind)) ?? '', sentence);
      assert.equal(
        await attempt(ADMINISTRATOR, changes, kind),
        undefined,
        'it would be no use without the policy',
      );
    });
});
