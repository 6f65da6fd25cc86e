import assert from 'node:assert/strict';
import { appendFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { findContainerd } from '../../agent/configure/containerd-process.ts';
import { findRestarter } from '../../agent/configure/restarter.ts';
import {
  assertOutcome,
  CERTS,
  CONFIG,
  EDITED,
  JOURNAL,
  makeTestNode,
  PLAIN,
  plantProcess,
  STATE,
  type TestNode,
} from './configure-node.ts';
import { cutBefore } from './cut-power.ts';
import { failWrites } from './failing-disk.ts';

test('a runtime is configured and restarted once, in its turn, and is as it was after a restore', async (t) => {
  const node = await makeTestNode(t);
  const before = await node.files('/etc');
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  assert.equal(await node.read(), EDITED);
  assert.equal(node.text, EDITED);
  assert.deepEqual(node.turns, ['taken', 'released']);
  assert.deepEqual(await node.configure(), { kind: 'unneeded' });
  assert.equal(await node.restore(), 'as it was');
  assert.deepEqual(await node.files('/etc'), before);
  assert.deepEqual(await node.files(STATE), {});
  assert.equal(await node.restore(), undefined);
  assert.equal(node.restarts, 1);
  assert.equal(node.turns.length, 2);
});

test('a file that was not there is made, and goes again with its directory', async (t) => {
  const node = await makeTestNode(t, null);
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  assert.match((await node.read()) ?? '', /^version = 2\n/);
  assert.equal(await node.restore(), 'as it was');
  assert.deepEqual(await node.files('/etc'), {});
});

test('what somebody changed since stays, and only our value goes out of it', async (t) => {
  const node = await makeTestNode(t);
  await node.configure();
  await node.write(CONFIG, `# theirs\n${EDITED}`);
  assert.equal(await node.restore(), 'taken out');
  assert.equal(await node.read(), `# theirs\n${EDITED.replace(/ *config_path.*\n/, '')}`);
  assert.equal((await node.files('/etc'))['containerd/config.toml']?.slice(0, 3), '640');
});

test('a value that was empty before is empty again', async (t) => {
  const text = `${PLAIN}[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "" # x\n`;
  const node = await makeTestNode(t, text);
  await node.configure();
  await node.write(CONFIG, `# theirs\n${(await node.read()) ?? ''}`);
  assert.equal(await node.restore(), 'taken out');
  assert.equal(await node.read(), `# theirs\n${text}`);
});

for (const [what, text] of [
  ['says another path', EDITED.replace(CERTS, '/mine')],
  ['is no TOML', 'version = \n'],
  ['says none any more', PLAIN.replace('# mine', '# changed')],
] as const)
  test(`a file that ${what} since is left as it is`, async (t) => {
    const node = await makeTestNode(t);
    await node.configure();
    await node.write(CONFIG, text);
    assert.equal(await node.restore(), 'left');
    assert.equal(await node.read(), text);
    assert.deepEqual(await node.files(STATE), {});
  });

test('a runtime that does not start with it has its old file back, runs, and is never restarted for it again', async (t) => {
  const node = await makeTestNode(t);
  node.refuse = (text) => (text.includes(CERTS) ? 'it is down' : undefined);
  assertOutcome(await node.configure(), 'failed', /^it is down$/);
  assert.equal(await node.read(), PLAIN);
  assert.equal(node.text, PLAIN);
  assert.equal(node.restarts, 2);
  assert.deepEqual(node.turns, ['taken', 'released later']);
  node.refuse = () => undefined;
  assertOutcome(
    await node.configure(),
    'failed',
    /^this was tried with the same files before, and failed: it is down$/,
  );
  assert.equal(node.restarts, 2);
  assert.equal(node.turns.length, 2);

  await node.write(CONFIG, `${PLAIN}# corrected\n`);
  assertOutcome(await node.configure(), 'refused', /^weir restarted the runtime 2 times within a day/);
  await node.passDay();
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  assert.equal(node.restarts, 3);
});

test('a runtime that does not start with its old file either is told, and left to its supervisor', async (t) => {
  const node = await makeTestNode(t);
  node.refuse = () => 'it is down';
  assertOutcome(await node.configure(), 'failed', /^it is down; and rolling back failed: it is down$/);
  assert.equal(await node.read(), PLAIN);
  assert.equal(node.restarts, 2);
  assert.deepEqual(node.turns, ['taken', 'released later']);
});

test('containers that a restart ends are told, and no second restart ends more', async (t) => {
  const node = await makeTestNode(t);
  node.running = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
  node.onRestart = () => {
    node.running = ['a', 'b', 'new'];
  };
  assertOutcome(
    await node.configure(),
    'failed',
    /^6 of 8 containers and sandboxes that ran before do not run, 0\.001 s/,
  );
  assert.equal(await node.read(), PLAIN);
  assert.equal(node.restarts, 1);
});

test('a container that ends by itself in between is no reason to roll back', async (t) => {
  const node = await makeTestNode(t);
  node.running = ['a', 'b', 'c', 'd'];
  node.onRestart = () => {
    node.running = ['a', 'b', 'c', 'new'];
  };
  assert.deepEqual(await node.configure(), { kind: 'configured' });
});

test('a runtime that goes by another path after its restart is rolled back', async (t) => {
  const node = await makeTestNode(t);
  node.onRestart = (when) => {
    if (when === 'after') node.text = PLAIN;
  };
  assertOutcome(await node.configure(), 'failed', /^the runtime goes by config_path ""/);
  assert.equal(await node.read(), PLAIN);
});

test('a runtime that is ill already is not touched', async (t) => {
  const node = await makeTestNode(t);
  node.text = undefined;
  assertOutcome(
    await node.configure(),
    'refused',
    /^the runtime does not answer over CRI \(nothing listens there\)$/,
  );
  const notReady = { notReady: 'CNI: x', running: [], configPath: undefined };
  assertOutcome(
    await node.configure({ ask: () => Promise.resolve(notReady) }),
    'refused',
    /not ready \(CNI: x\)$/,
  );
  assert.deepEqual(node.turns, []);
  assert.deepEqual(await node.files(STATE), {});
});

test('what takes the value out again has it out for good', async (t) => {
  const node = await makeTestNode(t);
  await node.configure();
  await node.write(CONFIG, PLAIN);
  assertOutcome(
    await node.configure(),
    'refused',
    /^weir set config_path in \S+ before, and something took it out again$/,
  );
  await node.write(CONFIG, `${PLAIN}# 2\n`);
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  await node.write(CONFIG, `${PLAIN}# 3\n`);
  assertOutcome(
    await node.configure(),
    'refused',
    /^weir restarted the runtime 2 times within a day, and an attempt may take 2 more$/,
  );
  assert.equal(node.restarts, 2);
  await rm(join(node.root, JOURNAL));
  assert.deepEqual(await node.configure(), { kind: 'configured' });
});

test('the turn of another node is waited for, and one that was lost is not used', async (t) => {
  const node = await makeTestNode(t);
  const stop = new AbortController();
  const waiting = node.configure({
    signal: stop.signal,
    takeTurn: async () => {
      stop.abort();
      stop.signal.throwIfAborted();
      throw new Error('not reached');
    },
  });
  await assert.rejects(waiting, { name: 'AbortError' });
  assert.deepEqual(await node.files(STATE), {});
  node.lost = AbortSignal.abort();
  assertOutcome(await node.configure(), 'refused', /turn of another node/);
  assert.deepEqual(node.turns, ['taken', 'released']);
  assert.equal(await node.read(), PLAIN);
});

test('whoever is stopped amid a restart leaves the turn and the rest to the next', async (t) => {
  const node = await makeTestNode(t);
  const stop = new AbortController();
  node.onRestart = (when) => {
    if (when === 'before') return;
    node.text = undefined;
    stop.abort();
  };
  await assert.rejects(node.configure({ signal: stop.signal }), { name: 'AbortError' });
  node.text = EDITED;
  assert.deepEqual(node.turns, ['taken', 'abandoned']);
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  assert.equal(node.restarts, 1);
});

test('pulls are waited for, and not for ever', async (t) => {
  const text = `root = "/data"\n${PLAIN}`;
  const node = await makeTestNode(t, text);
  const ingest = '/data/io.containerd.content.v1.content/ingest/one/data';
  await node.write(ingest, '');
  const growing = setInterval(() => void appendFile(join(node.root, ingest), 'x'), 1);
  t.after(() => clearInterval(growing));
  const warnings: unknown[] = [];
  const { default: pino } = await import('pino');
  const log = pino({ level: 'warn' }, { write: (line) => warnings.push(JSON.parse(line)) });
  assert.deepEqual(await node.configure({ quietMs: 1_000, log }), { kind: 'configured' });
  assert.equal(warnings.length, 1);
  clearInterval(growing);
});

test('what a broken pull left does not hold anything up', async (t) => {
  const node = await makeTestNode(t);
  await node.write('/var/lib/containerd/io.containerd.content.v1.content/ingest/one/data', 'x');
  assert.deepEqual(await node.configure({ quietMs: 600_000 }), { kind: 'configured' });
});

/** What a node has that is not to be edited. */
const REFUSED: Readonly<
  Record<string, readonly [prepare: (node: TestNode) => Promise<unknown>, reason: RegExp]>
> = {
  'is written by its distribution': [
    async (node) => {
      node.sight = { distribution: { value: 'k3s', source: 'x' } };
    },
    /^k3s writes containerd's configuration itself$/,
  ],
  'says that it is generated': [
    (node) => node.write(CONFIG, `\n# Ansible managed\n${PLAIN}`),
    /says of itself that it is written by something: "# Ansible managed"$/,
  ],
  'is not all UTF-8': [
    (node) =>
      writeFile(
        join(node.root, CONFIG),
        Buffer.concat([Buffer.from(PLAIN), Buffer.from('# \xe4\n', 'latin1')]),
      ),
    /is not all UTF-8/,
  ],
  'has mirrors': [
    (node) =>
      node.write(CONFIG, `${PLAIN}[plugins."io.containerd.grpc.v1.cri".registry.mirrors.x]\nendpoint = []\n`),
    /^registry\.mirrors/,
  ],
  'is of a containerd that is not told from another': [
    (node) => plantProcess(node.root, 4712, '--root', '/other'),
    /^2 containerds run on the node/,
  ],
  'is of a containerd that nobody sees': [
    (node) => rm(join(node.root, 'proc'), { recursive: true }),
    /^the processes of the node cannot be seen/,
  ],
  'is of a containerd that does not run': [
    (node) => rm(join(node.root, 'proc/4711'), { recursive: true }),
    /^no containerd runs on the node$/,
  ],
  'is of a version that is not known': [
    async (node) => {
      node.sight = { version: undefined };
    },
    /^which version of containerd runs/,
  ],
};
for (const [what, [prepare, reason]] of Object.entries(REFUSED))
  test(`a file that ${what} is left alone, before others have to wait`, async (t) => {
    const node = await makeTestNode(t);
    await prepare(node);
    const before = await node.files('/etc');
    assertOutcome(
      await node.configure({ findRestarter: () => Promise.reject(new Error('not reached')) }),
      'refused',
      reason,
    );
    assert.deepEqual(await node.files('/etc'), before);
    assert.deepEqual(await node.files(STATE), {});
    assert.deepEqual(node.turns, []);
  });

for (const [what, ...others] of [
  ['its socket', ['--address', '/run/other.sock']],
  ['its configuration', ['--config=/etc/other.toml']],
  ['not being that of Docker', ['--config', '/var/run/docker/containerd/containerd.toml']],
] as const)
  test(`the containerd that the kubelet asks is told from another by ${what}`, async (t) => {
    const node = await makeTestNode(t);
    for (const [index, args] of others.entries()) await plantProcess(node.root, 4800 + index, ...args);
    const { pid } = await findContainerd(node.root, await node.see());
    assert.equal(pid, 4711);
  });

test('a link to the file is followed, and stays', async (t) => {
  const node = await makeTestNode(t);
  await rm(join(node.root, CONFIG));
  await node.write('/opt/config.toml', PLAIN);
  await symlink('../../opt/config.toml', join(node.root, CONFIG));
  assert.deepEqual(await node.configure(), { kind: 'configured' });
  assert.equal(await node.read('/opt/config.toml'), EDITED);
  assert.equal(await node.restore(), 'as it was');
  assert.equal(await node.read('/opt/config.toml'), PLAIN);
});

test('a journal that cannot be read stops everything', async (t) => {
  const node = await makeTestNode(t);
  await node.write(JOURNAL, '{"version": 2}');
  assertOutcome(await node.configure(), 'refused', /journal\.json, which says .* cannot be understood/);
  await assert.rejects(node.restore(), /cannot be understood/);
  assert.equal(node.restarts, 0);
});

test('the original is kept as it is, and a lost one is told', async (t) => {
  const node = await makeTestNode(t);
  await node.configure();
  const [name = ''] = Object.keys(await node.files(STATE)).filter((one) => one.includes('/original-'));
  assert.equal((await node.files(STATE))[name], `640 ${PLAIN}`);
  assert.equal((await node.files('/var/lib'))['weir/runtime-configuration']?.slice(0, 3), '700');
  await node.write(`${STATE}/${name}`, 'x');
  await assert.rejects(node.restore(), /original-\w+ is not the file that was saved there/);
  assert.equal(await node.read(), EDITED);
});

// k0s

const K0S = {
  distribution: { value: 'k0s', source: 'test' },
  configFiles: ['/etc/k0s/containerd.toml'],
  missingConfigPath: CERTS,
} as const;
const K0S_FILES = {
  '/etc/k0s/containerd.toml': '# k0s_managed=true\nversion = 2\nimports = ["/run/k0s/containerd-cri.toml"]\n',
  '/run/k0s/containerd-cri.toml': PLAIN,
  '/etc/k0s/containerd.d/.keep': '',
};
const KUBEADM = { distribution: { value: 'kubeadm', source: 'test' } };
const DROP_IN = '/etc/k0s/containerd.d/weir.toml';

async function k0s(t: TestContext, files: Readonly<Record<string, string>> = K0S_FILES): Promise<TestNode> {
  const node = await makeTestNode(t, null);
  for (const [path, text] of Object.entries(files)) await node.write(path, text);
  node.sight = K0S;
  node.isByItself = true;
  return node;
}

test('k0s gets a drop-in, and restarts containerd by itself', async (t) => {
  const node = await k0s(t);
  const running = { notReady: undefined, running: [], configPath: CERTS };
  assert.deepEqual(await node.configure({ ask: () => Promise.resolve(running) }), { kind: 'configured' });
  assert.equal(
    await node.read(DROP_IN),
    `version = 2\n\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "${CERTS}"\n`,
  );
  assert.equal(await node.restore(), 'as it was');
  assert.equal(await node.read(DROP_IN), undefined);
});

/** Of k0s with containerd 2, which once imported its part, and then had it in the main file. */
const K0S_2 = {
  imported: {
    '/etc/k0s/containerd.toml':
      '# k0s_managed=true\nversion = 3\nimports = ["/run/k0s/containerd-cri.toml"]\n',
    '/run/k0s/containerd-cri.toml': 'version = 3\n[plugins."io.containerd.cri.v1.images"]\n',
  },
  'in the main file': {
    '/etc/k0s/containerd.toml':
      '# k0s_managed=true\nversion = 3\nimports = ["/etc/k0s/containerd.d/*.toml"]\n[plugins."io.containerd.cri.v1.images"]\n',
  },
};
for (const [where, files] of Object.entries(K0S_2))
  test(`k0s gets a drop-in in the version of its own part, ${where}`, async (t) => {
    const node = await k0s(t, { ...files, '/etc/k0s/containerd.d/.keep': '' });
    node.sight = { ...K0S, version: { value: '2.1.4', source: 'test' } };
    const running = { notReady: undefined, running: [], configPath: undefined };
    assert.deepEqual(await node.configure({ ask: () => Promise.resolve(running) }), { kind: 'configured' });
    assert.match(
      (await node.read(DROP_IN)) ?? '',
      /^version = 3\n\n\[plugins\."io\.containerd\.cri\.v1\.images"\.registry\]/,
    );
  });

test('the restart that k0s makes is waited for', async (t) => {
  const node = await k0s(t);
  const restarter = await findRestarter(node.root, await node.see());
  const run = await restarter.run();
  const restarting = restarter.restart(run, new AbortController().signal);
  await rm(join(node.root, 'proc/4711'), { recursive: true });
  assert.equal(await restarter.run(), undefined);
  await plantProcess(node.root, 4712);
  await restarting;
  assert.notEqual(await restarter.run(), run);
  await assert.rejects(restarter.restart(await restarter.run(), AbortSignal.abort()), { name: 'AbortError' });
  assert.equal(
    (await findRestarter(node.root, { ...(await node.see()), ...KUBEADM }, restarter.name)).name,
    restarter.name,
  );
});

test('where a file that is put back has the runtime restarted, that is waited for as well', async (t) => {
  const node = await makeTestNode(t);
  node.isByItself = true;
  node.onRestart = () => {
    node.running = [];
  };
  assertOutcome(await node.configure(), 'failed', /^2 of 2 containers and sandboxes/);
  assert.equal(node.restarts, 2);
  assert.equal(node.text, PLAIN);
});

for (const [what, files, reason] of [
  ['is not managed by k0s', { '/etc/k0s/containerd.toml': 'version = 2\n' }, /is not managed by k0s/],
  [
    'has no place for drop-ins',
    { '/etc/k0s/containerd.d/.keep': '-' },
    /this k0s has no \/etc\/k0s\/containerd\.d/,
  ],
  ['has ours already', { [DROP_IN]: '' }, /is there, and k0s does not go by it/],
  [
    'has no part of its own',
    { '/run/k0s/containerd-cri.toml': 'version = 2\n' },
    /^neither \/etc\/k0s\/containerd\.toml nor what it imports/,
  ],
] as const)
  test(`a configuration of k0s that ${what} is left alone`, async (t) => {
    const node = await k0s(t, { ...K0S_FILES, ...files });
    if ('/etc/k0s/containerd.d/.keep' in files)
      await rm(join(node.root, '/etc/k0s/containerd.d'), { recursive: true });
    assertOutcome(await node.configure(), 'refused', reason);
  });

// The agent is killed before the n-th thing that it does, for every n.

async function killBefore(
  t: TestContext,
  count: number,
  node: TestNode,
  run: () => Promise<unknown>,
): Promise<boolean> {
  return cutBefore(t, count, async (spend) => {
    node.onRestart = spend;
    try {
      await run();
    } finally {
      node.onRestart = () => undefined;
    }
  });
}

for (const [what, refuse] of [
  ['succeeds', () => undefined],
  ['fails', (text: string) => (text.includes(CERTS) ? 'it is down' : undefined)],
] as const)
  test(`whenever the agent is killed while it ${what}, the next start brings it to its end, exactly once`, async (t) => {
    let count = 0;
    for (let isKilled = true; isKilled; count++) {
      const node = await makeTestNode(t);
      const before = await node.files('/etc');
      node.refuse = refuse;
      isKilled = await killBefore(t, count, node, () => node.configure());
      const restarts = node.restarts;
      // One that did not start is started again and again.
      if (node.text === undefined)
        node.text = refuse((await node.read()) ?? '') === undefined ? await node.read() : undefined;

      const end = await node.configure();
      const again = await node.configure();
      assert.equal(node.restarts - restarts <= 2, true, `${count}: ${node.restarts}`);
      const last = node.restarts;
      await node.configure();
      assert.equal(node.restarts, last, `${count}: restarted again`);
      if (what === 'succeeds') {
        assert.ok(['configured', 'unneeded'].includes(end.kind), `${count}: ${JSON.stringify(end)}`);
        assert.deepEqual(again, { kind: 'unneeded' });
        assert.equal(node.text, EDITED, String(count));
        assert.equal(await node.read(), EDITED, String(count));
      } else {
        assert.equal(again.kind, 'failed', `${count}: ${JSON.stringify(again)}`);
        assert.equal(node.text, PLAIN, String(count));
        assert.equal(await node.read(), PLAIN, String(count));
      }
      await node.restore();
      assert.deepEqual(await node.files('/etc'), before, String(count));
      assert.deepEqual(await node.files(STATE), {}, String(count));
    }
    assert.ok(count > 20, String(count));
  });

test('whenever the agent is killed while it restores, the next restore brings it to its end', async (t) => {
  let count = 0;
  for (let isKilled = true; isKilled; count++) {
    const node = await makeTestNode(t);
    const before = await node.files('/etc');
    await node.configure();
    isKilled = await killBefore(t, count, node, () => node.restore());
    await node.restore();
    assert.deepEqual(await node.files('/etc'), before, String(count));
    assert.deepEqual(await node.files(STATE), {}, String(count));
    assert.equal(node.restarts, 1);
  }
  assert.ok(count > 5, String(count));
});

test('what cannot be written is no reason to restart', async (t) => {
  const node = await makeTestNode(t);
  const heal = failWrites(t, 'ENOSPC', (path) => path.includes('/etc/containerd/'));
  assertOutcome(await node.configure(), 'refused', /^cannot write \S+config\.toml: no space left on device/);
  heal();
  assert.equal(node.restarts, 0);
  assert.equal(await node.read(), PLAIN);
  assert.deepEqual(await node.files(STATE), {});
  assert.deepEqual(await node.configure(), { kind: 'configured' });
});

test('each attempt keeps its own original, and only that', async (t) => {
  const node = await makeTestNode(t);
  await node.configure();
  await node.write(CONFIG, `${PLAIN}# again\n`);
  await node.configure();
  const names = Object.keys(await node.files(STATE)).filter((one) => one.includes('/original-'));
  assert.equal(names.length, 1);
  assert.equal(await node.restore(), 'as it was');
  assert.equal(await node.read(), `${PLAIN}# again\n`);
});
