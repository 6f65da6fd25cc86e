import assert from 'node:assert/strict';
import { chmod, chown, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { rollback } from '../../agent/rollback.ts';
import { bodyOf, makeNode, type NodeFiles } from './node-files.ts';

const HUB = 'upstreams: { docker.io: {} }';
const USERS =
  '# by hand\r\nserver = "https://hub.corp" # ours\n\n[host."https://a.corp"]\n  capabilities = ["pull"]\n';

test('where weir never was, nothing changes', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS, 'quay.io/': '' });
  const before = await node.snapshot();
  assert.deepEqual(await node.rollback(), []);
  assert.deepEqual(await node.snapshot(), before);
  await assert.rejects(stat(node.stateDir), { code: 'ENOENT' });
});

test('bytes, mode and owner come back, for hosts that no configuration names any more too', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS, 'quay.io/hosts.toml': '' });
  const path = join(node.certsDir, 'docker.io/hosts.toml');
  await chmod(path, 0o640);
  if (process.getuid?.() === 0) await chown(path, 1234, 5678);
  const before = await node.snapshot();
  await node.apply('upstreams: { docker.io: {}, quay.io: {}, ghcr.io: {} }');
  assert.deepEqual((await node.rollback()).toSorted(), [
    'removed ghcr.io',
    'restored docker.io',
    'restored quay.io',
  ]);
  assert.deepEqual(await node.snapshot(), before);
  const [state = ''] = await readdir(node.stateDir);
  assert.deepEqual(await readdir(join(node.stateDir, state, 'originals')), []);
});

test('a directory that we made stays when somebody uses it', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  await node.put({ 'docker.io/ca.crt': 'x' });
  assert.deepEqual(await node.rollback(), ['removed docker.io']);
  assert.deepEqual(Object.keys(await node.snapshot()), ['.', 'docker.io', 'docker.io/ca.crt']);
});

test('a file that somebody put in place of ours is left to them', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': '[host.old]\n' });
  await node.apply(HUB);
  await node.put({ 'docker.io/hosts.toml': USERS });
  assert.deepEqual(await node.rollback(), []);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

test('an original comes back although our file is gone', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  await rm(join(node.certsDir, 'docker.io/hosts.toml'));
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

async function edit(node: NodeFiles, change: (text: string) => string): Promise<void> {
  await node.put({ 'docker.io/hosts.toml': change(await node.read('docker.io/hosts.toml')) });
}

test('only our host goes out of an edited file; comments and everything else stay', async (t) => {
  const node = await makeNode(t);
  await node.apply('upstreams: { docker.io: { direct: false } }');
  await edit(node, (text) =>
    text
      .replace('server =', '# the office\nskip_verify = false # really\nserver =')
      .replace('dial_timeout', '# for slow links\ndial_timeout')
      .concat(
        '\n# second\n[host."https://b.corp"] # b\n  ca = "b.crt" # its own\n  [host."https://b.corp".header]\n  x = ["""\n[host]\n"""]\n# end\n',
      ),
  );
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(
    await node.read('docker.io/hosts.toml'),
    `# the office
skip_verify = false # really

# for slow links
# second
[host."https://b.corp"] # b
  ca = "b.crt" # its own
  [host."https://b.corp".header]
  x = ["""
[host]
"""]
# end
`,
  );
  assert.deepEqual(await node.rollback(), []);
});

test("a server that named our mirror is the original's again", async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': 'server = "https://hub.corp"\nca = "hub.crt"\n[host.a]\n' });
  await node.apply('upstreams: { docker.io: { direct: false } }');
  await edit(node, (text) => `${text}\n[host.b]\nskip_verify = true\n`);
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(
    await node.read('docker.io/hosts.toml'),
    `server = "https://hub.corp"
ca = "hub.crt"

[host.a]
override_path = false

[host.b]
skip_verify = true
`,
  );
});

const uncommented = (text: string): string => text.replaceAll(/^#.*\n/gm, '');

test('a file whose comments somebody stripped is still ours: its original comes back', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  await edit(node, uncommented);
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

test('a file whose comments somebody stripped is gone when there was none before', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  await edit(node, uncommented);
  assert.deepEqual(await node.rollback(), ['removed docker.io']);
  assert.deepEqual(await node.snapshot(), {});
});

test('only our host goes out of a file without comments that somebody edited besides', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  await edit(node, (text) => `${uncommented(text)}[host."https://b.corp"]\n`);
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.doesNotMatch(await node.read('docker.io/hosts.toml'), /127\.0\.0\.1/);
  assert.match(await node.read('docker.io/hosts.toml'), /a\.corp.*b\.corp/s);
});

test('a file without comments that somebody broke gives way to the original', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  await edit(node, (text) => uncommented(text).replace('[host', '[[host'));
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

test('an original that a newer one took the place of is kept until that one is back', async (t) => {
  const node = await makeNode(t);
  const originals = async (): Promise<number> => {
    const [state = ''] = await readdir(node.stateDir);
    return (await readdir(join(node.stateDir, state, 'originals'))).length;
  };
  await node.put({ 'docker.io/hosts.toml': '[host.old]\n' });
  await node.apply(HUB);
  for (const name of ['a', 'b', 'c']) {
    await node.put({ 'docker.io/hosts.toml': `${USERS}[host.${name}]\n` });
    await node.apply(HUB);
    assert.equal(await originals(), 2);
  }
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(await originals(), 0);
});

test('an edited file in which only our own words are left is gone', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  await edit(node, (text) => text.replace('"3s"', '"9s"'));
  assert.deepEqual(await node.rollback(), ['removed docker.io']);
  assert.deepEqual(await node.snapshot(), {});
});

test('an edit of nothing but our host gives way to the original', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  await edit(node, (text) => text.replace('"3s"', '"9s"'));
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

test('our host goes even where it was rewritten in another form', async (t) => {
  const node = await makeNode(t);
  await node.apply(HUB);
  await edit(node, (text) =>
    text.replace(
      /\[host.*/s,
      '[host]\n"http://127.0.0.1:30500" = { capabilities = ["pull"] }\n"https://b.corp" = { skip_verify = true }\n',
    ),
  );
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.doesNotMatch(await node.read('docker.io/hosts.toml'), /127\.0\.0\.1/);
  assert.match(await node.read('docker.io/hosts.toml'), /b\.corp/);
});

test('without the state directory, the files alone are enough but for originals, which are asked for', async (t) => {
  const node = await makeNode(t);
  await node.put({
    '_default/hosts.toml': '[host."https://d.corp"]\n',
    'docker.io/hosts.toml': USERS,
    'ghcr.io/ca.crt': 'x',
    'mcr.microsoft.com/hosts.toml': 'server = "https://mcr.microsoft.com"\n',
  });
  await node.apply('upstreams: { docker.io: {}, quay.io: {}, ghcr.io: {}, mcr.microsoft.com: {} }');
  await rm(node.stateDir, { recursive: true });
  await assert.rejects(
    node.rollback(),
    /^RestoreFailure: docker\.io: .*\nmcr\.microsoft\.com: .*--state-dir/,
  );
  assert.deepEqual(Object.keys(await node.snapshot()), [
    '.',
    '_default',
    '_default/hosts.toml',
    'docker.io',
    'docker.io/hosts.toml',
    'ghcr.io',
    'ghcr.io/ca.crt',
    'mcr.microsoft.com',
    'mcr.microsoft.com/hosts.toml',
  ]);
  const [, ...mcr] = (await node.read('mcr.microsoft.com/hosts.toml')).split('\n');
  assert.equal(mcr.join('\n'), 'server = "https://mcr.microsoft.com"\n');
  assert.equal(
    bodyOf(await node.read('docker.io/hosts.toml')),
    'server = "https://hub.corp"\n\n[host."https://a.corp"]\ncapabilities = [ "pull" ]\n',
  );
});

test('without the state directory, a second run changes nothing, and an original is not invented', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply('upstreams: { docker.io: {}, quay.io: {} }');
  const before = await node.snapshot();
  await rm(node.stateDir, { recursive: true });
  assert.deepEqual(await node.applied('upstreams: { docker.io: {}, quay.io: {} }'), []);
  assert.deepEqual(await node.snapshot(), before);
  await assert.rejects(node.rollback(), /remove the first line of what is there/);
  const rest = bodyOf(await node.read('docker.io/hosts.toml'));
  assert.doesNotMatch(rest, /127|weir/);
  await node.put({ 'docker.io/hosts.toml': rest });
  assert.deepEqual(await node.rollback(), []);
  assert.deepEqual(Object.keys(await node.snapshot()), ['.', 'docker.io', 'docker.io/hosts.toml']);
});

for (const [what, edited] of [
  ['as we wrote it', (text: string) => text],
  ['edited in our own words', (text: string) => text.replace('"3s"', '"9s"')],
] as const)
  test(`given another state directory, a file ${what} is freed of our host, and its original can come back`, async (t) => {
    const node = await makeNode(t);
    await node.put({ 'docker.io/hosts.toml': USERS });
    await node.apply(HUB);
    await edit(node, edited);
    const other = { ...node, stateDir: join(node.stateDir, '../other') };
    const message = /is not in the state directory .*other; .* Give --state-dir of the agent that wrote it/;
    await assert.rejects(rollback(other), message);
    const freed = await node.snapshot();
    assert.doesNotMatch(bodyOf(await node.read('docker.io/hosts.toml')), /127/);
    await assert.rejects(rollback(other), message);
    assert.deepEqual(await node.snapshot(), freed);
    assert.deepEqual(await node.rollback(), ['restored docker.io']);
    assert.equal(await node.read('docker.io/hosts.toml'), USERS);
  });

test('an original that is damaged is kept, so that somebody can repair it', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  const [state = ''] = await readdir(node.stateDir);
  const folder = join(node.stateDir, state, 'originals');
  const [name = ''] = await readdir(folder);
  const saved = await readFile(join(folder, name), 'utf8');
  await writeFile(join(folder, name), saved.slice(0, -3));
  await assert.rejects(node.rollback(), new RegExp(`${name}, is not what was saved.*from a backup`));
  assert.doesNotMatch(bodyOf(await node.read('docker.io/hosts.toml')), /127/);
  await rm(join(node.certsDir, 'docker.io/hosts.toml'));
  await assert.rejects(node.rollback(), /is not what was saved.*write it yourself/);
  await writeFile(join(folder, name), saved);
  assert.deepEqual(await node.rollback(), ['restored docker.io']);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

for (const [what, text] of [
  ['cut short', '{"version": 1, "certsDir":'],
  ['of another shape', '{"version": 99}'],
  ['leading out of the certificates directory', undefined],
] as const)
  test(`a state file ${what} is set aside, and originals still come back`, async (t) => {
    const node = await makeNode(t);
    await node.put({ 'docker.io/hosts.toml': USERS });
    await node.apply(HUB);
    const [name = ''] = await readdir(node.stateDir);
    const folder = join(node.stateDir, name);
    const hostile = {
      version: 1,
      certsDir: node.certsDir,
      directories: ['/etc'],
      files: { '../outside': '' },
    };
    await writeFile(join(folder, 'state.json'), text ?? JSON.stringify(hostile));
    assert.deepEqual(await node.applied(HUB), []);
    assert.match((await readdir(folder)).join(' '), /state\.json\.unreadable-\d+/);
    assert.deepEqual(await node.rollback(), ['restored docker.io']);
    assert.equal(await node.read('docker.io/hosts.toml'), USERS);
  });
