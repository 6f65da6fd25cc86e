import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import process from 'node:process';
import { suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import * as z from 'zod';
import { type NodeAgentFlags, runNodeAgent } from '../../cli/node-agent.ts';
import { CANARY_HOST } from '../../oci/canary.ts';
import { issue, makeAuthority } from '../../webhook/x509.ts';
import { startReplica, until } from '../agent/scripted-replica.ts';
import { freePort } from '../containerd/port.ts';
import { refuse, ScriptedApi } from '../kubernetes/scripted-api.ts';
import { type RunningWeir, startWeir } from '../support/weir-command.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

const NODE = '/api/v1/nodes/node1';
const MAP = '/api/v1/namespaces/weir/configmaps/weir';
const LAST_GOOD = `${MAP}-last-good`;
const DAEMON_SET = '/apis/apps/v1/namespaces/weir/daemonsets/weir-agent';
const NAMESPACE = '/api/v1/namespaces/weir';
const SERVICE = '/api/v1/namespaces/weir/services/weir-registry';
const SLICE = '/apis/discovery.k8s.io/v1/namespaces/weir/endpointslices/weir-registry-1';
const OWN = '# their own\nserver = "https://ghcr.io"\n';

/** Of containerd 1.7. */
const CONFIG_TOML = `version = 2
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
`;

const map = (text: string) => ({ data: { 'config.yaml': text } });
const GOOD = 'upstreams: { docker.io: {}, ghcr.io: {} }\n';
const BROKEN = 'upstreams: { docker.io: { mirrr: x } }\n';

suite('the agent of a node', { concurrency: 3 }, () => {
  test('restores the node once its DaemonSet is deleted, although the API server falters', async (t) => {
    const node = await prepare(t);
    const agent = await node.start();
    await until(() => node.label() === 'configured');
    assert.match(await node.hosts('ghcr.io'), /127\.0\.0\.1/);
    node.api.set(DAEMON_SET, undefined);
    let falters = 2;
    node.api.fault = ({ method, response }) => {
      if (method !== 'PATCH' || falters-- <= 0) return false;
      refuse(response, 500);
      return true;
    };
    assert.equal(await agent.stop(), 0);
    assert.deepEqual(await node.hostNames(), ['ghcr.io']);
    assert.equal(await node.hosts('ghcr.io'), OWN);
    assert.equal(existsSync(join(node.root, 'var/lib/weir')), false);
    assert.deepEqual(node.labels(), {});
    assert.deepEqual(node.annotations(), {});
  });

  test('says on the node what it could not restore, and restores the rest', async (t) => {
    const node = await prepare(t);
    const agent = await node.start();
    await until(() => node.label() === 'configured');
    node.api.set(DAEMON_SET, undefined);
    // What stands there now is nothing that weir could put a file in place of.
    await rm(node.file('docker.io'));
    await mkdir(node.file('docker.io'));
    await agent.stop();
    assert.equal(await node.hosts('ghcr.io'), OWN);
    assert.equal(node.label(), 'fallback');
    const reason = String(node.annotations()['weir.dev/mirror-reason']);
    assert.match(reason, /not restored: .*docker\.io.*\/etc\/containerd\/certs\.d\/docker\.io/);
    assert.ok(!reason.includes(node.root), reason);
  });

  test('keeps the files when it is only started again, or cannot find out', async (t) => {
    const node = await prepare(t);
    const agent = await node.start();
    await until(() => node.label() === 'configured');
    assert.equal(node.annotations()['weir.dev/door'], 'open');
    await agent.stop();
    assert.equal(node.annotations()['weir.dev/door'], undefined);
    const again = await node.start();
    await again.logged(/the configuration is in force/);
    node.api.fault = ({ response }) => {
      refuse(response, 403);
      return true;
    };
    node.api.endWatches('break');
    await again.stop();
    assert.match(await node.hosts('docker.io'), /127\.0\.0\.1/);
    assert.equal(node.label(), 'configured');
  });

  test('ends at once while it waits for a configuration, and leaves the node as it was when that is for good', async (t) => {
    const node = await prepare(t);
    node.api.set(MAP, undefined);
    node.api.set(LAST_GOOD, {});
    const agent = await node.start();
    await agent.logged(/no configuration is known yet/);
    assert.equal(await agent.stop(), 0);
    const again = await node.start();
    await again.logged(/no configuration is known yet/);
    node.api.set(DAEMON_SET, undefined);
    assert.equal(await again.stop(), 0);
    assert.equal(existsSync(join(node.root, 'var/lib/weir')), false);
  });

  test('starts amid a bad edit with the last good configuration, although that can be read only later', async (t) => {
    const node = await prepare(t);
    node.api.set(MAP, map(BROKEN));
    node.api.set(LAST_GOOD, map(GOOD));
    let falters = 2;
    node.api.fault = ({ path, response }) => {
      if (path !== LAST_GOOD || falters-- <= 0) return false;
      refuse(response, 500);
      return true;
    };
    await node.start();
    await until(() => node.label() === 'configured');
    assert.ok(await node.hosts('docker.io'));
  });

  test('takes the files of a former run away while its door cannot open, and says why', async (t) => {
    const node = await prepare(t);
    const agent = await node.start();
    await until(() => node.label() === 'configured');
    await agent.stop();
    // As if it had been killed.
    node.api.set(NODE, { metadata: { annotations: { 'weir.dev/door': 'open' } } });
    const taken = createServer().listen(node.port, '127.0.0.1');
    t.after(() => taken.close());
    const again = await node.start();
    await until(() => node.label() === 'fallback');
    assert.deepEqual(await node.hostNames(), ['ghcr.io']);
    assert.match(
      String(node.annotations()['weir.dev/mirror-reason']),
      /another process on this node has the port/,
    );
    assert.equal(node.annotations()['weir.dev/door'], undefined);
    assert.equal(await again.stop(), 0);
  });

  test('keeps the files while the address of the Service cannot be asked for, and drops them when it is gone', async (t) => {
    const node = await prepare(t);
    const mirror = ['--mirror', 'service'];
    const agent = await node.start(mirror);
    await until(() => node.label() === 'configured');
    assert.match(await node.hosts('docker.io'), /10\.96\.0\.7:5000/);
    assert.equal(node.annotations()['weir.dev/door'], undefined);
    await agent.stop();

    node.api.fault = ({ path, response }) => {
      if (!path.includes('/services')) return false;
      refuse(response, 503);
      return true;
    };
    const again = await node.start(mirror);
    await again.logged(/cannot read Service weir\/weir-registry/);
    // Tried for the second time.
    const before = node.api.requests.length;
    await until(() => node.api.requests.slice(before).some(({ path }) => path === SERVICE));
    assert.match(await node.hosts('docker.io'), /10\.96\.0\.7:5000/);
    node.api.set(SERVICE, undefined);
    node.api.fault = () => false;
    await until(async () => (await node.hostNames()).length === 1);
    assert.equal(await again.stop(), 0);
  });

  test('starts again when the Service has another address', async (t) => {
    const node = await prepare(t);
    const mirror = ['--mirror', 'service'];
    const agent = await node.start(mirror);
    await until(() => node.label() === 'configured');
    node.api.set(SERVICE, service('10.96.0.8'));
    await agent.logged(/files name http:\/\/10\.96\.0\.7:5000, and now it is http:\/\/10\.96\.0\.8:5000/);
    await node.start(mirror);
    await until(async () => (await node.hosts('docker.io')).includes('10.96.0.8'));
  });

  test('does without events, label and last good file that cannot be written', async (t) => {
    const node = await prepare(t);
    node.api.fault = ({ method, response }) => {
      if (method === 'GET') return false;
      refuse(response, 403);
      return true;
    };
    await mkdir(join(node.root, 'var/lib/weir/last-good-config.yaml'), { recursive: true });
    const agent = await node.start();
    await agent.logged(/the last good configuration was not kept/);
    await until(async () => (await node.hosts('docker.io')) !== '');
    assert.equal(await agent.stop(), 0);
  });

  test('writes nothing where the runtime would not read it, and says why and what to do', async (t) => {
    const node = await prepare(t);
    const agent = await node.start();
    await until(() => node.label() === 'configured');
    assert.equal(
      node.annotations()['weir.dev/upstreams'],
      '{"docker.io":"configured","ghcr.io":"configured"}',
    );
    await agent.stop();
    // What was written while the runtime read it is taken away.
    await writeFile(node.config, 'version = 2\n');
    await writeVersion(node.root, '1.7.24-1');
    const again = await node.start();
    await until(() => node.label() === 'fallback');
    assert.deepEqual(await node.hostNames(), ['ghcr.io']);
    assert.equal(await node.hosts('ghcr.io'), OWN);
    assert.match(
      String(node.annotations()['weir.dev/mirror-reason']),
      /no config_path is set in \/etc\/containerd\/config\.toml.*Set config_path = .* and restart containerd/,
    );
    assert.equal(
      node.annotations()['weir.dev/upstreams'],
      '{"docker.io":"unsupported","ghcr.io":"unsupported"}',
    );
    assert.equal(node.annotations()['weir.dev/door'], 'open');
    node.api.set(MAP, map('upstreams: { quay.io: {} }\n'));
    await until(() => node.annotations()['weir.dev/upstreams'] === '{"quay.io":"unsupported"}');
    node.api.set(DAEMON_SET, undefined);
    assert.equal(await again.stop(), 0);
    assert.deepEqual(node.annotations(), {});
  });

  test('says why it did not set config_path either, where it was to', async (t) => {
    const node = await prepare(t);
    await writeFile(node.config, 'version = 2\n');
    await writeVersion(node.root, '1.7.24-1');
    const before = await readFile(node.config, 'utf8');
    const door = ['--door', `127.0.0.1:${node.port}`];
    const agent = await node.start([...door, '--configure-runtime', '--lease', 'weir/restart']);
    const reason = (): string => String(node.annotations()['weir.dev/mirror-reason']);
    await until(() => /no config_path is set.*weir did not set config_path: /.test(reason()));
    assert.equal(await readFile(node.config, 'utf8'), before);
    node.api.set(DAEMON_SET, undefined);
    assert.equal(await agent.stop(), 0);
    assert.equal(existsSync(join(node.root, 'var/lib/weir')), false);
  });

  test('writes to both directories of the list trap, and leaves both', async (t) => {
    const node = await prepare(t);
    await writeFile(node.config, 'version = 3\n');
    await writeVersion(node.root, '2.2.1-1');
    const agent = await node.start();
    await until(() => node.label() === 'configured');
    const list = join(node.root, 'etc/containerd/certs.d:/etc/docker/certs.d');
    assert.match(await readFile(join(list, 'docker.io/hosts.toml'), 'utf8'), /127\.0\.0\.1/);
    assert.match(await node.hosts('docker.io'), /127\.0\.0\.1/);
    node.api.set(DAEMON_SET, undefined);
    assert.equal(await agent.stop(), 0);
    assert.equal(existsSync(join(node.root, 'etc/containerd/certs.d:')), false);
    assert.equal(await node.hosts('ghcr.io'), OWN);
    assert.equal(existsSync(join(node.root, 'var/lib/weir')), false);
  });

  test('writes where it is told to, whatever the runtime says', async (t) => {
    const node = await prepare(t);
    await writeFile(node.config, 'version = 2\n');
    await node.start(['--door', `127.0.0.1:${node.port}`, '--certs-dir', '/etc/elsewhere']);
    await until(() => node.label() === 'configured');
    assert.ok(existsSync(join(node.root, 'etc/elsewhere/docker.io/hosts.toml')));
  });

  test('goes to the replicas that it is given in place of a Service, past those that are not there', async (t) => {
    const node = await prepare(t);
    const replica = await startReplica(t, (socket) =>
      socket.end('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n'),
    );
    const list = [await freePort(), replica.port].flatMap((port) => ['--replica', `127.0.0.1:${port}`]);
    const door = `127.0.0.1:${node.port}`;
    await node.start(['--door', door, ...list]);
    await until(() => node.label() === 'configured');
    const { status } = await fetch(`http://${door}/v2/docker.io/library/busybox/manifests/latest`);
    assert.equal(status, 404);
    assert.equal(replica.requests.filter((head) => head.includes('busybox')).length, 1);
    assert.ok(!node.api.requests.some(({ path }) => path.includes('endpointslices')));
  });

  test('asks replicas over TLS by the name of their Service, once it has their authority', async (t) => {
    const node = await prepare(t);
    const period = { from: new Date(Date.now() - 3_600_000), to: new Date(Date.now() + 3_600_000) };
    const authority = makeAuthority('test', period);
    const identity = issue(authority, ['weir-registry.weir.svc'], period);
    const replica = await startReplica(
      t,
      (socket) => socket.write('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n'),
      identity,
    );
    node.api.set(SLICE, {
      metadata: { labels: { 'kubernetes.io/service-name': 'weir-registry' } },
      addressType: 'IPv4',
      ports: [{ name: 'registry', port: replica.port }],
      endpoints: [{ addresses: ['127.0.0.1'], conditions: { ready: true } }],
    });
    const file = join(node.root, 'ca.crt');
    const door = `127.0.0.1:${node.port}`;
    await node.start(['--door', door, '--registry-ca', file]);
    await until(() => node.label() === 'fallback');
    assert.match(
      String(node.annotations()['weir.dev/mirror-reason']),
      /\/ca\.crt is not there: put the certificate/,
    );
    await writeFile(file, authority.cert);
    await until(() => node.label() === 'configured');
    const url = `http://${door}/v2/docker.io/library/busybox/manifests/latest`;
    await until(async () => (await fetch(url)).status === 404);
    assert.match(await node.hosts('docker.io'), /"http:\/\/127\.0\.0\.1:\d+"/);
  });

  test('follows the last of many edits, and keeps that one', async (t) => {
    const node = await prepare(t);
    await node.start();
    await until(() => node.label() === 'configured');
    for (let edit = 0; edit < 40; edit++) {
      if (edit % 5 === 4) node.api.set(MAP, undefined);
      node.api.set(
        MAP,
        map(edit % 3 === 0 ? `${BROKEN}# ${edit}` : `upstreams: { host${edit}.example: {} }\n`),
      );
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const last = 'upstreams: { quay.io: {} }\n';
    node.api.set(MAP, map(last));
    await until(async () => (await node.hostNames()).join() === 'ghcr.io,quay.io');
    await until(
      async () => (await readFile(join(node.root, 'var/lib/weir/last-good-config.yaml'), 'utf8')) === last,
    );
    assert.equal(node.label(), 'configured');
  });
});

suite('of wrong flags', () => {
  const rest: NodeAgentFlags = {
    configMap: 'weir/weir',
    node: 'n',
    daemonSet: 'weir/a',
    listen: '127.0.0.1:0',
    hostRoot: '/',
    certsDir: '/c',
    stateDir: '/s',
    criSocket: '/cri.sock',
    registryService: 'weir/r',
  };
  const door = { ...rest, door: '127.0.0.1:5700' };
  const { registryService: _, ...serviceless } = door;
  const table: readonly (readonly [NodeAgentFlags, RegExp])[] = [
    [rest, /give either --door HOST:PORT or --mirror/],
    [{ ...door, mirror: 'service' }, /give either --door HOST:PORT or --mirror/],
    [serviceless, /--registry-service is missing, or --replica HOST:PORT of each replica/],
    [{ ...door, replica: ['10.0.0.1:5000'] }, /--replica is for --door, instead of --registry-service/],
    [{ ...rest, mirror: 'service', replica: ['10.0.0.1:5000'] }, /--replica is for --door/],
    [{ ...serviceless, replica: ['10.0.0.1:0'] }, /--replica takes the HOST:PORT of one replica/],
    [{ ...serviceless, replica: [':5000'] }, /--replica takes the HOST:PORT of one replica/],
    [
      { ...rest, mirror: 'service', registryCa: '/ca.crt' },
      /--registry-ca is for --door: for --mirror https:/,
    ],
    [{ ...door, door: ':5700' }, /--door takes an address that only this node reaches/],
    [{ ...door, door: '10.0.0.1:5700' }, /--door takes an address that only this node reaches/],
    [{ ...door, door: '127.0.0.1:0' }, /--door takes an address that only this node reaches/],
    [{ ...rest, mirror: 'nodePort' }, /needs --host-ip/],
    [{ ...rest, mirror: 'nodePort', hostIp: '' }, /needs --host-ip/],
    [{ ...rest, mirror: 'nodeport' }, /"nodeport" is no address of a mirror/],
    [{ ...door, mirrorCa: '/ca.pem' }, /--mirror-ca is for --mirror https:/],
    [{ ...rest, mirror: 'http://m', mirrorCa: '/ca.pem' }, /--mirror-ca is for --mirror https:/],
    [{ ...rest, mirror: 'service', mirrorCa: '/ca.pem' }, /--mirror-ca is for --mirror https:/],
    [{ ...rest, mirror: 'https://m', mirrorCa: '/none.pem' }, /cannot read \/none\.pem/],
    [{ ...rest, mirror: 'https://m', mirrorCa: process.execPath }, /holds no certificate in PEM/],
    [{ ...door, once: true }, /--once is for --config/],
    [{ ...door, config: 'x' }, /give either --config FILE or --config-map/],
    [{ ...door, certsDir: 'certs' }, /--certs-dir takes a path that begins with "\/", and "certs" does not/],
    [{ ...door, daemonSet: 'weir' }, /--daemon-set takes NAMESPACE\/NAME/],
    [{ ...door, configMap: 'weir/a/b' }, /--config-map takes NAMESPACE\/NAME/],
    [{ ...door, node: '' }, /--node is empty/],
    [{ ...door, configureRuntime: true }, /--configure-runtime needs --lease NAMESPACE\/NAME/],
    [{ ...door, listen: 'nowhere' }, /"nowhere" is no address/],
  ];
  for (const [flags, message] of table)
    test(`one sentence says ${String(message)}`, async () => {
      const log = pino({ level: 'silent' });
      await assert.rejects(runNodeAgent({ ...flags, log, stop: AbortSignal.abort() }), {
        name: 'UsageError',
        message,
      });
    });
});

const recordSchema = z.record(z.string(), z.unknown());
const service = (clusterIP: string) => ({ spec: { clusterIP, ports: [{ port: 5000 }] } });

/** As Debian's package manager knows it. */
async function writeVersion(root: string, version: string): Promise<void> {
  await mkdir(join(root, 'var/lib/dpkg'), { recursive: true });
  await writeFile(
    join(root, 'var/lib/dpkg/status'),
    `Package: containerd\nStatus: install ok installed\nVersion: ${version}\n\n`,
  );
}

/** A node with a file of its own, in a cluster with everything that the agent asks for. */
async function prepare(t: TestContext) {
  const api = await ScriptedApi.start(t);
  const root = await makeScratch();
  const agents: RunningWeir[] = [];
  t.after(async () => {
    await Promise.all(agents.map((agent) => agent.stop('SIGKILL')));
    await removeScratch(root);
  });
  const certs = join(root, 'etc/containerd/certs.d');
  await mkdir(join(certs, 'ghcr.io'), { recursive: true });
  await writeFile(join(certs, 'ghcr.io/hosts.toml'), OWN);
  const config = join(root, 'etc/containerd/config.toml');
  await writeFile(config, CONFIG_TOML);
  api.set(NODE, {});
  api.set(NAMESPACE, {});
  api.set(MAP, map(GOOD));
  api.set(DAEMON_SET, {});
  api.set(SERVICE, service('10.96.0.7'));
  const port = await freePort();
  const file = (host: string): string => join(certs, host, 'hosts.toml');
  const ofNode = (key: string): Readonly<Record<string, unknown>> =>
    recordSchema.parse(api.get(NODE)?.metadata?.[key] ?? {});
  return {
    api,
    root,
    port,
    file,
    config,
    labels: () => ofNode('labels'),
    label: () => ofNode('labels')['weir.dev/mirror'],
    annotations: () => ofNode('annotations'),
    hosts: (host: string) => readFile(file(host), 'utf8').catch(() => ''),
    // Of the upstreams: weir's own canary is no news.
    hostNames: async () => (await readdir(certs)).filter((name) => name !== CANARY_HOST),
    async start(mirror = ['--door', `127.0.0.1:${port}`]): Promise<RunningWeir> {
      process.env['KUBECONFIG'] = api.kubeconfig;
      const names = ['--config-map', 'weir/weir', '--node', 'node1', '--daemon-set', 'weir/weir-agent'];
      const more = [
        ...(mirror.includes('--replica') ? [] : ['--registry-service', 'weir/weir-registry']),
        '--cri-socket',
        '/cri.sock',
        '--host-root',
        root,
        '--state-dir',
        '/var/lib/weir',
      ];
      const started = startWeir('agent', ...names, ...more, ...mirror, '--listen', '127.0.0.1:0');
      const agent = await started;
      agents.push(agent);
      return agent;
    },
  };
}
