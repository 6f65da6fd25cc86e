import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, stat, symlink, truncate, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { CrioFiles, type CrioOptions } from '../../agent/crio/crio-files.ts';
import { hangUpBelow, type SendHangUp } from '../../agent/hang-up.ts';
import { findProcesses } from '../../agent/runtimes/host-processes.ts';
import { cutBefore } from './cut-power.ts';
import { configOf, MIRROR, NOTE } from './node-files.ts';
import { makeRoot, processes, type RuntimeRoot, statesOf, summary } from './runtime-root.ts';

const MAIN = '/etc/containers/registries.conf';
const DROP_INS = '/etc/containers/registries.conf.d';
const FILE = `${DROP_INS}/zzz-weir.conf`;
const HUB = 'upstreams: { docker.io: {} }';
const OURS = `
  [[registry.mirror]]
  location = "127.0.0.1:30500/docker.io"
  insecure = true
`;
const PLAIN = `[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n${OURS}`;

const refuse: SendHangUp = () => Promise.reject(new Error('no way'));

interface Crio {
  readonly files: CrioFiles;
  /** The processes that were sent a signal. */
  readonly told: number[];
  apply(yaml: string, mirror?: string, canary?: boolean): ReturnType<CrioFiles['apply']>;
}

function crioOf(node: RuntimeRoot, options: Partial<CrioOptions> = {}): Crio {
  const told: number[] = [];
  const signal = async ({ pid }: { readonly pid: number }): Promise<void> => void told.push(pid);
  const files = new CrioFiles({ ...node, signal, ...options });
  const apply = (yaml: string, mirror = MIRROR, canary = false): ReturnType<CrioFiles['apply']> =>
    files.apply({ config: configOf(yaml), mirror, canary });
  return { files, told, apply };
}

/** The text below our marker and our note. */
function bodyOf(text: string): string {
  const [marker = '', note, ...lines] = text.split('\n');
  assert.match(marker, /^# weir \{"sha256":"[0-9a-f]{64}","mirror":"[^"]+"\}$/);
  assert.equal(note, NOTE);
  return lines.join('\n');
}

const found: readonly {
  readonly name: string;
  readonly files?: Readonly<Record<string, string>>;
  readonly config?: string;
  readonly mirror?: string;
  readonly body: string;
}[] = [
  { name: 'nothing', body: PLAIN },
  {
    name: 'only short names',
    files: {
      [MAIN]: 'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "enforcing"\n',
      [`${DROP_INS}/shortnames.conf`]: '[aliases]\n"alpine" = "docker.io/library/alpine"\n',
      [`${DROP_INS}/README`]: 'not [ toml',
    },
    body: PLAIN,
  },
  {
    name: 'an entry of the user with mirrors and a key that nobody knows',
    files: {
      [MAIN]:
        '[[registry]]\nlocation = "docker.io"\nnew-key = "x"\n[[registry.mirror]]\nlocation = "m.corp/hub/"\ninsecure = true\n[[registry.mirror]]\nlocation = "n.corp"\npull-from-mirror = "tag-only"\n',
    },
    body: `[[registry]]
prefix = "docker.io"
location = "docker.io"
new-key = "x"
${OURS}
  [[registry.mirror]]
  location = "m.corp/hub"
  insecure = true

  [[registry.mirror]]
  location = "n.corp"
  pull-from-mirror = "tag-only"
`,
  },
  {
    name: 'a mirror for digests only',
    files: {
      [MAIN]:
        '[[registry]]\nlocation = "docker.io"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.corp"\n',
    },
    body: `${PLAIN}
  [[registry.mirror]]
  location = "m.corp"
  pull-from-mirror = "digest-only"
`,
  },
  {
    name: 'another location, in the last of three files',
    files: {
      [MAIN]: '[[registry]]\nlocation = "docker.io"\n',
      [`${DROP_INS}/10.conf`]: '[[registry]]\nprefix = "docker.io"\nlocation = "ten.corp"\n',
      [`${DROP_INS}/9.conf`]:
        '[[registry]]\nprefix = "docker.io"\nlocation = "nine.corp/hub"\ninsecure = true\n',
    },
    body: `[[registry]]\nprefix = "docker.io"\nlocation = "nine.corp/hub"\ninsecure = true\n${OURS}`,
  },
  {
    name: 'an entry for one organisation, which is more particular and stays',
    files: { [MAIN]: '[[registry]]\nprefix = "docker.io/acme"\nlocation = "acme.corp"\nblocked = true\n' },
    body: PLAIN,
  },
  {
    name: 'entries that are less particular',
    config: "upstreams: { 'a.corp': {}, 'bb.corp:8443': {} }",
    files: {
      [MAIN]:
        '[[registry]]\nprefix = "*.corp"\ninsecure = true\n[[registry]]\nprefix = "bb.corp"\nlocation = "c.corp"\n[[registry.mirror]]\nlocation = "d.corp"\n',
    },
    body: `[[registry]]
prefix = "a.corp"
location = "a.corp"
insecure = true

  [[registry.mirror]]
  location = "127.0.0.1:30500/a.corp"
  insecure = true

[[registry]]
prefix = "bb.corp:8443"
location = "c.corp:8443"

  [[registry.mirror]]
  location = "127.0.0.1:30500/bb.corp-8443"
  insecure = true

  [[registry.mirror]]
  location = "d.corp:8443"
`,
  },
  {
    name: 'a registries.conf of version 1',
    files: {
      [MAIN]:
        "[registries.search]\nregistries = ['docker.io']\n[registries.insecure]\nregistries = ['docker.io']\n",
    },
    body: PLAIN.replace('location = "docker.io"\n', 'location = "docker.io"\ninsecure = true\n'),
  },
  {
    name: 'an upstream elsewhere, one that is never asked, and one with a mirror for the nodes',
    config: `upstreams:
  docker.io: { endpoint: 'http://10.0.0.1' }
  quay.io: { direct: false }
  gcr.io: { mirror: 'https://mirror.corp/gcr', via: node }`,
    body: `[[registry]]
prefix = "docker.io"
location = "10.0.0.1:80"
insecure = true
${OURS}
[[registry]]
prefix = "quay.io"
location = "127.0.0.1:30500/quay.io"
insecure = true

[[registry]]
prefix = "gcr.io"
location = "gcr.io"

  [[registry.mirror]]
  location = "mirror.corp/gcr"
`,
  },
  {
    name: 'an upstream that is never asked, and a mirror of the user',
    config: 'upstreams: { docker.io: { direct: false } }',
    files: { [MAIN]: '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "m.corp"\n' },
    body: `${PLAIN.replace('location = "docker.io"\n', 'location = "127.0.0.1:30500/docker.io"\ninsecure = true\n')}
  [[registry.mirror]]
  location = "m.corp"
`,
  },
  {
    name: 'a mirror with TLS, below a path of its host',
    mirror: 'https://weir.corp/v2/cache/',
    body: PLAIN.replace(OURS, '\n  [[registry.mirror]]\n  location = "weir.corp/cache/docker.io"\n'),
  },
  {
    name: 'a mirror whose host is one word',
    mirror: 'http://weir',
    body: PLAIN.replace('127.0.0.1:30500', 'weir:80'),
  },
];

for (const { name, files = {}, config = HUB, mirror, body } of found)
  test(`where there is ${name}, the drop-in says this, a second run changes nothing, and restoring undoes it`, async (t) => {
    const node = await makeRoot(t, { ...files, ...processes({}) });
    const before = await node.etc();
    const crio = crioOf(node);
    const outcome = await crio.apply(config, mirror);
    assert.deepEqual(
      [...outcome.states.values()].map(({ kind }) => kind),
      [...outcome.states].map(() => 'configured'),
    );
    assert.deepEqual(
      summary(outcome.changes),
      [...outcome.states.keys()].map((host) => `written ${host}`),
    );
    assert.equal(bodyOf(await node.read(FILE)), body);
    assert.equal((await stat(join(node.root, FILE))).mode & 0o777, 0o644);

    const { ino } = await stat(join(node.root, FILE));
    assert.deepEqual((await crioOf(node).apply(config, mirror)).changes, []);
    assert.equal((await stat(join(node.root, FILE))).ino, ino);

    const hosts = [...outcome.states.keys()].map((host) => `removed ${host}`);
    assert.deepEqual(summary(await crio.files.restore()), hosts);
    assert.deepEqual(await node.etc(), before);
    assert.deepEqual(await crio.files.restore(), []);
    assert.deepEqual(await node.kept(), []);
  });

const refused: readonly {
  readonly name: string;
  readonly files?: Readonly<Record<string, string>>;
  readonly config?: string;
  readonly mirror?: string;
  readonly state: RegExp;
}[] = [
  {
    name: 'a user blocks it',
    files: { [MAIN]: '[[registry]]\nlocation = "docker.io"\nblocked = true\n' },
    state: /^overridden: \/etc\/containers\/registries\.conf blocks docker\.io$/,
  },
  {
    name: 'a later drop-in has it',
    files: { [`${DROP_INS}/zzzz.conf`]: '[[registry]]\nlocation = "docker.io"\n' },
    state: /^overridden: \S+\/zzzz\.conf has a \[\[registry\]\] for docker\.io and is read after weir's/,
  },
  {
    name: 'registries.conf is not TOML',
    files: { [MAIN]: '[[registry]\n' },
    state: /^unparsable: \/etc\/containers\/registries\.conf cannot be read, by CRI-O no more than by weir: /,
  },
  {
    name: 'a drop-in is of version 1',
    files: { [`${DROP_INS}/a.conf`]: "[registries.search]\nregistries = ['docker.io']\n" },
    state: /^unparsable: \S+a\.conf .* version 1 of the format/,
  },
  {
    name: 'a location has a scheme',
    files: { [MAIN]: '[[registry]]\nlocation = "https://docker.io"\n' },
    state: /^unparsable: .*a location has no scheme/,
  },
  {
    name: 'our registry has its API below a path',
    mirror: 'https://corp/weir',
    state: /^unsupported: https:\/\/corp\/weir has its API below a path/,
  },
  {
    name: 'it is where another is, and one of them is open to plain HTTP',
    config: "upstreams: { docker.io: {}, 'a.corp': { endpoint: 'https://b.corp' } , 'c.corp': {} }",
    files: {
      [MAIN]: '[[registry]]\nprefix = "c.corp"\nlocation = "b.corp"\ninsecure = true\n',
    },
    state: /^failed: "b\.corp" is the location of two registries that differ/,
  },
];

for (const { name, files = {}, config = HUB, mirror, state } of refused)
  test(`a registry is left as it is where ${name}`, async (t) => {
    const node = await makeRoot(t, { ...files, ...processes({}) });
    const before = await node.etc();
    const crio = crioOf(node);
    const states = Object.entries(statesOf(await crio.apply(config, mirror)));
    assert.match(states.at(-1)?.[1] ?? '', state);
    if (states.length === 1) assert.deepEqual(await node.etc(), before);
    await crio.files.restore();
    assert.deepEqual(await node.etc(), before);
  });

test('the canary goes with the others, and is asked of our registry alone', async (t) => {
  const node = await makeRoot(t, {
    ...processes({}),
    [MAIN]: '[[registry]]\nprefix = "*.internal"\nlocation = "x.corp"\n',
  });
  const crio = crioOf(node);
  const { states, canary, changes } = await crio.apply(HUB, MIRROR, true);
  assert.deepEqual([...states.keys()], ['docker.io']);
  assert.deepEqual(canary, { kind: 'configured' });
  assert.deepEqual(summary(changes), ['written docker.io']);
  assert.equal(
    bodyOf(await node.read(FILE)),
    `${PLAIN}
[[registry]]
prefix = "canary.weir.internal"
location = "127.0.0.1:30500/canary.weir.internal"
insecure = true
`,
  );
  const off = await crio.apply(`enabled: false\n${HUB}`, MIRROR, true);
  assert.equal(off.canary, undefined);
  assert.deepEqual(summary(off.changes), ['removed docker.io']);
});

test('the drop-in follows the configuration and the files of the user', async (t) => {
  const node = await makeRoot(t, processes({}));
  const crio = crioOf(node);
  await crio.apply(HUB);
  await node.put({
    [MAIN]: '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "m.corp"\n',
  });
  assert.deepEqual(summary((await crio.apply(HUB)).changes), ['written docker.io']);
  assert.match(await node.read(FILE), /m\.corp/);
  const both = await crio.apply('upstreams: { docker.io: {}, quay.io: {} }');
  assert.deepEqual(summary(both.changes), ['written docker.io', 'written quay.io']);
  await crio.apply('upstreams: { quay.io: {} }');
  assert.doesNotMatch(await node.read(FILE), /docker/);
});

for (const [damage, length] of [
  ['missing', undefined],
  ['empty', 0],
  ['cut in the middle of its marker', 40],
  ['cut after its marker', 220],
] as const)
  test(`a drop-in that is ${damage} is whole again`, async (t) => {
    const node = await makeRoot(t, processes({}));
    await crioOf(node).apply(HUB);
    const text = await node.read(FILE);
    if (length === undefined) await rm(join(node.root, FILE));
    else await truncate(join(node.root, FILE), length);
    assert.deepEqual(summary((await crioOf(node).apply(HUB)).changes), ['healed docker.io']);
    assert.equal(await node.read(FILE), text);
  });

test('an edited drop-in is left to whoever edited it, and on leaving only our mirror goes out of it', async (t) => {
  const node = await makeRoot(t, processes({}));
  await crioOf(node).apply(HUB);
  const theirs = '# mine\n[[registry]]\nlocation = "x.corp"\n';
  const edited = `${await node.read(FILE)}${theirs}`;
  await node.put({ [FILE]: edited });
  const outcome = await crioOf(node).apply('upstreams: { docker.io: {}, quay.io: {} }', MIRROR, true);
  assert.deepEqual(summary(outcome.changes), ['left docker.io', 'left quay.io']);
  assert.match(statesOf(outcome)['quay.io'] ?? '', /^overridden: \S+ was edited by hand\. Remove it/);
  assert.equal(outcome.canary?.kind, 'overridden');
  assert.equal(await node.read(FILE), edited);
  assert.deepEqual(summary(await crioOf(node).files.restore()), ['restored docker.io']);
  assert.equal(
    await node.read(FILE),
    `[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n\n${theirs}`,
  );
  assert.deepEqual(await crioOf(node).files.restore(), []);
});

test('an edited drop-in whose last resort was the mirror has the registry itself again', async (t) => {
  const node = await makeRoot(t, processes({}));
  await crioOf(node).apply('upstreams: { docker.io: { direct: false } }');
  await node.put({ [FILE]: `${await node.read(FILE)}[aliases]\n"a" = "x.corp/a"\n` });
  await crioOf(node).files.restore();
  assert.equal(
    await node.read(FILE),
    '[aliases]\na = "x.corp/a"\n\n[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n',
  );
});

test('an edit that left nothing of its own is no reason to stay', async (t) => {
  const node = await makeRoot(t, processes({}));
  const before = await node.etc();
  await crioOf(node).apply(HUB);
  await node.put({ [FILE]: (await node.read(FILE)).replace(OURS, '') });
  assert.deepEqual(summary(await crioOf(node).files.restore()), ['removed docker.io']);
  assert.deepEqual(await node.etc(), before);
});

test("somebody's own file of that name is left alone", async (t) => {
  const node = await makeRoot(t, { ...processes({}), [FILE]: '[[registry]]\nlocation = "docker.io"\n' });
  const before = await node.etc();
  const outcome = await crioOf(node).apply(HUB);
  assert.match(statesOf(outcome)['docker.io'] ?? '', /^overridden: \S+ is not of weir\./);
  assert.deepEqual(await crioOf(node).files.restore(), []);
  assert.deepEqual(await node.etc(), before);
});

test('without the state directory, a file of ours is still known and removed', async (t) => {
  const node = await makeRoot(t, { ...processes({}), [`${DROP_INS}/`]: '' });
  const before = await node.etc();
  await crioOf(node).apply(HUB);
  await rm(join(node.root, 'var/lib/weir'), { recursive: true });
  assert.deepEqual((await crioOf(node).apply(HUB)).changes, []);
  await rm(join(node.root, 'var/lib/weir'), { recursive: true });
  assert.deepEqual(summary(await crioOf(node).files.restore()), ['removed docker.io']);
  assert.deepEqual(await node.etc(), before);
});

test('what leaves does so whatever the files of the user are like, and what stays waits for them', async (t) => {
  const node = await makeRoot(t, processes({}));
  await crioOf(node).apply(HUB);
  const text = await node.read(FILE);
  await node.put({ [MAIN]: '[[registry]\n' });
  assert.match(statesOf(await crioOf(node).apply(HUB, MIRROR, true))['docker.io'] ?? '', /^unparsable: /);
  assert.equal(await node.read(FILE), text);
  const { changes } = await crioOf(node).apply(`enabled: false\n${HUB}`);
  assert.deepEqual(summary(changes), ['removed docker.io']);
});

test('links lead where they lead on the node', async (t) => {
  const node = await makeRoot(t, { ...processes({}), '/etc/containers': '-> /opt/containers', '/opt/': '' });
  await crioOf(node).apply(HUB);
  assert.equal(bodyOf(await node.read('/opt/containers/registries.conf.d/zzz-weir.conf')), PLAIN);
  await crioOf(node).files.restore();
  assert.deepEqual(Object.keys(await node.etc()), ['containers']);
});

test('CRI-O is told once of each change, and one that began later has read it', async (t) => {
  const node = await makeRoot(
    t,
    processes({ 7: { args: ['/usr/bin/crio'] }, 8: { args: ['crio-wrapper'] } }),
  );
  const crio = crioOf(node);
  await crio.apply(HUB);
  await crio.apply(HUB);
  assert.deepEqual(crio.told, [7]);
  await crio.apply('upstreams: { docker.io: {}, quay.io: {} }');
  assert.deepEqual(crio.told, [7, 7]);
  await node.put(processes({ 9: { args: ['crio'], at: Date.now() / 1000 + 60 } }));
  await rm(join(node.root, 'proc/7'), { recursive: true });
  await crio.apply('upstreams: { docker.io: {}, quay.io: {} }');
  assert.deepEqual(crio.told, [7, 7]);
  // An agent that comes later cannot know whether the one before it got to that.
  await node.put(processes({ 7: { args: ['crio'] } }));
  const next = crioOf(node);
  await next.apply('upstreams: { docker.io: {}, quay.io: {} }');
  assert.deepEqual(next.told, [7]);
});

test('CRI-O is told that the mirror is gone before the file is', async (t) => {
  const node = await makeRoot(t, processes({ 7: { args: ['crio'] } }));
  const seen: string[] = [];
  const signal = async (): Promise<void> => {
    seen.push(await node.read(FILE));
  };
  await crioOf(node, { signal }).apply(HUB);
  await crioOf(node, { signal }).files.restore();
  assert.deepEqual(seen.map(bodyOf), [PLAIN, '']);
});

test('a CRI-O that cannot be told is said to be so, until it has started again or looks by itself', async (t) => {
  const node = await makeRoot(t, processes({ 7: { args: ['crio'] } }));
  const signal = refuse;
  const { states, canary } = await crioOf(node, { signal }).apply(HUB, MIRROR, true);
  const state = states.get('docker.io');
  assert.equal(state?.kind, 'unsupported');
  assert.match(
    state?.kind === 'unsupported' ? state.reason : '',
    /^\S+zzz-weir\.conf is written, but no way\. CRI-O reads it at its next start or SIGHUP\. .*hostPID/,
  );
  assert.deepEqual(canary, { kind: 'configured' });
  await node.put({ '/etc/crio/crio.conf.d/10.conf': '[crio.image]\nauto_reload_registries = true\n' });
  assert.deepEqual(statesOf(await crioOf(node, { signal }).apply(HUB)), { 'docker.io': 'configured' });
  await rm(join(node.root, 'etc/crio'), { recursive: true });
  await utimes(join(node.root, FILE), 0, 0);
  await node.put(processes({ 7: { args: ['crio'], at: 100 } }));
  assert.deepEqual(statesOf(await crioOf(node, { signal }).apply(HUB)), { 'docker.io': 'configured' });
  await rm(join(node.root, 'proc'), { recursive: true });
  assert.match(
    statesOf(await crioOf(node, { signal }).apply(HUB))['docker.io'] ?? '',
    /^unsupported: .*no \/proc below its root/,
  );
});

test('a CRI-O that has just begun, and would end by the signal, is let settle', async (t) => {
  const begun = Math.ceil(Date.now() / 1000);
  const node = await makeRoot(t, processes({ 7: { args: ['crio'], at: begun } }));
  const age = Promise.withResolvers<number>();
  const signal = async (): Promise<void> => age.resolve(Date.now() - begun * 1000);
  await crioOf(node, { signal, settle: 300 }).apply(HUB);
  assert.ok((await age.promise) >= 300);
  // Whoever is told to stop waits no longer.
  const crio = crioOf(node, { settle: 3_600_000 });
  const config = configOf('upstreams: { quay.io: {} }');
  const outcome = await crio.files.apply({ config, mirror: MIRROR }, AbortSignal.abort());
  assert.match(statesOf(outcome)['quay.io'] ?? '', /the agent was told to stop first/);
  assert.deepEqual(crio.told, []);
});

test('a signal goes to the very process that was seen, or nowhere', async (t) => {
  const node = await makeRoot(t, { '/bin/': '' });
  const name = join(node.root, 'bin', 'crio');
  await symlink('/bin/sh', name);
  const script = 'trap "exit 41" HUP; echo ready; while :; do sleep 0.05; done';
  const child = spawn(name, ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  const seen = (await findProcesses('/', ['crio']))?.find(({ pid }) => pid === child.pid);
  assert.ok(seen !== undefined, 'the process is seen');
  // Another node's process of that number.
  await node.put(processes({ [seen.pid]: { args: ['crio'] } }));
  await assert.rejects(hangUpBelow(node.root)(seen), /not in the node's PID namespace \(hostPID\)/);
  await hangUpBelow('/')(seen);
  await once(child, 'exit');
  assert.equal(child.exitCode, 41);
  await hangUpBelow('/')(seen);
});

const BOTH = 'upstreams: { docker.io: {}, quay.io: { direct: false } }';

test('cut off at any point, the next run ends where this one would have', async (t) => {
  const done = await finished(t);
  for (let count = 0, isCut = true; isCut; count += 1) {
    const node = await makeRoot(t, processes({ 7: { args: ['crio'] } }));
    isCut = await cutBefore(t, count, () => crioOf(node).apply(BOTH));
    const crio = crioOf(node);
    assert.deepEqual(statesOf(await crio.apply(BOTH)), {
      'docker.io': 'configured',
      'quay.io': 'configured',
    });
    assert.deepEqual(crio.told, [7]);
    assert.deepEqual(await node.etc(), done, `cut off before operation ${count}`);
  }
});

test('cut off at any point of either way, restoring brings everything back, and CRI-O knows', async (t) => {
  for (const way of ['apply', 'restore'] as const)
    for (let count = 0, isCut = true; isCut; count += 1) {
      const node = await makeRoot(t, { ...processes({ 7: { args: ['crio'] } }), '/etc/crio/': '' });
      const before = await node.etc();
      // What CRI-O goes by: the file as it was when it was last told.
      let known = '';
      const signal = async (): Promise<void> => {
        known = await node.read(FILE).then(bodyOf, () => '');
      };
      const run = crioOf(node, { signal });
      if (way === 'restore') await run.apply(BOTH);
      isCut = await cutBefore(t, count, () => (way === 'apply' ? run.apply(BOTH) : run.files.restore()));
      await crioOf(node, { signal }).files.restore();
      assert.deepEqual(await node.etc(), before, `${way}, cut off before operation ${count}`);
      assert.deepEqual(await node.kept(), []);
      assert.equal(known, '');
    }
});

async function finished(t: TestContext): ReturnType<RuntimeRoot['etc']> {
  const node = await makeRoot(t, processes({ 7: { args: ['crio'] } }));
  await crioOf(node).apply(BOTH);
  return node.etc();
}
