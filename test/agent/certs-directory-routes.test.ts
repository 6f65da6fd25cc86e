// What stood there before × what the configuration says: the exact file, nothing more at a second run, and back.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { bodyOf, makeNode, NOTE } from './node-files.ts';

const REGISTRY = `[host."http://127.0.0.1:30500"]
capabilities = [ "pull", "resolve" ]
dial_timeout = "3s"
`;
const NODE = `[host."https://hub.example/v2/docker"]
capabilities = [ "pull", "resolve" ]
override_path = true
dial_timeout = "10s"
`;
const USERS = `# by hand
server = "https://hub.corp"
ca = "hub.crt"

[host."https://a.corp"]
  capabilities = ["pull"]
  ca = "a.crt"
`;
const THEIRS = `
[host."https://a.corp"]
capabilities = [ "pull" ]
ca = "a.crt"
`;
const CARRIED = THEIRS.replace('a.crt', '../_default/a.crt');
const CERTIFICATES = { 'docker.io/hub.crt': '', 'docker.io/hub.cert': '', 'docker.io/hub.key': '' };
const BY_NODE = '{ mirror: https://hub.example/docker, via: node }';

const before: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'no directory': {},
  'certificates alone': CERTIFICATES,
  'a file': { 'docker.io/hosts.toml': USERS, ...CERTIFICATES },
  'a link to a file': { 'docker.io/hosts.toml': '-> ../hub.toml', 'hub.toml': USERS },
  'a default': { '_default/hosts.toml': USERS },
};

const HUB = 'server = "https://registry-1.docker.io"\n';
const LOCKED = 'server = "http://127.0.0.1:30500"\n';
const CORP = 'server = "https://hub.corp"\nca = "hub.crt"\n';
const golden: Readonly<Record<string, Readonly<Record<keyof typeof before, string>>>> = {
  '{ direct: false }': {
    'no directory': `${LOCKED}\n${REGISTRY}`,
    'certificates alone': `${LOCKED}\n${REGISTRY}`,
    'a file': `${LOCKED}\n${REGISTRY}${THEIRS}`,
    'a link to a file': `${LOCKED}\n${REGISTRY}${THEIRS}`,
    'a default': `${LOCKED}\n${REGISTRY}${CARRIED}`,
  },
  [BY_NODE]: {
    'no directory': `${HUB}\n${NODE}`,
    'certificates alone': `${HUB}ca = [ "hub.crt" ]\nclient = [ [ "hub.cert", "hub.key" ] ]\n\n${NODE}`,
    'a file': `${CORP}\n${NODE}${THEIRS}`,
    'a link to a file': `${CORP}\n${NODE}${THEIRS}`,
    'a default': `${CORP.replace('hub.crt', '../_default/hub.crt')}\n${NODE}${CARRIED}`,
  },
  '{ mirror: https://hub.example/docker, via: node, direct: false }': {
    'no directory': `server = "https://hub.example/v2/docker"\noverride_path = true\n\n${NODE}`,
    'certificates alone': `server = "https://hub.example/v2/docker"\noverride_path = true\n\n${NODE}`,
    'a file': `server = "https://hub.example/v2/docker"\noverride_path = true\n\n${NODE}${THEIRS}`,
    'a link to a file': `server = "https://hub.example/v2/docker"\noverride_path = true\n\n${NODE}${THEIRS}`,
    'a default': `server = "https://hub.example/v2/docker"\noverride_path = true\n\n${NODE}${CARRIED}`,
  },
};

for (const [state, files] of Object.entries(before))
  suite(`where there was ${state}`, () => {
    for (const [upstream, bodies] of Object.entries(golden))
      test(`${upstream} makes this file of it, once, and rollback undoes it`, async (t) => {
        const node = await makeNode(t);
        await node.put({ 'quay.io/': '', ...files });
        const found = await node.snapshot();
        assert.deepEqual(await node.applied(`upstreams: { docker.io: ${upstream} }`), ['written docker.io']);
        assert.equal(bodyOf(await node.read('docker.io/hosts.toml')), `${NOTE}\n${bodies[state]}`);
        const written = await node.snapshot();
        assert.deepEqual(await node.applied(`upstreams: { docker.io: ${upstream} }`), []);
        assert.deepEqual(await node.snapshot(), written);
        await node.rollback();
        assert.deepEqual(await node.snapshot(), found);
      });

    test('one configuration after another is as if it had been the first, and switched off nothing is left', async (t) => {
      const node = await makeNode(t);
      await node.put({ 'quay.io/': '', ...files });
      const found = await node.snapshot();
      const off = 'enabled: false\nupstreams: { docker.io: { direct: false } }';
      assert.deepEqual(await node.applied(off), []);
      assert.deepEqual(await node.snapshot(), found);
      for (const [upstream, bodies] of [...Object.entries(golden), ...Object.entries(golden).toReversed()]) {
        await node.apply(`upstreams: { docker.io: ${upstream} }`);
        assert.equal(bodyOf(await node.read('docker.io/hosts.toml')), `${NOTE}\n${bodies[state]}`);
      }
      const [undone] = await node.applied(off);
      assert.match(undone ?? '', /^(?:restored|removed) docker\.io$/);
      assert.deepEqual(await node.snapshot(), found);
    });
  });

for (const upstream of ['{ direct: false }', BY_NODE])
  test(`what somebody edited, or nobody can read, is left alone with ${upstream} as well`, async (t) => {
    const node = await makeNode(t);
    await node.put({ 'quay.io/hosts.toml': 'server = ' });
    await node.apply('upstreams: { docker.io: {} }');
    const edited = `${await node.read('docker.io/hosts.toml')}# mine\n`;
    await node.put({ 'docker.io/hosts.toml': edited });
    const yaml = `upstreams: { docker.io: ${upstream}, quay.io: ${upstream} }`;
    assert.deepEqual(await node.applied(yaml), ['left docker.io', 'left quay.io']);
    assert.equal(await node.read('docker.io/hosts.toml'), edited);
    assert.equal(await node.read('quay.io/hosts.toml'), 'server = ');
  });
