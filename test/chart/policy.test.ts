// What holds an agent to its own node, and there to what is weir's: with tokens as the kubelet gives them to Pods.

import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { CoreV1Api, PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';
import { pino } from 'pino';
import { CHART, render, runTool } from '../../charts/helm.ts';
import { apiProblem } from '../../kubernetes/client.ts';
import { NodeEvents } from '../../kubernetes/node-events.ts';
import { NodeReporter } from '../../kubernetes/node-report.ts';
import { eventually } from '../containerd/weir.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { ADMINISTRATOR, clientAs, connectAs, createObject, tokenOf } from './account.ts';
import { type ApiServer, startApiServer } from './api-server.ts';

const OWN = 'node-1';
const OTHER = 'node-2';
const NAMESPACE = 'mirrors';
const ACCOUNT = 'weir-agent';
/** The token of somebody who may do everything. */
const KIND = 'admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy';
const MERGE_PATCH = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);

suite('an agent in a cluster', () => {
  let scratch: string;
  let api: ApiServer;
  /** Of the agent's Pod on its own node. */
  let token: string;

  before(async () => {
    scratch = await makeScratch();
    api = await startApiServer(scratch);
    await api.kubectl('create', 'namespace', NAMESPACE);
    for (const name of [OWN, OTHER]) await create(nodeNamed(name));
    const flags = ['--namespace', NAMESPACE, '--kubeconfig', api.kubeconfig];
    await runTool('helm', 'install', 'weir', CHART, ...flags);
    // There is nobody here who would make the Pods of the DaemonSet, or these accounts.
    await create({ kind: 'ServiceAccount', metadata: { name: 'other', namespace: NAMESPACE } });
    for (const name of [ACCOUNT, 'other']) await create(podOf(name));
    token = await podToken(ACCOUNT);
    const isObeyed = (): Promise<boolean> =>
      attempt(token, OWN, { metadata: { labels: { a: 'b' } } }).then((refusal) => refusal !== undefined);
    await eventually('the API server obeys the policy', isObeyed);
  });
  after(async () => {
    await api?.stop();
    await removeScratch(scratch);
  });

  const create = (object: object): Promise<void> => createObject(api, scratch, object);
  /** Of the Pod with the account's name. */
  const podToken = (account: string): Promise<string> => {
    const bound = ['--bound-object-kind', 'Pod', '--bound-object-name', account];
    return tokenOf(api, NAMESPACE, account, ...bound);
  };
  /** What the API server says against a patch; nothing is changed by it. `undefined`: nothing. */
  const attempt = async (owner: string, name: string, body: object): Promise<string | undefined> => {
    const core = (await clientAs(owner, api, scratch)).makeApiClient(CoreV1Api);
    try {
      await core.patchNode({ name, body, dryRun: 'All' }, MERGE_PATCH);
      return undefined;
    } catch (error) {
      return apiProblem('patch', error).message;
    }
  };

  test('may say on its own node how it stands, and take that back', async () => {
    for (const value of ['configured', 'fallback', 'off', null])
      assert.equal(await attempt(token, OWN, mine(value)), undefined);
  });

  const refusals: readonly (readonly [what: string, patch: object, sentence: RegExp])[] = [
    [
      'another label',
      { metadata: { labels: { 'node-role.kubernetes.io/control-plane': '' } } },
      /only touch the label/,
    ],
    ['a label that is there', { metadata: { labels: { zone: 'b' } } }, /only touch the label/],
    ['taking a label away', { metadata: { labels: { zone: null } } }, /only touch the label/],
    ['a word of its own', mine('perhaps'), /is configured, fallback or off/],
    ['another annotation', { metadata: { annotations: { a: 'b' } } }, /only touch annotations/],
    ['an annotation that is there', { metadata: { annotations: { owner: 'b' } } }, /only touch annotations/],
    ['taking an annotation away', { metadata: { annotations: { owner: null } } }, /only touch annotations/],
    [
      'a taint',
      { spec: { taints: [{ key: 'a', effect: 'NoExecute' }] } },
      /only touch labels and annotations/,
    ],
    ['cordoning', { spec: { unschedulable: true } }, /only touch labels and annotations/],
    ['a finalizer', { metadata: { finalizers: ['weir.dev/a'] } }, /only touch labels and annotations/],
    [
      'an owner',
      { metadata: { ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: 'a', uid: 'a' }] } },
      /only touch labels and annotations/,
    ],
    ['all at once', { metadata: { labels: null, annotations: null }, spec: null }, /only touch/],
  ];
  for (const [what, patch, sentence] of refusals)
    test(`is refused on its own node: ${what}`, async () => {
      assert.match((await attempt(token, OWN, patch)) ?? '', sentence);
      assert.equal(
        await attempt(ADMINISTRATOR, OWN, patch),
        undefined,
        'it would be no use without the policy',
      );
    });

  test('is refused on another node whatever it says there', async () => {
    assert.match(
      (await attempt(token, OTHER, mine('configured'))) ?? '',
      /only touch the node that it is on/,
    );
    assert.match((await attempt(token, OTHER, {})) ?? '', /only touch the node that it is on/);
  });

  test('is held to the keys alone where its token names no node', async () => {
    const unbound = await tokenOf(api, NAMESPACE, ACCOUNT, '--duration', '1h');
    assert.equal(await attempt(unbound, OTHER, mine('configured')), undefined);
    assert.match(
      (await attempt(unbound, OTHER, { spec: { unschedulable: true } })) ?? '',
      /only touch labels/,
    );
  });

  test('is the only one that is held', async () => {
    const role = ['clusterrolebinding', 'other', `--clusterrole=${ACCOUNT}`];
    await api.kubectl('create', ...role, `--serviceaccount=${NAMESPACE}:other`);
    const other = await podToken('other');
    for (const [, patch] of refusals) assert.equal(await attempt(other, OTHER, patch), undefined);
  });

  test('reports and leaves with the rights that the chart gives it', async (t) => {
    const kubernetes = await connectAs(token, api, scratch);
    const log = pino({ level: 'warn' });
    const events = new NodeEvents({ kubernetes, node: OWN, reporter: 'weir-agent', log });
    const reporter = new NodeReporter(kubernetes, OWN, log, { events, gatherMs: 1 });
    t.after(() => reporter.close());
    const read = (path: string): Promise<string> =>
      api.kubectl('get', 'node', OWN, '--output', `jsonpath={.metadata.${path}}`);

    const upstreams = new Map([['docker.io', 'configured']]);
    reporter.report({
      mirror: 'configured',
      configHash: '0'.repeat(64),
      isDoorOpen: true,
      upstreams,
      reasons: new Map(),
    });
    const label = 'labels.weir\\.dev/mirror';
    await eventually('the node has its label', async () => (await read(label)) === 'configured');
    assert.equal(await read('annotations.weir\\.dev/upstreams'), '{"docker.io":"configured"}');
    assert.equal(await read('annotations.weir\\.dev/door'), 'open');
    await eventually('the node has an Event', async () =>
      (await api.kubectl('get', 'events', '--output', 'jsonpath={.items[*].reason}'))
        .split(' ')
        .includes('MirrorConfigured'),
    );

    await reporter.conclude();
    assert.equal(await read(label), '');
    assert.equal(await read('annotations'), '{"owner":"a"}');
    assert.equal(await read('labels.zone'), 'a');
  });
});

test('the policy is there where the cluster has such, or is new enough as far as is known', async () => {
  assert.equal(await isThere(), true);
  assert.equal(await isThere('--kube-version', '1.29.9'), false);
  assert.equal(await isThere('--api-versions', 'v1/Pod', '--api-versions', KIND), true);
  assert.equal(await isThere('--api-versions', 'v1/Pod'), false);
  assert.equal(await isThere('--set', 'agent.nodePolicy=false'), false);
});

async function isThere(...flags: readonly string[]): Promise<boolean> {
  // The webhook has policies of its own.
  const alone = ['--set', 'webhook.enabled=false'];
  return (await render(NAMESPACE, ...alone, ...flags)).includes('kind: ValidatingAdmissionPolicy\n');
}

/** What an agent says of its node; with `null` it takes it back. */
function mine(value: string | null): object {
  return { metadata: { labels: { 'weir.dev/mirror': value }, annotations: { 'weir.dev/proof': value } } };
}

function nodeNamed(name: string): object {
  return { kind: 'Node', metadata: { name, labels: { zone: 'a' }, annotations: { owner: 'a' } } };
}

/** On the agent's node, whatever the account. */
function podOf(account: string): object {
  return {
    kind: 'Pod',
    metadata: { name: account, namespace: NAMESPACE },
    spec: { nodeName: OWN, serviceAccountName: account, containers: [{ name: 'a', image: 'a' }] },
  };
}
