import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, suite, test } from 'node:test';
import * as z from 'zod';
import { CHART, runTool } from '../../charts/helm.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type ApiServer, startApiServer } from './api-server.ts';
import { cases, flagsOf } from './cases.ts';

const configMap = z.object({ data: z.record(z.string(), z.string()) });

suite('a release', () => {
  let scratch: string;
  let api: ApiServer;
  let namespace: string;
  let count = 0;

  before(async () => {
    scratch = await makeScratch();
    api = await startApiServer(scratch);
  });
  after(async () => {
    await api?.stop();
    await removeScratch(scratch);
  });
  beforeEach(async () => {
    namespace = `mirrors-${++count}`;
    await api.kubectl('create', 'namespace', namespace);
  });
  // Nothing runs here, so the hook would be waited for in vain.
  afterEach(() => helm('uninstall', 'weir', '--ignore-not-found', '--no-hooks'));

  const helm = (...args: readonly string[]): Promise<string> =>
    runTool('helm', ...args, '--namespace', namespace, '--kubeconfig', api.kubeconfig);
  const install = (...flags: readonly string[]): Promise<string> =>
    helm('upgrade', '--install', 'weir', CHART, ...flags);
  const live = async (): Promise<string | undefined> => {
    const text = await api.kubectl('get', 'configmap', 'weir', '--namespace', namespace, '--output', 'json');
    return configMap.parse(JSON.parse(text)).data['config.yaml'];
  };
  const edit = async (text: string): Promise<void> => {
    const patch = JSON.stringify({ data: { 'config.yaml': text } });
    await api.kubectl('patch', 'configmap', 'weir', '--namespace', namespace, '--patch', patch);
  };

  const byHand = 'upstreams:\n  # by hand\n  nvcr.io: {}\n';

  test('keeps an edit of its configuration through upgrades that do not change it', async () => {
    await install();
    await edit(byHand);
    await install('--set', 'agent.maxUnavailable=2');
    assert.equal(await live(), byHand);
    const daemonSet = ['get', 'daemonset', 'weir-agent', '--namespace', namespace, '--output'];
    assert.equal(
      await api.kubectl(...daemonSet, 'jsonpath={.spec.updateStrategy.rollingUpdate.maxUnavailable}'),
      '2',
    );
    await install();
    assert.equal(await live(), byHand);
  });

  test('leaves the last good configuration to the registry, which wrote it', async () => {
    await install();
    const place = ['configmap', 'weir-last-good', '--namespace', namespace];
    await api.kubectl('patch', ...place, '--patch', JSON.stringify({ data: { 'config.yaml': byHand } }));
    await install('--set', 'agent.maxUnavailable=2');
    const left = await api.kubectl('get', ...place, '--output', 'json');
    assert.equal(configMap.parse(JSON.parse(left)).data['config.yaml'], byHand);
  });

  test('replaces the edit once the values change the configuration, also to what it was before', async () => {
    await install();
    const original = await live();
    await edit(byHand);
    await install('--set-json', 'config={"upstreams":{"quay.io":{}}}');
    assert.match((await live()) ?? '', /^upstreams:\n {2}quay\.io: \{\}\n$/m);
    // Without it, an upgrade without values takes those of the release.
    await install('--reset-values');
    assert.equal(await live(), original);
  });

  test('makes a configuration anew that somebody deleted', async () => {
    await install();
    const original = await live();
    await edit(byHand);
    await api.kubectl('delete', 'configmap', 'weir', '--namespace', namespace);
    await install();
    assert.equal(await live(), original);
  });

  test('goes back, by a rollback, to the configuration that it had then', async () => {
    await install();
    await edit(byHand);
    await install('--set', 'agent.maxUnavailable=2');
    await install('--set-json', 'config={"upstreams":{"quay.io":{}}}');
    await helm('rollback', 'weir', '2');
    assert.equal(await live(), byHand);
    await install();
    assert.equal(await live(), byHand);
  });

  test('switches between stores by upgrades', async () => {
    await install();
    await install('--set', 'persistence.enabled=true');
    await install('--set', 's3.bucket=images,s3.region=x');
    await install('--reset-values');
  });

  for (const [name, values] of cases)
    test(`is admitted by the API server: ${name}`, async () => {
      await install(...flagsOf(without(values, 'metrics')));
    });

  test('is refused where the namespace lets no agent start, with the command that helps', async () => {
    const label = ['label', '--overwrite', 'namespace', namespace];
    await api.kubectl(...label, 'pod-security.kubernetes.io/enforce=baseline');
    const sentence = new RegExp(`kubectl (label --overwrite namespace ${namespace} (\\S+=privileged))`);
    const refusal = await install().then(String, String);
    assert.match(refusal, sentence);
    const [, command = ''] = sentence.exec(refusal) ?? [];
    await api.kubectl(...command.split(' '));
    await install();
  });

  test('is refused beside another one, whose agents have the same nodes', async () => {
    await install();
    const second = [CHART, '--namespace', 'default', '--kubeconfig', api.kubeconfig];
    await assert.rejects(
      runTool('helm', 'install', 'again', ...second),
      new RegExp(`weir is installed already, as weir-agent in the namespace ${namespace}`),
    );
  });
});

function without(values: object, key: string): object {
  return Object.fromEntries(Object.entries(values).filter(([name]) => name !== key));
}
