// weir in a cluster of real parts, from `helm install` to `helm uninstall`: one story, told in order.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { Authority } from './authority.ts';
import type { Cluster } from './cluster.ts';
import { workloadImage } from './image.ts';
import { eventually } from './patience.ts';
import { fetchersOf, startPods } from './pods.ts';
import { CERTS_DIR, configFor, NAMESPACE, Release, signalRegistries } from './release.ts';
import { startCluster } from './start-cluster.ts';

const OWN_FILE = `${CERTS_DIR}/ghcr.io/hosts.toml`;
const OWN_TEXT =
  '# our own\nserver = "https://ghcr.io"\n\n[host."https://mirror.corp.example"]\n  capabilities = ["pull"]\n';
const UPSTREAMS = ['docker.io', 'ghcr.io', 'registry.k8s.io', 'registry.corp.example'];
const LIST_AUTHORITY = [
  '/nodejs/bin/node',
  '--eval',
  "console.log(fs.readdirSync('/etc/weir/registry-ca/').filter((name) => !name.startsWith('..')).join())",
];
const WAIT = '--timeout=60s';

suite('weir, installed from its chart', { concurrency: false }, () => {
  let cluster: Cluster;
  let release: Release;
  const original = new Map<string, string>();

  before(async () => {
    cluster = await startCluster({ s3: true, files: { node1: { [OWN_FILE]: OWN_TEXT } } });
    release = await Release.prepare(cluster, UPSTREAMS);
    for (const { name } of cluster.nodes) original.set(name, await release.nodeFiles(name));
  });
  after(() => cluster.stop());

  const start = (name: string, node: string, image: string, more: object = {}): Promise<void> =>
    startPods(cluster, { name, node, image, more });
  const hostsFile = (node: string, host: string): Promise<string> =>
    cluster.exec(node, 'cat', `${CERTS_DIR}/${host}/hosts.toml`);
  const pulledBy = (registry: string, repository: string) => fetchersOf(cluster, registry, repository);

  test('configures every node, and says so', async () => {
    const said = await release.install();
    assert.match(said, /kubectl get nodes -L weir\.dev\/mirror/);
    for (const { name } of cluster.nodes) {
      await eventually('the node is configured', async () => (await release.label(name)) === 'configured');
      assert.match(await hostsFile(name, 'docker.io'), /\[host\."http:\/\/127\.0\.0\.1:5700"\]/);
    }
    assert.match(await hostsFile('node1', 'ghcr.io'), /127\.0\.0\.1:5700.*mirror\.corp\.example/s);
  });

  test('proves on every node by a canary image that its runtime obeys', async () => {
    for (const { name } of cluster.nodes) {
      await eventually('the node is proven', async () =>
        /weir\.dev\/proof: proven/.test(await cluster.kubectl('get', 'node', name, '--output', 'yaml')),
      );
      assert.doesNotMatch(await cluster.exec(name, 'ctr', '--namespace', 'k8s.io', 'images', 'ls'), /canary/);
    }
  });

  test('has unmodified Pods pull through the mirror: by short name, by host and by digest', async () => {
    const byDigest = await cluster.pushImage('docker.io/library/pinned:1', await workloadImage('pinned'));
    await start('short', 'node1', 'web:1');
    await start('host', 'node1', 'ghcr.io/acme/web:1');
    await start('digest', 'node1', `docker.io/library/pinned@${byDigest}`);
    const asked = (await release.requests()).map(({ url }) => url);
    for (const part of ['/v2/library/web/manifests/1?ns=docker.io', '/v2/acme/web/manifests/1?ns=ghcr.io'])
      assert.ok(asked.includes(part), `${part} is among ${asked.join(' ')}`);
    assert.ok(asked.some((url) => url.startsWith(`/v2/library/pinned/manifests/${byDigest}`)));
    for (const [registry, repository] of [
      ['docker.io', 'library/web'],
      ['ghcr.io', 'acme/web'],
      ['docker.io', 'library/pinned'],
    ] as const)
      assert.deepEqual(await pulledBy(registry, repository), ['mirror'], repository);
  });

  test('leaves a private image to the upstream and its imagePullSecret', async () => {
    const { username, password } = cluster.credentials;
    const login = [`--docker-username=${username}`, `--docker-password=${password}`];
    const server = 'registry.corp.example';
    await cluster.kubectl(
      'create',
      'secret',
      'docker-registry',
      'corp',
      `--docker-server=${server}`,
      ...login,
    );
    await start('private', 'node1', `${server}/team/web:1`, { imagePullSecrets: [{ name: 'corp' }] });
    assert.ok((await pulledBy(server, 'team/web')).includes('node1'));
  });

  test('passes helm test, which has each node pull', async () => {
    const said = await release.test();
    for (const { name } of cluster.nodes)
      assert.match(said, new RegExp(`${name}: pulled through the mirror`));
  });

  test('starts the same Pods on another node while the upstreams are cut off', async () => {
    await cluster.whileCut(async () => {
      await start('short-2', 'node2', 'web:1');
      await start('host-2', 'node2', 'ghcr.io/acme/web:1');
    });
    assert.deepEqual(await pulledBy('docker.io', 'library/web'), ['mirror']);
  });

  test('lets Pods start from the upstream when the registry hangs, and when it is gone', async () => {
    for (const [what, name] of [
      ['STOP', 'hangs'],
      ['KILL', 'gone'],
    ] as const) {
      await cluster.pushImage(`docker.io/library/${name}:1`, await workloadImage(name));
      if (what === 'KILL') await release.kubectl('scale', 'deployment/weir-registry', '--replicas=0');
      await signalRegistries(cluster, what);
      // Without the door, a registry that hangs costs a pull 90 s and more.
      await start(name, 'node1', `${name}:1`);
      assert.ok((await pulledBy('docker.io', `library/${name}`)).includes('node1'));
      await signalRegistries(cluster, 'CONT');
    }
    await release.kubectl('scale', 'deployment/weir-registry', '--replicas=2');
    await release.kubectl('rollout', 'status', 'deployment/weir-registry', WAIT);
  });

  test('brings an edit of the ConfigMap to every node', async () => {
    await release.edit(configFor([...UPSTREAMS, 'quay.io']));
    for (const { name } of cluster.nodes)
      await eventually(
        'the node has the new upstream',
        async () => (await hostsFile(name, 'quay.io')) !== '',
        10_000,
      );
    await start('edited', 'node2', 'quay.io/acme/web:1');
    assert.deepEqual(await pulledBy('quay.io', 'acme/web'), ['mirror']);
  });

  test('has the API server refuse a broken edit, with its line', async () => {
    const broken = 'upstreams:\n  docker.io: { mirrr: x }\n';
    await eventually('it is asked', () =>
      release.edit(broken).then(
        () => false,
        (error: unknown) => /line 2|:2:|mirrr/.test(String(error)),
      ),
    );
  });

  test('changes nothing for a broken edit that gets in all the same, and says so', async () => {
    const good = await release.config();
    const files = await release.nodeFiles('node1');
    // Nobody looks at edits then.
    await release.kubectl('scale', 'deployment/weir-webhook', '--replicas=0');
    await release.kubectl(
      'wait',
      '--for=delete',
      'pods',
      '--selector=app.kubernetes.io/component=webhook',
      WAIT,
    );
    await release.edit('upstreams: { docker.io: { mirrr: x } }');
    for (const { name } of cluster.nodes)
      await eventually(
        'the agent refuses',
        async () => (await release.agentMetric(name, 'weir_config_valid')) === 0,
      );
    await eventually('an Event tells of it', async () =>
      /ConfigRefused.*mirrr/s.test(await release.kubectl('get', 'events', '--output', 'wide')),
    );
    assert.equal(await release.nodeFiles('node1'), files);
    // Programs that start now find the configuration before it.
    await release.kubectl('rollout', 'restart', 'deployment/weir-registry', 'daemonset/weir-agent');
    for (const what of ['deployment/weir-registry', 'daemonset/weir-agent'])
      await release.kubectl('rollout', 'status', what, WAIT);
    assert.equal(await release.nodeFiles('node1'), files);
    await release.kubectl('delete', 'configmap', 'weir');
    await start('deleted', 'node2', 'ghcr.io/acme/web:1');
    assert.equal(await release.nodeFiles('node1'), files);
    await release.install();
    await release.edit(good);
    for (const { name } of cluster.nodes)
      await eventually(
        'the agent agrees',
        async () => (await release.agentMetric(name, 'weir_config_valid')) === 1,
      );
  });

  test('keeps a live edit through an upgrade that does not change the configuration', async () => {
    const edited = await release.config();
    await release.install('--set', 'logLevel=debug');
    assert.equal(await release.config(), edited);
    assert.match(edited, /quay\.io/);
  });

  test('goes on while the API server is away', async () => {
    await release.kubectl('rollout', 'status', 'daemonset/weir-agent', WAIT);
    await cluster.exec('control-plane', 'pkill', '-STOP', '-x', 'kube-apiserver');
    try {
      await cluster.pull('node2', 'docker.io/library/pinned:1');
    } finally {
      await cluster.exec('control-plane', 'pkill', '-CONT', '-x', 'kube-apiserver');
    }
    assert.deepEqual(await pulledBy('docker.io', 'library/pinned'), ['mirror']);
  });

  test('gives the nodes back while it is switched off', async () => {
    const on = await release.config();
    await release.edit(`enabled: false\n${on}`);
    for (const { name } of cluster.nodes)
      await eventually(
        'the node is as it was',
        async () => (await release.nodeFiles(name)) === original.get(name),
        10_000,
      );
    await release.edit(on);
    for (const { name } of cluster.nodes)
      await eventually('the node is configured', async () => (await release.label(name)) === 'configured');
  });

  test('speaks TLS between nodes and registry with the certificate of a Secret', async () => {
    const authority = await Authority.make(join(cluster.directory, 'registry-authority'));
    const { cert, key } = await authority.issue('registry', '/CN=weir', [`DNS:weir.${NAMESPACE}.svc`]);
    const files = { 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.ca };
    const data = await Promise.all(
      Object.entries(files).map(async ([name, file]) => [name, await readFile(file, 'utf8')] as const),
    );
    await cluster.apply([
      {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 'registry-tls', namespace: NAMESPACE },
        stringData: Object.fromEntries(data),
      },
    ]);
    await release.install('--set', 'registry.tls.enabled=true,registry.tls.existingSecret=registry-tls');
    await release.kubectl('rollout', 'status', 'daemonset/weir-agent', WAIT);
    const logs = await release.kubectl(
      'logs',
      '--selector=app.kubernetes.io/component=registry',
      '--tail=-1',
    );
    assert.equal([...logs.matchAll(/"url":"https:[^"]+".*the registry answers/g)].length, 2);
    await cluster.pushImage('docker.io/library/secured:1', await workloadImage('secured'));
    await start('secured', 'node1', 'secured:1');
    assert.deepEqual(await pulledBy('docker.io', 'library/secured'), ['mirror']);
    assert.ok((await release.requests()).some(({ url }) => url.includes('/library/secured/blobs/')));
    const said = await release.test();
    for (const { name } of cluster.nodes) {
      assert.match(said, new RegExp(`${name}: pulled through the mirror`));
      await eventually(
        'the node is proven',
        async () => (await release.annotation(name, 'proof')) === 'proven',
      );
      const mounted = await release.kubectl('exec', await release.agentPod(name), '--', ...LIST_AUTHORITY);
      assert.equal(mounted, 'ca.crt\n', 'the key is not on nodes');
    }
  });

  test('leaves every node as it was when it is uninstalled', async () => {
    await release.uninstall();
    for (const { name } of cluster.nodes) {
      assert.equal(await release.nodeFiles(name), original.get(name), name);
      assert.doesNotMatch(await cluster.kubectl('get', 'node', name, '--output', 'yaml'), /weir\.dev/);
      assert.equal(
        await cluster.exec(name, 'sh', '-c', 'ls -d /var/lib/weir 2>/dev/null || echo none'),
        'none\n',
      );
    }
    await eventually('nothing of the release is left', async () => {
      return (
        (await cluster.kubectl(
          'get',
          'all,configmap,secret,role,clusterrole',
          '--all-namespaces',
          '--selector',
          'app.kubernetes.io/instance=weir',
          '--output',
          'name',
        )) === ''
      );
    });
  });

  test('leaves every node as it was when its namespace is deleted', async () => {
    await release.install();
    for (const { name } of cluster.nodes)
      await eventually('the node is configured', async () => (await release.label(name)) === 'configured');
    await cluster.kubectl('delete', 'namespace', NAMESPACE, '--timeout=90s');
    for (const { name } of cluster.nodes)
      assert.equal(await release.nodeFiles(name), original.get(name), name);
    await cluster.kubectl(
      'delete',
      'clusterrole,clusterrolebinding',
      '--selector',
      'app.kubernetes.io/instance=weir',
    );
  });
});
