// The cluster by itself, before anything of weir is in it: what the tests of weir build upon.

import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { start } from '../tools/child.ts';
import { removeLeftCgroups } from './cgroups.ts';
import type { Cluster } from './cluster.ts';
import { workloadImage } from './image.ts';
import { eventually } from './patience.ts';
import { pod } from './pods.ts';
import { startCluster } from './start-cluster.ts';

const HOSTS_FILE = '/etc/containerd/certs.d/quay.io/hosts.toml';
const ownHostsFile = '# our own\nserver = "https://quay.io"\n';
const WAIT = '--timeout=60s';

suite('a cluster of two nodes', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster({ files: { node1: { [HOSTS_FILE]: ownHostsFile } }, s3: true });
  });
  after(() => cluster.stop());

  test('has two nodes that are ready, one with a file of its own', async () => {
    const nodes = await cluster.kubectl('wait', '--for=condition=Ready', 'node', '--all', WAIT);
    assert.match(nodes, /^node\/node1 condition met\nnode\/node2 condition met\n$/);
    assert.equal(await cluster.exec('node1', 'cat', HOSTS_FILE), ownHostsFile);
    assert.ok(!existsSync(cluster.path('node2', HOSTS_FILE)));
    assert.ok(!existsSync(HOSTS_FILE), 'and the machine itself has none');
  });

  test('runs an unmodified Pod on each, pulled by its short name from Docker Hub', async () => {
    await cluster.apply(cluster.nodes.map(({ name }) => pod(`web-${name}`, name, 'web:1')));
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '-l', 'app=web', WAIT);
    const log = await cluster.upstreamLog('docker.io');
    for (const { address } of cluster.nodes) {
      const own = log.filter(({ client, host }) => client === address && host === 'registry-1.docker.io');
      const answered = own.filter(({ status }) => status === 200).map(({ path }) => path);
      assert.ok(answered.includes('/v2/library/web/manifests/1'), answered.join('\n'));
      assert.equal(new Set(answered.filter((path) => path.includes('/blobs/'))).size, 2);
      assert.deepEqual(
        own.filter(({ authorization, status }) => (authorization === 'Bearer') !== (status === 200)),
        [],
        'nothing without its token, and all with it',
      );
    }
  });

  test('answers by a Service, under its name, from a Pod', async () => {
    await cluster.apply([
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web' },
        spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
      },
    ]);
    const answered = new Set<string>();
    await eventually('both Pods of the Service answer', async () => {
      answered.add(
        (await getFrom('web-node1', 'http://web.default.svc.cluster.local/')).split(' ', 1)[0] ?? '',
      );
      return answered.size === 2;
    });
    assert.deepEqual([...answered].toSorted(), ['web-node1', 'web-node2']);
  });

  test('has S3 that a Pod reaches', async () => {
    assert.ok(cluster.s3 !== undefined);
    await getFrom('web-node2', `${cluster.s3.endpoint}/minio/health/live`);
  });

  test('has a DaemonSet on the network and in the files of each node', async () => {
    const marker = '/etc/containerd/certs.d/marker';
    const write = ['/workload', 'write', `/host${marker}`, 'written'];
    const volumeMounts = [{ name: 'host', mountPath: '/host' }];
    const labels = { app: 'agent' };
    await cluster.apply([
      {
        apiVersion: 'apps/v1',
        kind: 'DaemonSet',
        metadata: { name: 'agent' },
        spec: {
          selector: { matchLabels: labels },
          template: {
            metadata: { labels },
            spec: {
              hostNetwork: true,
              initContainers: [{ name: 'write', image: 'ghcr.io/acme/web:1', command: write, volumeMounts }],
              containers: [
                {
                  name: 'web',
                  image: 'ghcr.io/acme/web:1',
                  readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
                },
              ],
              volumes: [{ name: 'host', hostPath: { path: '/' } }],
            },
          },
        },
      },
    ]);
    await cluster.kubectl('rollout', 'status', 'daemonset/agent', WAIT);
    for (const { name, address } of cluster.nodes) {
      assert.equal(await cluster.exec(name, 'cat', marker), 'written');
      assert.match(await getFrom('web-node1', `http://${address}:8080/`), new RegExp(`^${name} `));
    }
    assert.ok(!existsSync(marker), 'and none of it is the machine');
  });

  test('lets only who knows the password pull from a private registry', async () => {
    const { username, password } = cluster.credentials;
    for (const host of ['registry', 'basic']) {
      const server = `${host}.corp.example`;
      const image = `${server}/team/web:1`;
      const login = [`--docker-username=${username}`, `--docker-password=${password}`];
      await cluster.kubectl(
        'create',
        'secret',
        'docker-registry',
        host,
        `--docker-server=${server}`,
        ...login,
      );
      const imagePullSecrets = [{ name: host }];
      await cluster.apply([
        pod(`${host}-not`, 'node1', image),
        pod(host, 'node2', image, { imagePullSecrets }),
      ]);
      await cluster.kubectl('wait', '--for=condition=Ready', `pod/${host}`, WAIT);
      await eventually('the Pod without the password waits for its image', async () => {
        const reason = '{.status.containerStatuses[0].state.waiting.reason}';
        const answer = await cluster.kubectl('get', 'pod', `${host}-not`, `-o=jsonpath=${reason}`);
        return /^(ErrImagePull|ImagePullBackOff)$/.test(answer);
      });
    }
  });

  test('has images of OCI layouts', async () => {
    const image = await workloadImage('of a layout');
    const layout = join(cluster.directory, 'layout');
    await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
    for (const { digest, bytes } of [image.manifest, ...image.blobs])
      await writeFile(join(layout, 'blobs', digest.replace(':', '/')), bytes);
    const { digest, mediaType } = image.manifest;
    await writeFile(join(layout, 'index.json'), JSON.stringify({ manifests: [{ digest, mediaType }] }));
    assert.equal(await cluster.pushImage('ghcr.io/acme/layout:1', layout), digest);
    await cluster.pull('node1', 'ghcr.io/acme/layout:1');
    assert.match(await cluster.exec('node1', 'ctr', '-n', 'k8s.io', 'images', 'ls'), new RegExp(digest));
  });

  test('pulls nothing new while an upstream is cut', async () => {
    await cluster.pushImage('quay.io/acme/late:1', await workloadImage('late'));
    await cluster.cutUpstream('quay.io');
    await assert.rejects(cluster.pull('node1', 'quay.io/acme/late:1'), /connection refused|reset/);
    await cluster.pull('node1', 'docker.io/library/web:1');
    await cluster.restoreUpstream();
    await cluster.pull('node1', 'quay.io/acme/late:1');
  });

  test('leaves another cluster beside it in peace, which ends when its process is killed', async () => {
    const other = await start(process.execPath, [join(import.meta.dirname, 'up.ts')], {
      ready: (child) => child.line(/^Ctrl-C ends it/),
    });
    const processes = processesBelow(other.pid);
    assert.ok(processes.length > 10, 'it is whole');
    await other.stop('SIGKILL');
    await eventually('all of the killed cluster is gone', () => !processes.some(isAlive));
    await removeLeftCgroups();
    assert.deepEqual(globSync(`/sys/fs/cgroup/{,*/}weir-test-${other.pid}-*`), []);
    await getFrom('web-node1', 'http://web/');
  });

  test('leaves nothing behind when it stops', async () => {
    const processes = processesBelow(process.pid);
    assert.ok(processes.length > 10, 'they are found');
    await cluster.stop();
    assert.deepEqual(processes.filter(isAlive), []);
    assert.deepEqual(globSync(`/sys/fs/cgroup/{,*/}weir-test-${process.pid}-*`), []);
    assert.ok(!existsSync(cluster.directory));
    assert.doesNotMatch(readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(cluster.directory));
  });

  function getFrom(name: string, url: string): Promise<string> {
    return cluster.kubectl('exec', name, '--', '/workload', 'get', url);
  }
});

/** Process ids of all descendants. */
function processesBelow(pid: number): number[] {
  const children = globSync(`/proc/${pid}/task/*/children`)
    .flatMap((file) => readFileSync(file, 'utf8').split(' '))
    .filter((child) => child !== '')
    .map(Number);
  return children.flatMap((child) => [child, ...processesBelow(child)]);
}

/** Whether it does more than wait for its parent's notice. */
function isAlive(pid: number): boolean {
  const status = existsSync(`/proc/${pid}/status`) ? readFileSync(`/proc/${pid}/status`, 'utf8') : '';
  return status !== '' && !/^State:\s+[ZX]/m.test(status);
}
