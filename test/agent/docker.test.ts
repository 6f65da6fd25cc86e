import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, lstat, mkdir, readFile, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { mirrorsOf } from '../../agent/docker/daemon-json.ts';
import { DockerFiles, type DockerOptions } from '../../agent/docker/docker-files.ts';
import { cutBefore } from './cut-power.ts';
import { configOf, MIRROR } from './node-files.ts';
import { makeRoot, processes, type RuntimeRoot, statesOf, summary } from './runtime-root.ts';

const FILE = '/etc/docker/daemon.json';
const HUB = 'upstreams: { docker.io: {} }';
const RUNS = processes({ 7: { args: ['/usr/sbin/dockerd', '-H', 'fd://'] } });

interface Docker {
  readonly files: DockerFiles;
  apply(yaml: string, mirror?: string): ReturnType<DockerFiles['apply']>;
}

function dockerOf(node: RuntimeRoot, options: Partial<DockerOptions> = {}): Docker {
  const files = new DockerFiles({ ...node, signal: () => Promise.resolve(), ...options });
  return { files, apply: (yaml, mirror = MIRROR) => files.apply({ config: configOf(yaml), mirror }) };
}

/** A dockerd as far as the agent knows one: what it goes by, and that a key which is gone from its file changes nothing. */
interface Dockerd {
  /** What it was asked to go by, one list for each signal. */
  readonly told: (readonly string[])[];
  mirrors(): readonly string[];
  readonly options: Required<Pick<DockerOptions, 'signal' | 'socket'>>;
}

async function startDockerd(t: TestContext, node: RuntimeRoot, isDeaf = false): Promise<Dockerd> {
  let current: readonly string[] = [];
  const told: (readonly string[])[] = [];
  const server = createServer((request, response) => {
    assert.equal(request.url, '/info');
    response.end(JSON.stringify({ ID: 'x', RegistryConfig: { Mirrors: current.map((one) => `${one}/`) } }));
  });
  await mkdir(join(node.root, 'run'), { recursive: true });
  server.listen(join(node.root, 'run', 'd.sock'));
  await once(server, 'listening');
  t.after(() => server.close());
  return {
    told,
    mirrors: () => current,
    options: {
      socket: '/run/d.sock',
      signal: async () => {
        const text = await readFile(join(node.root, FILE), 'utf8').catch(() => '');
        if (!isDeaf) current = mirrorsOf(text) ?? current;
        told.push(current);
      },
    },
  };
}

const ADDED = '"registry-mirrors": ["http://127.0.0.1:30500"]';

const found: readonly { readonly name: string; readonly before?: string; readonly after: string }[] = [
  { name: 'no file', after: `{\n  ${ADDED}\n}\n` },
  { name: 'an empty file', before: '\n', after: `{\n  ${ADDED}\n}\n` },
  { name: 'an empty object', before: '{}\n', after: `{\n  ${ADDED}\n}\n` },
  { name: 'an empty object of two lines', before: '{\n}', after: `{\n  ${ADDED}\n}\n` },
  {
    name: 'other keys',
    before: '{\n    "log-driver": "json-file",\n    "log-opts": {"max-size": "10m"}\n}\n',
    after: `{\n    ${ADDED},\n    "log-driver": "json-file",\n    "log-opts": {"max-size": "10m"}\n}\n`,
  },
  {
    name: 'one line',
    before: '{"debug":true,"x":"}\\"]"}',
    after: `{${ADDED}, "debug":true,"x":"}\\"]"}`,
  },
  {
    name: 'other mirrors, and tabs and carriage returns',
    before:
      '{\r\n\t"a": [1, {"registry-mirrors": ["x"]}],\r\n\t"registry-mirrors": [\r\n\t\t"https://a.corp",\r\n\t\t"https://b.corp"\r\n\t]\r\n}\r\n',
    after:
      '{\r\n\t"a": [1, {"registry-mirrors": ["x"]}],\r\n\t"registry-mirrors": [\r\n\t\t"http://127.0.0.1:30500",\r\n\t\t"https://a.corp",\r\n\t\t"https://b.corp"\r\n\t]\r\n}\r\n',
  },
  {
    name: 'one other mirror',
    before: '{"registry-mirrors":["https://a.corp"]}',
    after: '{"registry-mirrors":["http://127.0.0.1:30500", "https://a.corp"]}',
  },
  { name: 'an empty list', before: '{"registry-mirrors": [ ]}', after: `{${ADDED}}` },
  { name: 'null', before: '{ "registry-mirrors": null }', after: `{ ${ADDED} }` },
  {
    name: 'the key twice, the last of which counts',
    before: '{"registry-mirrors": ["https://a.corp"], "registry-mirrors": []}',
    after: `{"registry-mirrors": ["https://a.corp"], ${ADDED}}`,
  },
];

for (const { name, before, after } of found)
  test(`where there is ${name}, daemon.json says this, a second run changes nothing, and restoring undoes it`, async (t) => {
    const node = await makeRoot(t, { ...RUNS, ...(before === undefined ? {} : { [FILE]: before }) });
    if (before !== undefined) await chmod(join(node.root, FILE), 0o600);
    const was = await node.etc();
    const dockerd = await startDockerd(t, node);
    const docker = dockerOf(node, dockerd.options);
    const outcome = await docker.apply(HUB);
    assert.deepEqual(statesOf(outcome), { 'docker.io': 'configured' });
    assert.deepEqual(summary(outcome.changes), ['written docker.io']);
    assert.equal(await node.read(FILE), after);
    assert.equal((await stat(join(node.root, FILE))).mode & 0o777, before === undefined ? 0o644 : 0o600);
    assert.equal(dockerd.mirrors()[0], MIRROR);
    const { ino } = await stat(join(node.root, FILE));
    const again = await dockerOf(node, dockerd.options).apply(HUB);
    assert.deepEqual([statesOf(again), again.changes], [{ 'docker.io': 'configured' }, []]);
    assert.equal((await stat(join(node.root, FILE))).ino, ino);
    assert.equal(dockerd.told.length, 1, 'it goes by it already');

    const undone = before === undefined ? 'removed docker.io' : 'restored docker.io';
    assert.deepEqual(summary(await docker.files.restore()), [undone]);
    assert.deepEqual(await node.etc(), was);
    assert.ok(!dockerd.mirrors().includes(MIRROR), 'dockerd knows that it is gone');
    assert.deepEqual(await docker.files.restore(), []);
    assert.deepEqual(await node.kept(), []);
  });

test('only Docker Hub has mirrors, and the canary is none of it', async (t) => {
  const node = await makeRoot(t, RUNS);
  const config = configOf('upstreams: { quay.io: {}, docker.io: {} }');
  const outcome = await dockerOf(node).files.apply({ config, mirror: MIRROR, canary: true });
  const states = statesOf(outcome);
  assert.equal(states['docker.io'], 'configured');
  assert.match(
    states['quay.io'] ?? '',
    /^unsupported: Docker has mirrors for docker\.io alone: only the webhook/,
  );
  assert.equal(outcome.canary, undefined);
});

test("a registry with an authority of its own is a mirror where Docker's files have that", async (t) => {
  const node = await makeRoot(t, RUNS);
  const wanted = { config: configOf(HUB), mirror: 'https://weir.corp:8443', mirrorCa: 'the PEM' };
  const { files } = dockerOf(node);
  const authority = '/etc/docker/certs.d/weir.corp:8443/ca.crt';
  const state = statesOf(await files.apply(wanted))['docker.io'] ?? '';
  assert.match(state, /^unsupported: weir cannot tell Docker of the authority/);
  assert.ok(state.endsWith(`put it into ${authority}`), state);
  await node.put({ [authority]: 'the PEM' });
  assert.equal(statesOf(await files.apply(wanted))['docker.io'], 'configured');
});

for (const [what, yaml, mirror, reason] of [
  [
    'our registry has a path',
    HUB,
    'https://corp/v2/weir',
    /^unsupported: .*without a path only, and https:\/\/corp has/,
  ],
  [
    'the mirror for the nodes has one',
    "upstreams: { docker.io: { mirror: 'https://m.corp/hub', via: node } }",
    MIRROR,
    /^unsupported: .* https:\/\/m\.corp has hub/,
  ],
] as const)
  test(`Docker Hub is left alone where ${what}`, async (t) => {
    const node = await makeRoot(t, RUNS);
    const docker = dockerOf(node);
    await docker.apply(HUB);
    const outcome = await docker.apply(yaml, mirror);
    assert.match(statesOf(outcome)['docker.io'] ?? '', reason);
    assert.deepEqual(await node.etc(), {});
  });

test('a mirror for the nodes is named itself', async (t) => {
  const node = await makeRoot(t, RUNS);
  await dockerOf(node).apply("upstreams: { docker.io: { mirror: 'https://m.corp', via: node } }");
  assert.deepEqual(mirrorsOf(await node.read(FILE)), ['https://m.corp']);
});

for (const yaml of [`enabled: false\n${HUB}`, 'upstreams: { quay.io: {} }'])
  test(`"${yaml.replace('\n', ' ')}" brings back what was there`, async (t) => {
    const node = await makeRoot(t, { ...RUNS, [FILE]: '{"debug": true}' });
    const docker = dockerOf(node);
    await docker.apply(HUB);
    const { changes, states } = await docker.apply(yaml);
    assert.deepEqual(summary(changes), ['restored docker.io']);
    assert.equal(states.has('docker.io'), false);
    assert.equal(await node.read(FILE), '{"debug": true}');
  });

for (const [what, text] of [
  ['is no JSON', '{ // a comment\n}'],
  ['has a list of another type', '{"registry-mirrors": "https://a.corp"}'],
  ['is a list', '[]'],
] as const)
  test(`a daemon.json that ${what} is left as it is`, async (t) => {
    const node = await makeRoot(t, { ...RUNS, [FILE]: text });
    const docker = dockerOf(node);
    const outcome = await docker.apply(HUB);
    assert.match(
      statesOf(outcome)['docker.io'] ?? '',
      /^unparsable: \/etc\/docker\/daemon\.json cannot be merged/,
    );
    assert.deepEqual(summary(outcome.changes), ['left docker.io']);
    await docker.files.restore();
    assert.equal(await node.read(FILE), text);
  });

test('what names our mirror already is somebody else’s, and stays', async (t) => {
  const text = '{"registry-mirrors": ["https://a.corp", "http://127.0.0.1:30500/"]}';
  const node = await makeRoot(t, { ...RUNS, [FILE]: text });
  const docker = dockerOf(node);
  assert.deepEqual(statesOf(await docker.apply(HUB)), { 'docker.io': 'configured' });
  assert.deepEqual(summary(await docker.files.restore()), ['left docker.io']);
  assert.equal(await node.read(FILE), text);
});

test('a file that was edited keeps the edit, with our mirror in it and when it goes', async (t) => {
  const node = await makeRoot(t, { ...RUNS, [FILE]: '{"debug": true}' });
  const dockerd = await startDockerd(t, node);
  const docker = dockerOf(node, dockerd.options);
  await docker.apply(HUB);
  await node.put({ [FILE]: `{"registry-mirrors": ["https://a.corp", "${MIRROR}"], "debug": false}` });
  await docker.apply(HUB, 'http://10.0.0.1:5000');
  assert.equal(
    await node.read(FILE),
    '{"registry-mirrors": ["http://10.0.0.1:5000", "https://a.corp"], "debug": false}',
  );
  await node.put({ [FILE]: '{"registry-mirrors": ["http://10.0.0.1:5000"], "bip": "x"}' });
  const [change] = await docker.files.restore();
  assert.equal(change?.reason, 'our mirror was taken out, the rest left as it is');
  assert.equal(await node.read(FILE), '{"registry-mirrors": [], "bip": "x"}');
  assert.deepEqual(dockerd.mirrors(), []);
  assert.deepEqual(await node.kept(), []);
});

test('a file whose list was ours alone loses the list, whatever else was edited', async (t) => {
  const node = await makeRoot(t, { ...RUNS, [FILE]: '{"debug": true}' });
  const docker = dockerOf(node);
  await docker.apply(HUB);
  await node.put({ [FILE]: `{\n  "bip": "x",\n  "registry-mirrors": ["${MIRROR}"]\n}\n` });
  await docker.files.restore();
  assert.equal(await node.read(FILE), '{\n  "bip": "x"\n}\n');
});

test('a file that somebody puts back, or removes, has our mirror again', async (t) => {
  const node = await makeRoot(t, { ...RUNS, [FILE]: '{"debug": true}' });
  await dockerOf(node).apply(HUB);
  await node.put({ [FILE]: '{"debug": true}' });
  assert.deepEqual(summary((await dockerOf(node).apply(HUB)).changes), ['healed docker.io']);
  await rm(join(node.root, FILE));
  assert.deepEqual(summary((await dockerOf(node).apply(HUB)).changes), ['written docker.io']);
  assert.deepEqual(summary(await dockerOf(node).files.restore()), ['removed docker.io']);
});

for (const [what, before] of [
  ['puts back', '{"debug": true}'],
  ['removes', undefined],
] as const)
  test(`dockerd is told that our mirror is gone, also of a file that somebody ${what}`, async (t) => {
    const node = await makeRoot(t, { ...RUNS, ...(before === undefined ? {} : { [FILE]: before }) });
    await node.put({ '/etc/docker/key.json': '' });
    const was = await node.etc();
    const dockerd = await startDockerd(t, node);
    const docker = dockerOf(node, dockerd.options);
    await docker.apply(HUB);
    if (before === undefined) await rm(join(node.root, FILE));
    else await node.put({ [FILE]: before });
    assert.deepEqual(dockerd.mirrors(), [MIRROR]);
    assert.deepEqual(await docker.files.restore(), []);
    assert.deepEqual(dockerd.mirrors(), []);
    assert.deepEqual(await node.etc(), was);
    assert.deepEqual(await node.kept(), []);
  });

test('what somebody names as well meanwhile stays when we leave', async (t) => {
  const node = await makeRoot(t, { ...RUNS, [FILE]: '{}' });
  const dockerd = await startDockerd(t, node);
  const docker = dockerOf(node, dockerd.options);
  await docker.apply(HUB);
  const theirs = `{"registry-mirrors": ["${MIRROR}/", "https://a.corp"]}`;
  await node.put({ [FILE]: theirs });
  await docker.files.restore();
  assert.deepEqual(dockerd.mirrors(), ['https://a.corp']);
});

test('without the state directory, a mirror on this machine is told of and left', async (t) => {
  const node = await makeRoot(t, RUNS);
  const docker = dockerOf(node);
  await docker.apply(HUB);
  const text = await node.read(FILE);
  await rm(join(node.root, node.stateDir), { recursive: true });
  const [change, ...more] = await docker.files.restore();
  assert.equal(change?.kind, 'left');
  assert.match(change?.reason ?? '', /names the mirror http:\/\/127\.0\.0\.1:30500, .*--state-dir/);
  assert.deepEqual(more, []);
  assert.equal(await node.read(FILE), text);
  for (const others of ['{"registry-mirrors": ["https://mirror.corp"]}', 'no JSON']) {
    await node.put({ [FILE]: others });
    assert.deepEqual(await docker.files.restore(), []);
  }
});

test('a link is a link again', async (t) => {
  const node = await makeRoot(t, { ...RUNS, '/opt/daemon.json': '{}', [FILE]: '-> ../../opt/daemon.json' });
  const docker = dockerOf(node);
  await docker.apply(HUB);
  assert.ok(!(await lstat(join(node.root, FILE))).isSymbolicLink());
  assert.equal(await node.read('/opt/daemon.json'), '{}');
  await docker.files.restore();
  assert.ok((await lstat(join(node.root, FILE))).isSymbolicLink());
});

test('the file is the one that dockerd reads', async (t) => {
  const node = await makeRoot(t, processes({ 7: { args: ['dockerd', '--config-file=/opt/d.json'] } }));
  const docker = dockerOf(node);
  await node.put({ '/opt/': '' });
  await docker.apply(HUB);
  assert.deepEqual(mirrorsOf(await node.read('/opt/d.json')), [MIRROR]);
  await node.put(RUNS);
  await docker.apply(HUB);
  await assert.rejects(stat(join(node.root, 'opt/d.json')), /ENOENT/);
  assert.deepEqual(mirrorsOf(await node.read(FILE)), [MIRROR]);
});

for (const [what, files, reason] of [
  [
    'has mirrors on its command line',
    processes({ 7: { args: ['dockerd', '--registry-mirror', 'x'] } }),
    /command line/,
  ],
  ['does not run', processes({}), /no dockerd runs/],
  ['cannot be seen', {}, /no \/proc/],
] as const)
  test(`a dockerd that ${what} has its file back`, async (t) => {
    const node = await makeRoot(t, { ...RUNS, [FILE]: '{"debug": true}' });
    const docker = dockerOf(node);
    await docker.apply(HUB);
    await rm(join(node.root, 'proc'), { recursive: true });
    await node.put(files);
    assert.match(statesOf(await docker.apply(HUB))['docker.io'] ?? '', reason);
    assert.equal(await node.read(FILE), '{"debug": true}');
  });

test('a dockerd that cannot be told is said to be so', async (t) => {
  const node = await makeRoot(t, RUNS);
  const dockerd = await startDockerd(t, node);
  const docker = dockerOf(node, { ...dockerd.options, signal: () => Promise.reject(new Error('no way')) });
  assert.match(
    statesOf(await docker.apply(HUB))['docker.io'] ?? '',
    /^unsupported: \/etc\/docker\/daemon\.json is written, but no way\. dockerd reads it at its next start/,
  );
  const [change] = await docker.files.restore();
  assert.equal(change?.reason, undefined, 'it never went by it');
});

test('a dockerd that does not obey is said to be so', async (t) => {
  const node = await makeRoot(t, RUNS);
  const dockerd = await startDockerd(t, node, true);
  assert.match(
    statesOf(await dockerOf(node, { ...dockerd.options, patience: 100 }).apply(HUB))['docker.io'] ?? '',
    /^unsupported: .* dockerd goes by no mirror still, although it was sent a SIGHUP: its log says why/,
  );
});

test('cut off at any point of either way, both lead to their end, and dockerd goes by what is there', async (t) => {
  const cases = [
    ['apply', undefined, 'apply'],
    ['apply', '{"debug": true}', 'restore'],
    ['restore', undefined, 'apply'],
    ['restore', '{"debug": true}', 'restore'],
    ['move', '{"registry-mirrors": ["https://a.corp"]}', 'apply'],
    ['move', '{"registry-mirrors": ["https://a.corp"]}', 'restore'],
  ] as const;
  for (const [way, before, next] of cases)
    for (let count = 0, isCut = true; isCut; count += 1) {
      const where = `${way} of ${before}, cut off before operation ${count}, then ${next}`;
      const node = await makeRoot(t, { ...RUNS, ...(before === undefined ? {} : { [FILE]: before }) });
      const was = await node.etc();
      const dockerd = await startDockerd(t, node);
      const run = dockerOf(node, dockerd.options);
      if (way !== 'apply') await run.apply(HUB, way === 'move' ? 'http://10.0.0.1:5000' : MIRROR);
      isCut = await cutBefore(t, count, () => (way === 'restore' ? run.files.restore() : run.apply(HUB)));
      const then = dockerOf(node, dockerd.options);
      if (next === 'apply') {
        assert.deepEqual(statesOf(await then.apply(HUB)), { 'docker.io': 'configured' }, where);
        const mirrors = [MIRROR, ...(mirrorsOf(before ?? '{}') ?? [])];
        assert.deepEqual(mirrorsOf(await node.read(FILE)), mirrors, where);
        assert.deepEqual(dockerd.mirrors(), mirrors, where);
      }
      await then.files.restore();
      assert.deepEqual(await node.etc(), was, where);
      assert.deepEqual(await node.kept(), [], where);
      assert.ok(!dockerd.mirrors().includes(MIRROR), where);
    }
});
