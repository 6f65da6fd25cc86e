import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { applyOnce } from '../../agent/agent.ts';
import { bodyOf, configOf, MIRROR, makeNode } from './node-files.ts';

const OTHERS = 'server = "https://mirror.example"\n\n[host."https://mirror.example"]\nca = "theirs.crt"\n';

suite('a directory that the runtime looks into later', () => {
  test('is hidden by a new directory, so what it says of the host is carried', async (t) => {
    const { certs, later } = await apply(t, { 'quay.io/hosts.toml': OTHERS, '_default/ca.crt': '' });
    const text = bodyOf(await certs('quay.io/hosts.toml'));
    assert.match(text, /\[host\."http:\/\/127\.0\.0\.1:30500"\][\s\S]*\[host\."https:\/\/mirror\.example"\]/);
    assert.ok(text.includes(`ca = "${later}/quay.io/theirs.crt"`), text);
    assert.ok(!text.includes('_default'), text);
  });

  test('has a default for hosts that it has no directory for', async (t) => {
    const { certs, later } = await apply(t, { 'ghcr.io/hosts.toml': OTHERS, '_default/ca.crt': '' });
    const text = bodyOf(await certs('quay.io/hosts.toml'));
    assert.ok(text.includes(`"${later}/_default/ca.crt"`), text);
    assert.ok(!text.includes('mirror.example'), text);
  });

  test('is not looked into where the first has a default', async (t) => {
    const { certs } = await apply(t, { 'quay.io/hosts.toml': OTHERS }, { '_default/own.crt': '' });
    const text = bodyOf(await certs('quay.io/hosts.toml'));
    assert.ok(text.includes('../_default/own.crt'), text);
    assert.ok(!text.includes('mirror.example'), text);
  });
});

async function apply(
  t: TestContext,
  files: Readonly<Record<string, string>>,
  own: Readonly<Record<string, string>> = {},
) {
  const [node, elsewhere] = [await makeNode(t), await makeNode(t, 'docker/certs.d')];
  const later = elsewhere.certsDir;
  await elsewhere.put(files);
  await node.put(own);
  const before = await elsewhere.snapshot();
  const config = configOf('upstreams: { quay.io: {} }');
  await applyOnce({ ...node, laterDirs: [later], config, mirror: MIRROR });
  assert.deepEqual(await elsewhere.snapshot(), before);
  assert.deepEqual(await applyOnce({ ...node, laterDirs: [later], config, mirror: MIRROR }), []);
  return { certs: (path: string) => node.read(path), later };
}
