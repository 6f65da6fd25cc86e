import assert from 'node:assert/strict';
import { chmod, lstat, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { applyOnce } from '../../agent/agent.ts';
import type { NodeSight } from '../../agent/runtimes/node-sight.ts';
import { formatPlan, type Plan, planNode } from '../../agent/runtimes/plan.ts';
import { seeNode } from '../../agent/runtimes/see-node.ts';
import { unifiedDiff } from '../../agent/runtimes/unified-diff.ts';
import { makeIdentity } from '../support/certificates.ts';
import { weir } from '../support/weir-command.ts';
import { configOf, MIRROR } from './node-files.ts';
import { plant, type Tree } from './planted.ts';
import { processes } from './runtime-root.ts';

const CERTS = '/etc/containerd/certs.d';
const STATE = '/var/lib/weir';
const CONFIG = 'upstreams: { docker.io: {}, quay.io: {}, ghcr.io: {} }';

interface Node {
  readonly root: string;
  readonly plan: (yaml?: string, certsDirs?: readonly string[]) => Promise<Plan>;
  readonly apply: (yaml?: string) => Promise<unknown>;
  /** Everything below the root, with owners, modes and times of change. */
  readonly everything: () => Promise<readonly string[]>;
}

async function makeNode(t: TestContext, tree: Tree): Promise<Node> {
  const root = await plant(t, tree);
  const place = { root, certsDir: CERTS, stateDir: STATE, log: pino({ level: 'silent' }) };
  return {
    root,
    plan: async (yaml = CONFIG, certsDirs = [CERTS]) => {
      const seen = await seeNode({ root });
      const sight: NodeSight = { ...seen, certsDirs, verdict: { kind: 'configurable' } };
      return planNode({ root, sight, stateDir: STATE, config: configOf(yaml), mirror: MIRROR });
    },
    apply: (yaml = CONFIG) => applyOnce({ ...place, config: configOf(yaml), mirror: MIRROR }),
    everything: () => everythingBelow(root),
  };
}

async function everythingBelow(root: string): Promise<readonly string[]> {
  const names = (await readdir(root, { recursive: true })).toSorted();
  return Promise.all(
    names.map(async (name) => {
      const { mode, uid, gid, size, mtimeMs, ino } = await lstat(join(root, name));
      return [name, mode.toString(8), uid, gid, size, mtimeMs, ino].join(' ');
    }),
  );
}

/** What the agent really makes of the files that a plan names. */
async function outcome(
  { root }: Node,
  { files, state }: Plan,
): Promise<readonly (readonly [string, string | undefined])[]> {
  return Promise.all(
    [...files, ...state].map(
      async ({ path }) => [path, await readFile(join(root, path), 'utf8').catch(() => undefined)] as const,
    ),
  );
}

function planned({ files, state }: Plan): readonly (readonly [string, string | undefined])[] {
  return [...files, ...state].map(({ path, after }) => [path, after] as const);
}

const NODES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'without any file': {},
  "with a user's file, a default and certificates": {
    [`${CERTS}/quay.io/hosts.toml`]: '# mine\nserver = "https://quay.io"\n[host."https://q.example"]\n',
    [`${CERTS}/ghcr.io/ca.crt`]: 'PEM',
    [`${CERTS}/_default/hosts.toml`]: '[host."https://d.example"]\nca = "ca.pem"\n',
  },
  'with links out of the directory': {
    [`${CERTS}/quay.io/hosts.toml`]: '-> /opt/quay.toml',
    '/opt/quay.toml': 'server = "https://quay.io"\n[host."https://linked.example"]\n',
    [`${CERTS}/docker.io/hosts.toml`]: '-> ../../../nowhere.toml',
    [`${CERTS}/_default`]: '-> /opt/default',
    '/opt/default/hosts.toml': '[host."https://d.example"]\n',
  },
  'whose directory is reached by links': {
    '/etc/containerd': '-> /opt/containerd',
    '/opt/containerd/certs.d': '-> ../certs',
    '/opt/certs/quay.io/hosts.toml': 'server = "https://quay.io"\n',
  },
};

suite('a plan', () => {
  for (const [name, tree] of Object.entries(NODES))
    test(`tells, of a node ${name}, what the agent does, and does nothing`, async (t) => {
      const node = await makeNode(t, tree);
      const before = await node.everything();
      const plan = await node.plan();
      assert.deepEqual(await node.everything(), before, 'nothing is changed');
      assert.equal(plan.files.length, 3);
      assert.ok(plan.state.length > 0);
      assert.deepEqual(plan.problems, []);
      await node.apply();
      assert.deepEqual(await outcome(node, plan), planned(plan));
      assert.deepEqual(await node.plan(), { files: [], state: [], problems: [] }, 'nothing is left to do');
    });

  test('of fewer upstreams tells what is taken away and what comes back', async (t) => {
    const mine = '# mine\nserver = "https://quay.io"\n';
    const node = await makeNode(t, { [`${CERTS}/quay.io/hosts.toml`]: mine });
    await node.apply();
    const plan = await node.plan('upstreams: { ghcr.io: {} }');
    assert.deepEqual(
      plan.files.map(({ path, after }) => [path, after]),
      [
        [`${CERTS}/docker.io/hosts.toml`, undefined],
        [`${CERTS}/quay.io/hosts.toml`, mine],
      ],
    );
    await node.apply('upstreams: { ghcr.io: {} }');
    assert.deepEqual(await outcome(node, plan), planned(plan));
  });

  test('tells of what would be left alone, and of what cannot be written', async (t) => {
    const node = await makeNode(t, {
      [`${CERTS}/quay.io/hosts.toml`]: 'no TOML',
      [`${CERTS}/ghcr.io/hosts.toml/`]: '',
      '/opt/shared/': '',
      [`${CERTS}/docker.io`]: '-> /opt/shared',
    });
    const plan = await node.plan();
    assert.deepEqual(plan.files, []);
    assert.equal(plan.problems.length, 3);
    for (const [index, pattern] of [
      /^quay\.io: unparsable: \/etc\/containerd\/certs\.d\/quay\.io\/hosts\.toml cannot be merged/,
      /^docker\.io: \/etc\/containerd\/certs\.d\/docker\.io is a symbolic link/,
      /^ghcr\.io: \/etc\/containerd\/certs\.d\/ghcr\.io\/hosts\.toml is no regular file/,
    ].entries())
      assert.match(plan.problems[index] ?? '', pattern);
  });

  test('goes on where links lead round in a circle, or through a file', async (t) => {
    const node = await makeNode(t, {
      [`${CERTS}/quay.io/hosts.toml`]: '-> hosts.toml',
      [`${CERTS}/ghcr.io/round`]: '-> round',
      [`${CERTS}/ghcr.io/ca.crt`]: 'x',
      [`${CERTS}/ghcr.io/through`]: '-> ca.crt/more',
    });
    const plan = await node.plan();
    assert.deepEqual(
      plan.files.map(({ path }) => path),
      [`${CERTS}/docker.io/hosts.toml`, `${CERTS}/ghcr.io/hosts.toml`],
    );
    assert.match(plan.problems.join('\n'), /^quay\.io: .*too many symbolic links/);
  });

  test('tells of a certificate whose name is not UTF-8', async (t) => {
    const node = await makeNode(t, { [`${CERTS}/ghcr.io/`]: '' });
    await writeFile(Buffer.from(join(node.root, CERTS, 'ghcr.io/caf\xe9.crt'), 'latin1'), '');
    assert.match((await node.plan()).problems.join('\n'), /^ghcr\.io: unparsable: .*is not UTF-8/);
  });

  test('of two directories is one of both', async (t) => {
    const list = `${CERTS}:/etc/docker/certs.d`;
    const node = await makeNode(t, {});
    const plan = await node.plan('upstreams: { quay.io: {} }', [CERTS, list]);
    assert.deepEqual(
      plan.files.map(({ path }) => path),
      [`${CERTS}/quay.io/hosts.toml`, `${list}/quay.io/hosts.toml`],
    );
  });

  test('repeats who may read a file', async (t) => {
    const node = await makeNode(t, { [`${CERTS}/quay.io/hosts.toml`]: 'server = "https://quay.io"\n' });
    await chmod(join(node.root, CERTS, 'quay.io/hosts.toml'), 0o600);
    const plan = await node.plan();
    await node.apply();
    // The name and the text of an original are made of its mode and its owner as well.
    assert.deepEqual(await outcome(node, plan), planned(plan));
  });

  test('is written as a difference that patches know', () => {
    const files = [
      { path: '/a/new', before: undefined, after: 'one\ntwo\n' },
      { path: '/a/gone', before: 'one', after: undefined },
      { path: '/a/other', before: '1\n2\n3\n4\n5\n', after: '1\n2\n3\n4\nfive\n' },
    ];
    assert.equal(
      formatPlan({ files, state: [], problems: [] }),
      '--- /dev/null\n+++ /a/new\n@@ -0,0 +1,2 @@\n+one\n+two\n' +
        '--- /a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n\\ No newline at end of file\n' +
        '--- /a/other\n+++ /a/other\n@@ -2,4 +2,4 @@\n 2\n 3\n 4\n-5\n+five\n',
    );
  });
});

test('a difference, applied, gives the other text', () => {
  let seed = 7;
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * below);
  };
  const text = (): string =>
    Array.from({ length: random(30) }, () => 'abcd'[random(4)]).join('\n') + (random(2) === 0 ? '' : '\n');
  for (let round = 0; round < 500; round++) {
    const [before, after] = [text(), text()];
    assert.equal(patched(before, unifiedDiff(before, after)), after);
  }
});

/** Applies a difference as strictly as its form allows. */
function patched(before: string, diff: string): string {
  if (diff === '') return before;
  const old = before.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const result: string[] = [];
  let at = 0;
  const lines = diff.split('\n').slice(0, -1);
  for (const [index, line] of lines.entries()) {
    const content = lines[index + 1]?.startsWith('\\') === true ? line.slice(1) : `${line.slice(1)}\n`;
    const header = /^@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@$/.exec(line);
    if (header !== null) {
      const start = Number(header[1]) - (header[2] === '0' ? 0 : 1);
      result.push(...old.slice(at, start));
      at = start;
    } else if (line.startsWith('+')) result.push(content);
    else if (!line.startsWith('\\')) {
      assert.equal(old[at], content);
      if (line.startsWith(' ')) result.push(content);
      at++;
    }
  }
  return [...result, ...old.slice(at)].join('');
}

suite('weir node', () => {
  const tree = {
    '/etc/containerd/config.toml': `version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "${CERTS}"\n`,
    [`${CERTS}/quay.io/hosts.toml`]: '# File generated by k3s. DO NOT EDIT.\n[host]\n',
  };

  test('inspect shows what is seen, for people and for programs', async (t) => {
    const { root, everything } = await makeNode(t, tree);
    const before = await everything();
    const { code, stdout } = await weir('node', 'inspect', '--host-root', root);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /^config_path +\/etc\/containerd\/certs\.d {2}\(\/etc\/containerd\/config\.toml:3\)$/m,
    );
    assert.match(stdout, /^verdict +configurable$/m);
    const { stdout: json } = await weir('node', 'inspect', '--host-root', root, '--json');
    const sight: unknown = JSON.parse(json);
    assert.ok(typeof sight === 'object' && sight !== null && 'certsDirs' in sight);
    assert.deepEqual(sight.certsDirs, [CERTS]);
    assert.deepEqual(await everything(), before);
  });

  test('plan shows the difference on standard output, and everything else beside it', async (t) => {
    const { root, everything } = await makeNode(t, tree);
    const before = await everything();
    const config = join(root, 'config.yaml');
    await writeFile(config, 'upstreams: { ghcr.io: {}, quay.io: {} }');
    const flags = ['--host-root', root, '--state-dir', STATE, '--config', config, '--mirror', MIRROR];
    const { code, stdout, stderr } = await weir('node', 'plan', ...flags);
    assert.equal(code, 0, stderr);
    assert.match(
      stdout,
      /^--- \/dev\/null\n\+\+\+ \/etc\/containerd\/certs\.d\/ghcr\.io\/hosts\.toml\n@@ -0,0 \+1,7 @@\n\+# weir \{/,
    );
    assert.match(stderr, /quay\.io is left alone: .* is written by k3s/);
    assert.match(stderr, /\/var\/lib\/weir\/[0-9a-f]+\/state\.json would be written, for weir itself/);
    assert.deepEqual(
      (await everything()).filter((line) => !line.startsWith('config.yaml')),
      before,
    );
  });

  test('plan has the authority of the mirror where the agent is given it, before the files that name it', async (t) => {
    const { root } = await makeNode(t, tree);
    const config = join(root, 'config.yaml');
    await writeFile(config, 'upstreams: { ghcr.io: {} }');
    const { ca } = await makeIdentity(root, ['DNS:mirror.corp']);
    const flags = ['--host-root', root, '--state-dir', STATE, '--config', config];
    const named = [...flags, '--mirror', 'https://mirror.corp', '--mirror-ca', join(root, 'ca.pem')];
    const { code, stdout, stderr } = await weir('node', 'plan', ...named);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^\+ *ca = "\.\.\/weir-mirror-ca\.pem"$/m);
    const [, added = ''] = /^\+\+\+ .*\/weir-mirror-ca\.pem\n@@.*\n((?:\+.*\n)+)/m.exec(stdout) ?? [];
    assert.equal(added.replaceAll(/^\+/gm, ''), ca);
    const plain = await weir(
      'node',
      'plan',
      ...flags,
      '--mirror',
      MIRROR,
      '--mirror-ca',
      join(root, 'ca.pem'),
    );
    assert.deepEqual([plain.code, /--mirror-ca is for/.test(plain.stderr)], [2, true]);
  });

  test('plan says why nothing would be written', async (t) => {
    const { root } = await makeNode(t, { '/etc/os-release': 'ID=talos\n' });
    const config = join(root, 'config.yaml');
    await writeFile(config, CONFIG);
    const { code, stdout, stderr } = await weir(
      'node',
      'plan',
      '--host-root',
      root,
      '--config',
      config,
      '--mirror',
      MIRROR,
    );
    assert.equal(code, 0);
    assert.equal(stdout, '');
    assert.match(stderr, /nothing would be written: Talos .*RegistryMirrorConfig/);
  });

  test('plan wants one configuration, and a mirror that is one', async () => {
    const none = await weir('node', 'plan', '--mirror', MIRROR);
    assert.deepEqual([none.code, /give either --config/.test(none.stderr)], [2, true]);
    const wrong = await weir('node', 'plan', '--mirror', 'ftp://x', '--config', 'x');
    assert.deepEqual([wrong.code, /ftp:\/\/x/.test(wrong.stderr)], [2, true]);
    assert.equal((await weir('node', 'plan', '--config', 'x')).code, 2);
  });
});

test('of a node with CRI-O has its drop-in, and of one with Docker its daemon.json', async (t) => {
  const crio = await makeNode(t, { '/run/crio/crio.sock': '', '/etc/containers/registries.conf': '' });
  const docker = await makeNode(t, {
    '/run/cri-dockerd.sock': '',
    '/etc/docker/daemon.json': '{"debug": true}\n',
    ...processes({ 7: { args: ['/usr/bin/dockerd'] } }),
  });
  for (const [{ root, everything }, path] of [
    [crio, '/etc/containers/registries.conf.d/zzz-weir.conf'],
    [docker, '/etc/docker/daemon.json'],
  ] as const) {
    const before = await everything();
    const sight = await seeNode({ root });
    const plan = await planNode({ root, sight, stateDir: STATE, config: configOf(CONFIG), mirror: MIRROR });
    assert.deepEqual(await everything(), before);
    assert.deepEqual(
      plan.files.map((file) => file.path),
      [path],
    );
    assert.match(plan.files[0]?.after ?? '', /127\.0\.0\.1:30500/);
  }
});
