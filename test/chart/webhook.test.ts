// The webhook with the flags and the rights that the chart gives it, and what an upgrade and an uninstall make of its objects.

import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { request } from 'node:https';
import { join } from 'node:path';
import process from 'node:process';
import { Writable } from 'node:stream';
import { json } from 'node:stream/consumers';
import { after, before, suite, test } from 'node:test';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import * as z from 'zod';
import { CHART, render, runTool } from '../../charts/helm.ts';
import { runWebhook } from '../../cli/webhook.ts';
import { freePort } from '../containerd/port.ts';
import { eventually } from '../containerd/weir.ts';
import { provide } from '../tools/cache.ts';
import { type Child, start } from '../tools/child.ts';
import { goModule } from '../tools/go-module.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type ApiServer, startApiServer } from './api-server.ts';

const NAMESPACE = 'mirrors';
const APPS = 'apps';
const NAME = 'weir-webhook';
const NODE = 'node-1';
const NO_REGISTRATION = /NotFound/;

const flag = { type: 'string', default: '' } as const;
const options = {
  'config-map': flag,
  listen: flag,
  status: flag,
  registry: flag,
  service: flag,
  'service-port': flag,
  'cluster-role': flag,
  secret: flag,
  lease: flag,
  'rewrite-to': flag,
  'agent-port': flag,
} as const;

suite('the webhook of a release', () => {
  let scratch: string;
  let api: ApiServer;
  let collector: Child | undefined;
  let port: number;
  let status: string;
  let running: Promise<void>;
  const stop = new AbortController();
  /** What was logged as a warning or worse. */
  const complaints: string[] = [];
  /** Has every manifest but those of `absent`. */
  const registry = createServer(({ url = '' }, response) =>
    response.writeHead(url.includes('absent') ? 404 : 200).end(),
  );

  before(async () => {
    scratch = await makeScratch();
    api = await startApiServer(scratch);
    for (const namespace of [NAMESPACE, APPS]) await api.kubectl('create', 'namespace', namespace);
    await create({ kind: 'ServiceAccount', metadata: { name: 'default', namespace: APPS } });
    await install();
    await new Promise<void>((resolve) => void registry.listen(0, '127.0.0.1', resolve));
    running = run(
      await api.kubectl(...get('deployment', 'jsonpath={.spec.template.spec.containers[0].args}')),
    );
  });
  after(async () => {
    stop.abort();
    await running;
    registry.close();
    await collector?.stop('SIGKILL');
    await api?.stop();
    await removeScratch(scratch);
  });

  const helm = (...args: readonly string[]): Promise<string> =>
    runTool('helm', ...args, '--namespace', NAMESPACE, '--kubeconfig', api.kubeconfig);
  const install = (...flags: readonly string[]): Promise<string> =>
    helm('upgrade', '--install', 'weir', CHART, '--set', 'webhook.enabled=true', ...flags);
  const create = async (object: object): Promise<void> => {
    const file = join(scratch, 'object.json');
    await writeFile(file, JSON.stringify({ apiVersion: 'v1', ...object }));
    await api.kubectl('create', '--filename', file);
  };
  const isThere = (kind: string): Promise<boolean> =>
    api.kubectl(...get(kind, 'name')).then(
      () => true,
      (error: unknown) => {
        assert.match(String(error), NO_REGISTRATION);
        return false;
      },
    );
  /** As the Deployment says, but for addresses of a cluster's network. */
  const run = async (args: string): Promise<void> => {
    const [program, ...flags] = z.array(z.string()).parse(JSON.parse(args));
    assert.equal(program, 'webhook');
    const { values } = parseArgs({ args: flags, options });
    assert.equal(values.registry, `http://weir.${NAMESPACE}.svc:5000`);
    const kubeconfig = join(scratch, 'webhook.yaml');
    await copyFile(api.kubeconfig, kubeconfig);
    const token = await api.kubectl('create', 'token', NAME, '--namespace', NAMESPACE);
    const user = ['config', 'set-credentials', 'administrator', '--token', token.trim()];
    await api.kubectl('--kubeconfig', kubeconfig, ...user);
    process.env['KUBECONFIG'] = kubeconfig;
    const address = registry.address();
    assert.ok(address !== null && typeof address === 'object');
    port = await freePort();
    status = `127.0.0.1:${await freePort()}`;
    await runWebhook({
      configMap: values['config-map'],
      listen: `127.0.0.1:${port}`,
      status,
      registry: `http://127.0.0.1:${address.port}`,
      service: values.service,
      servicePort: values['service-port'],
      clusterRole: values['cluster-role'],
      secret: values.secret,
      lease: values.lease,
      rewriteTo: values['rewrite-to'],
      agentPort: values['agent-port'],
      log: pino({ level: 'warn' }, into(complaints)),
      stop: stop.signal,
    });
  };
  const ask = (path: string): Promise<Response> => fetch(`http://${status}${path}`);
  /** Asks as an API server does before it puts a Pod on a node. */
  const bind = async (name: string): Promise<unknown> => {
    const uid = await api.kubectl('get', 'pod', name, '-n', APPS, '-o', 'jsonpath={.metadata.uid}');
    const object = { metadata: { name, namespace: APPS, uid }, target: { kind: 'Node', name: NODE } };
    const resource = { group: '', version: 'v1', resource: 'pods' };
    const review = { uid: 'a', operation: 'CREATE', resource, subResource: 'binding', namespace: APPS, name };
    const body = JSON.stringify({
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      request: { ...review, object },
    });
    return post(port, await api.kubectl(...get('secret', 'jsonpath={.data.ca\\.crt}')), body);
  };

  test('makes its certificates in the Secret of the chart, and is told of edits of the configuration', async () => {
    await eventually('the webhook is registered for the ConfigMap', () =>
      isThere('validatingwebhookconfiguration'),
    );
    const owner = 'jsonpath={.metadata.ownerReferences[*].kind}/{.metadata.ownerReferences[*].name}';
    assert.equal(await api.kubectl(...get('validatingwebhookconfiguration', owner)), `ClusterRole/${NAME}`);
    assert.match(await api.kubectl(...get('secret', 'jsonpath={.data}')), /"tls\.crt":"\w/);
    assert.match(await api.kubectl(...get('lease', 'jsonpath={.spec.holderIdentity}')), /\w/);
    assert.equal(await isThere('mutatingwebhookconfiguration'), false);
    await eventually('the webhook is ready', async () => (await ask('/readyz')).ok);
  });

  test('has every metric that the alerts of the chart go by', async () => {
    const metrics = await (await ask('/metrics')).text();
    const rules = await render(
      NAMESPACE,
      '--set',
      'webhook.enabled=true,metrics.prometheusRule.enabled=true',
    );
    const names = new Set(rules.match(/\bweir_webhook_\w+/g));
    assert.equal(names.size, 3);
    for (const name of names) assert.match(metrics, new RegExp(`^# TYPE ${name} `, 'm'));
  });

  test('is told of Pods once a node needs it, and rewrites them', async () => {
    const annotations = {
      'weir.dev/upstreams': '{"docker.io":"unsupported"}',
      'weir.dev/door': 'open',
    };
    await create({
      kind: 'Node',
      metadata: { name: NODE, labels: { 'weir.dev/mirror': 'fallback' }, annotations },
    });
    await eventually('the webhook is registered for Pods', () => isThere('mutatingwebhookconfiguration'));
    for (const name of ['there', 'absent'])
      await create({
        kind: 'Pod',
        metadata: { name, namespace: APPS },
        spec: { containers: [{ name: 'app', image: `${name}:1` }] },
      });
    for (const name of ['there', 'absent']) assert.match(JSON.stringify(await bind(name)), /"allowed":true/);
    const path = 'jsonpath={.items[*].spec.containers[*].image}';
    assert.equal(
      await api.kubectl('get', 'pods', '--namespace', APPS, '--output', path),
      'absent:1 127.0.0.1:5700/docker.io/library/there:1',
    );
    await eventually(
      'the Pod says why its image has its own name',
      async () =>
        (await api.kubectl('get', 'events', '-n', APPS, '-o', 'jsonpath={.items[*].reason}')) ===
        'ImageNotRewritten',
    );
  });

  test('keeps its certificates and its leader through an upgrade', async () => {
    const objects = [get('secret', 'jsonpath={.data}'), get('lease', 'jsonpath={.spec.holderIdentity}')];
    const read = (): Promise<string[]> => Promise.all(objects.map((one) => api.kubectl(...one)));
    const earlier = await read();
    await install('--set', 'webhook.replicas=3', '--set', 'commonLabels.a=b');
    assert.deepEqual(await read(), earlier);
    assert.equal(await api.kubectl(...get('secret', 'jsonpath={.metadata.labels.a}')), 'b');
    await helm('rollback', 'weir', '1');
    assert.deepEqual(await read(), earlier);
  });

  test('may do all that it tries to', () => {
    assert.deepEqual(complaints, []);
  });

  test('lets a Pod pass that its own policy does not let it change, and says so under the Pod', async () => {
    const text = 'upstreams: { docker.io: {} }\nrewriteTo: mirror.corp\n';
    const patch = JSON.stringify({ data: { 'config.yaml': text } });
    await api.kubectl('patch', 'configmap', 'weir', '-n', NAMESPACE, '--type=merge', '--patch', patch);
    let count = 0;
    await eventually('the webhook goes by the edit', async () => {
      const name = `denied-${++count}`;
      await create({
        kind: 'Pod',
        metadata: { name, namespace: APPS },
        spec: { containers: [{ name: 'app', image: 'there:1' }] },
      });
      assert.match(JSON.stringify(await bind(name)), /"allowed":true/);
      const image = 'jsonpath={.spec.containers[0].image}';
      return (await api.kubectl('get', 'pod', name, '-n', APPS, '-o', image)) === 'there:1';
    });
    const selector = `involvedObject.name=denied-${count}`;
    const messages = 'jsonpath={.items[*].message}';
    await eventually('an Event says why', async () =>
      /could not do its work .*403.*may only give an image the name that it has in a mirror/.test(
        await api.kubectl('get', 'events', '-n', APPS, '--field-selector', selector, '-o', messages),
      ),
    );
    assert.match(
      await (await ask('/metrics')).text(),
      /decisions_total\{at="bind",decision="left",reason="failed"\} 1/,
    );
  });

  test('has its registrations collected when the release is taken away', async () => {
    stop.abort();
    await running;
    assert.equal(await isThere('mutatingwebhookconfiguration'), true);
    const program = join(await provide(goModule('kubernetes')), 'kube-controller-manager');
    const one = ['--controllers', 'garbage-collector-controller', '--leader-elect=false', '--secure-port=0'];
    collector = await start(program, ['--kubeconfig', api.kubeconfig, ...one], {
      ready: (child) => child.line(/Garbage collector: .*synced/i),
    });
    await helm('uninstall', 'weir', '--no-hooks');
    for (const kind of ['mutatingwebhookconfiguration', 'validatingwebhookconfiguration'])
      await eventually(`no ${kind} is left`, async () => !(await isThere(kind)));
  });
});

/** For kubectl: one of the webhook's own objects. */
function get(kind: string, output: string): string[] {
  return ['get', kind, NAME, '--namespace', NAMESPACE, '--output', output];
}

function into(lines: string[]): Writable {
  return new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
}

function post(port: number, authority: string, body: string): Promise<unknown> {
  const ca = Buffer.from(authority, 'base64').toString();
  const servername = `${NAME}.${NAMESPACE}.svc`;
  const headers = { 'content-type': 'application/json' };
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  request({ host: '127.0.0.1', port, path: '/pods', method: 'POST', ca, servername, headers, agent: false })
    .on('error', reject)
    .on('response', (response) => resolve(json(response)))
    .end(body);
  return promise;
}
