import assert from 'node:assert/strict';
import { chmod, mkdir, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { bodyOf, makeNode, NOTE } from './node-files.ts';

const HUB = 'upstreams: { docker.io: {} }';
const CORP = "upstreams: { 'harbor.corp:8443': {} }";
const OURS = `[host."http://127.0.0.1:30500"]
capabilities = [ "pull", "resolve" ]
dial_timeout = "3s"
`;
const PLAIN = `${NOTE}\nserver = "https://registry-1.docker.io"\n\n${OURS}`;
const USERS = '# by hand\n[host."https://a.corp"]\n  capabilities = ["pull"]\n  ca = "a.crt"\n';
const MERGED = `${NOTE}\nserver = "https://registry-1.docker.io"

${OURS}
[host."https://a.corp"]
capabilities = [ "pull" ]
ca = "a.crt"
`;

const found: readonly {
  name: string;
  files: Record<string, string>;
  config?: string;
  path?: string;
  body: string;
}[] = [
  { name: 'no directory', files: {}, body: PLAIN },
  { name: 'an empty directory', files: { 'docker.io/': '', '_default/hosts.toml': USERS }, body: PLAIN },
  {
    name: 'certificates, which containerd reads no more once there is a hosts.toml',
    files: {
      'docker.io/b.crt': '',
      'docker.io/a.crt': '',
      'docker.io/c.cert': '',
      'docker.io/c.key': '',
      'docker.io/d.cert': '',
      'docker.io/readme.txt': '',
      'docker.io/x.crt/': '',
    },
    body: `${NOTE}
server = "https://registry-1.docker.io"
ca = [ "a.crt", "b.crt" ]
client = [ [ "c.cert", "c.key" ], [ "d.cert", "d.cert" ] ]

${OURS}`,
  },
  {
    name: 'an empty file, which is none to containerd',
    files: { 'docker.io/hosts.toml': '', 'docker.io/a.crt': '' },
    body: `${NOTE}\nserver = "https://registry-1.docker.io"\nca = [ "a.crt" ]\n\n${OURS}`,
  },
  { name: "a user's file", files: { 'docker.io/hosts.toml': USERS, 'docker.io/b.crt': '' }, body: MERGED },
  {
    name: "a user's link",
    files: { 'docker.io/hosts.toml': '-> ../other.toml', 'other.toml': USERS },
    body: MERGED,
  },
  { name: 'a link that leads nowhere', files: { 'docker.io/hosts.toml': '-> gone.toml' }, body: PLAIN },
  {
    name: "the default's hosts, with their certificates where they are",
    files: {
      '_default/hosts.toml':
        'server = "https://all.corp"\nca = "all.crt"\n[host."https://a.corp"]\ncapabilities = ["pull"]\nca = ["a.crt", "/etc/b.crt"]\nclient = [["a.cert", "a.key"], "c.pem"]\n',
    },
    body: `${NOTE}
server = "https://all.corp"
ca = "../_default/all.crt"

${OURS}
[host."https://a.corp"]
capabilities = [ "pull" ]
ca = [ "../_default/a.crt", "/etc/b.crt" ]
client = [
  [ "../_default/a.cert", "../_default/a.key" ],
  "../_default/c.pem"
]
`,
  },
  {
    name: "the default's certificates, when it has no file",
    files: { '_default/a.crt': '', '_default/a.cert': '', '_default/a.key': '' },
    body: `${NOTE}
server = "https://registry-1.docker.io"
ca = [ "../_default/a.crt" ]
client = [ [ "../_default/a.cert", "../_default/a.key" ] ]

${OURS}`,
  },
  {
    name: 'a port',
    config: CORP,
    files: {},
    path: 'harbor.corp:8443/hosts.toml',
    body: `${NOTE}\nserver = "https://harbor.corp:8443"\n\n${OURS}`,
  },
  {
    name: 'the directory with underscores, where containerd looks first',
    config: CORP,
    files: { 'harbor.corp_8443_/ca.crt': '', 'harbor.corp:8443/hosts.toml': USERS },
    path: 'harbor.corp_8443_/hosts.toml',
    body: `${NOTE}\nserver = "https://harbor.corp:8443"\nca = [ "ca.crt" ]\n\n${OURS}`,
  },
];

for (const { name, files, config = HUB, path = 'docker.io/hosts.toml', body } of found)
  test(`where there is ${name}, the file says this, a second run changes nothing, and rollback undoes it`, async (t) => {
    const node = await makeNode(t);
    await node.put({ '_default/': '', ...files });
    const before = await node.snapshot();
    const [change, ...more] = await node.applied(config);
    assert.match(change ?? '', /^written /);
    assert.deepEqual(more, []);
    assert.equal(bodyOf(await node.read(path)), body);

    const { mtimeMs, ino } = await stat(join(node.certsDir, path));
    assert.deepEqual(await node.applied(config), []);
    const again = await stat(join(node.certsDir, path));
    assert.deepEqual([again.mtimeMs, again.ino], [mtimeMs, ino]);

    const [undone, ...others] = await node.rollback();
    assert.match(undone ?? '', /^(?:restored|removed) /);
    assert.deepEqual(others, []);
    assert.deepEqual(await node.snapshot(), before);
    assert.deepEqual(await node.rollback(), []);
    assert.deepEqual(await node.snapshot(), before);
  });

test('a file of ours follows the configuration and the address', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  assert.deepEqual(await node.applied('upstreams: { docker.io: { direct: false } }'), ['written docker.io']);
  assert.match(await node.read('docker.io/hosts.toml'), /\nserver = "http:\/\/127.0.0.1:30500"\n/);
  assert.deepEqual(await node.applied(HUB, 'http://10.0.0.1:5000'), ['written docker.io']);
  assert.doesNotMatch(await node.read('docker.io/hosts.toml'), /127/);
});

test('a file of ours is for everyone to read and for root to write', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  assert.equal((await stat(join(node.certsDir, 'docker.io/hosts.toml'))).mode & 0o777, 0o644);
  assert.equal((await stat(join(node.certsDir, 'docker.io'))).mode & 0o777, 0o755);
});

test('credentials in a header are not for more people to read than before', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await chmod(join(node.certsDir, 'docker.io/hosts.toml'), 0o600);
  await node.apply(HUB);
  assert.equal((await stat(join(node.certsDir, 'docker.io/hosts.toml'))).mode & 0o777, 0o600);
});

for (const withState of [true, false])
  for (const [damage, cut] of [
    ['missing', undefined],
    ['empty', () => 0],
    ['cut in the middle of its marker', () => 40],
    ['cut in the middle of a table', (text: string) => text.indexOf('capabilities') + 10],
  ] as const)
    test(`a file of ours that is ${damage} is whole again${withState ? '' : ', even without the state directory'}`, async (t) => {
      const node = await makeNode(t);
      await node.put({ '_default/hosts.toml': USERS });
      await node.apply(HUB);
      const path = join(node.certsDir, 'docker.io/hosts.toml');
      const text = await node.read('docker.io/hosts.toml');
      if (cut === undefined) await rm(path);
      else await truncate(path, cut(text));
      if (!withState) await rm(node.stateDir, { recursive: true });
      // Without the state directory, nothing tells that an empty or missing file was ever ours.
      if (!withState && (damage === 'missing' || damage === 'empty')) return;
      const [change] = await node.applied(HUB);
      assert.equal(change, 'healed docker.io');
      if (withState) assert.equal(await node.read('docker.io/hosts.toml'), text);
    });

test('a file of ours whose last lines somebody took out is theirs', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  const text = await node.read('docker.io/hosts.toml');
  for (const end of [text.indexOf('\n[host'), text.indexOf('dial_timeout'), text.indexOf('\ndial_timeout')]) {
    await node.put({ 'docker.io/hosts.toml': text.slice(0, end) });
    assert.deepEqual(await node.applied(HUB), ['left docker.io']);
    assert.equal(await node.read('docker.io/hosts.toml'), text.slice(0, end));
  }
});

test('a file of ours that reads as zero bytes after a power cut is healed', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  const text = await node.read('docker.io/hosts.toml');
  await node.put({ 'docker.io/hosts.toml': '\0'.repeat(text.length) });
  assert.deepEqual(await node.applied(HUB), ['healed docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), text);
});

test('a merged file that is deleted with its directory comes back merged', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  await rm(join(node.certsDir, 'docker.io'), { recursive: true });
  assert.deepEqual(await node.applied(HUB), ['healed docker.io']);
  assert.equal(bodyOf(await node.read('docker.io/hosts.toml')), MERGED);
  await node.rollback();
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

test('an edited file of ours is left to whoever edited it, until it is deleted', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  const edited = `${await node.read('docker.io/hosts.toml')}# mine\n`;
  await node.put({ 'docker.io/hosts.toml': edited });
  const [change] = await node.apply('upstreams: { docker.io: { direct: false } }');
  assert.equal(change?.kind, 'left');
  assert.match(change?.reason ?? '', /docker\.io\/hosts\.toml was edited by hand/);
  assert.equal(await node.read('docker.io/hosts.toml'), edited);
  await rm(join(node.certsDir, 'docker.io/hosts.toml'));
  assert.deepEqual(await node.applied(HUB), ['healed docker.io']);
});

test('a file whose comments somebody stripped is left to them, and is no original', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  const stripped = (await node.read('docker.io/hosts.toml')).replaceAll(/^#.*\n/gm, '');
  await node.put({ 'docker.io/hosts.toml': stripped });
  assert.deepEqual(await node.applied(HUB), ['left docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), stripped);
  await node.rollback();
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

test('a file of ours that an edit made unreadable is healed', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  const text = await node.read('docker.io/hosts.toml');
  await node.put({ 'docker.io/hosts.toml': text.replace('[host', '[[host') });
  assert.deepEqual(await node.applied(HUB), ['healed docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), text);
});

test('a file that somebody puts in place of ours is the new original', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': '[host.old]\n' });
  await node.apply(HUB);
  await node.put({ 'docker.io/hosts.toml': USERS });
  assert.deepEqual(await node.applied(HUB), ['written docker.io']);
  assert.equal(bodyOf(await node.read('docker.io/hosts.toml')), MERGED);
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

for (const [what, text] of [
  ['is no TOML', 'server = https://a\n'],
  ['has what containerd does not accept either', '[host.a]\ncapabilities = ["fetch"]\n'],
] as const)
  test(`a user's file that ${what} is left as it is`, async (t) => {
    const node = await makeNode(t);
    await node.put({ 'docker.io/hosts.toml': text });
    const [change] = await node.apply(HUB);
    assert.equal(change?.kind, 'left');
    assert.match(change?.reason ?? '', /cannot be merged.*Correct or remove it\./);
    assert.equal(await node.read('docker.io/hosts.toml'), text);
    assert.deepEqual(await node.rollback(), []);
    assert.equal(await node.read('docker.io/hosts.toml'), text);
  });

test("a user's file that is not UTF-8 is left as it is", async (t) => {
  const node = await makeNode(t);
  await mkdir(join(node.certsDir, 'docker.io'), { recursive: true });
  await writeFile(join(node.certsDir, 'docker.io/hosts.toml'), Buffer.from('# caf\xe9\n', 'latin1'));
  assert.deepEqual(await node.applied(HUB), ['left docker.io']);
});

test('a default that cannot be read is not hidden behind a file of ours', async (t) => {
  const node = await makeNode(t);
  await node.put({ '_default/hosts.toml': 'server = ' });
  const before = await node.snapshot();
  assert.deepEqual(await node.applied(HUB), ['left docker.io']);
  assert.deepEqual(await node.snapshot(), before);
});

test('a certificate whose name is not UTF-8, which no file can name, is not hidden behind one of ours', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/': '', 'quay.io/': '' });
  for (const [host, name] of [
    ['docker.io', 'caf\xe9.crt'],
    ['quay.io', 'caf\xe9.txt'],
  ] as const)
    await writeFile(Buffer.from(join(node.certsDir, host, name), 'latin1'), '');
  const [left, ...more] = await node.apply('upstreams: { docker.io: {}, quay.io: {} }');
  assert.equal(left?.kind, 'left');
  assert.match(left?.reason ?? '', /docker\.io\/.*has a name that is not UTF-8.*Rename it\./);
  assert.deepEqual(
    more.map(({ kind }) => kind),
    ['written'],
  );
});

test('a certificate, or a default host, that changes is carried anew', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/a.crt': '', '_default/hosts.toml': USERS });
  await node.apply('upstreams: { docker.io: {}, quay.io: {} }');
  await rm(join(node.certsDir, 'docker.io/a.crt'));
  await rm(join(node.certsDir, '_default'), { recursive: true });
  await node.apply('upstreams: { docker.io: {}, quay.io: {} }');
  assert.equal(bodyOf(await node.read('docker.io/hosts.toml')), PLAIN);
  assert.doesNotMatch(await node.read('quay.io/hosts.toml'), /a\.corp/);
});

test('a directory with underscores that appears later takes the place of the one without', async (t) => {
  const node = await makeNode(t);
  await node.apply(CORP);
  await node.put({ 'harbor.corp_8443_/': '' });
  assert.deepEqual(await node.applied(CORP), ['written harbor.corp:8443', 'removed harbor.corp:8443']);
  assert.deepEqual(Object.keys(await node.snapshot()), [
    '.',
    'harbor.corp_8443_',
    'harbor.corp_8443_/hosts.toml',
  ]);
});

test('an upstream that is dropped goes back to what it was, and the others stay', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply('upstreams: { docker.io: {}, quay.io: {}, ghcr.io: {} }');
  const kept = await node.read('ghcr.io/hosts.toml');
  assert.deepEqual((await node.applied('upstreams: { ghcr.io: {} }')).toSorted(), [
    'removed quay.io',
    'restored docker.io',
  ]);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
  assert.equal(await node.read('ghcr.io/hosts.toml'), kept);
});

test('switched off, the node is what it was, a certificates directory that we made included', async (t) => {
  const node = await makeNode(t, 'etc/containerd/certs.d');
  await node.apply('upstreams: { docker.io: {}, quay.io: {} }');
  await node.apply('enabled: false\nupstreams: { docker.io: {}, quay.io: {} }');
  await assert.rejects(stat(join(node.certsDir, '../..')), { code: 'ENOENT' });
});

test('switched off from the start, nothing is touched', async (t) => {
  const node = await makeNode(t);
  assert.deepEqual(await node.applied('enabled: false\nupstreams: { docker.io: {} }'), []);
  await assert.rejects(stat(node.certsDir), { code: 'ENOENT' });
  await assert.rejects(stat(node.stateDir), { code: 'ENOENT' });
});

test('a host directory that is a link is not written through', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'shared/': '' });
  await symlink('shared', join(node.certsDir, 'docker.io'));
  await assert.rejects(
    node.apply('upstreams: { docker.io: {}, quay.io: {} }'),
    /docker\.io is a symbolic link/,
  );
  assert.match(await node.read('quay.io/hosts.toml'), /127\.0\.0\.1/);
});
