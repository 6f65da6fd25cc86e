import assert from 'node:assert/strict';
import { createServer } from 'node:https';
import { suite, test } from 'node:test';
import { applyOnce } from '../../agent/agent.ts';
import { mirrorProblem } from '../../agent/proof-probe.ts';
import { canaryOf } from '../../oci/canary.ts';
import { answerCanary, parseCanaryRequest } from '../../registry/canary.ts';
import { makeIdentity } from '../support/certificates.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { bodyOf, configOf, makeNode, NOTE, type NodeFiles } from './node-files.ts';
import { listen } from './scripted-cri.ts';

const MIRROR = 'https://mirror.corp';
const FILE = 'weir-mirror-ca.pem';
const USERS =
  'server = "https://hub.corp"\nca = "hub.crt"\n\n[host."https://a.corp"]\n  skip_verify = true\n';
const OURS = `[host."https://mirror.corp"]
capabilities = [ "pull", "resolve" ]
ca = "../weir-mirror-ca.pem"
dial_timeout = "3s"
`;
const BOTH = `upstreams:
  docker.io: {}
  quay.io: { direct: false }
  gcr.io: { mirror: https://gcr.example, via: node }
`;

suite('the authority of the mirror', () => {
  test('is beside the files that name it, follows a new one, and goes with the last of them', async (t) => {
    const node = await makeNode(t, 'not/there/yet');
    await node.put({ '../../elsewhere/': '' });
    const apply = applying(node);
    assert.deepEqual(await apply(BOTH, 'PEM\n'), ['written docker.io', 'written quay.io', 'written gcr.io']);
    assert.equal(await node.read(FILE), 'PEM\n');
    assert.equal(
      bodyOf(await node.read('docker.io/hosts.toml')),
      `${NOTE}\nserver = "https://registry-1.docker.io"\n\n${OURS}`,
    );
    assert.equal(
      bodyOf(await node.read('quay.io/hosts.toml')),
      `${NOTE}\nserver = "https://mirror.corp"\nca = "../weir-mirror-ca.pem"\n\n${OURS}`,
    );
    assert.doesNotMatch(await node.read('gcr.io/hosts.toml'), /weir-mirror-ca/, 'of another mirror');

    const before = await node.snapshot();
    assert.deepEqual(await apply(BOTH, 'PEM\n'), []);
    assert.deepEqual(await node.snapshot(), before);
    assert.deepEqual(await apply(BOTH, 'NEW\n'), []);
    assert.equal(await node.read(FILE), 'NEW\n');

    assert.deepEqual(await apply(BOTH), ['written docker.io', 'written quay.io']);
    await assert.rejects(node.read(FILE), { code: 'ENOENT' });
    await apply(BOTH, 'PEM\n');
    await node.rollback();
    assert.deepEqual(await node.snapshot(), {}, 'nor the directory that was made for it');
  });

  test('stays as long as a file that somebody edited names it, and goes out of that with our host', async (t) => {
    const node = await makeNode(t);
    await node.put({ 'docker.io/hosts.toml': USERS });
    const apply = applying(node);
    await apply('upstreams: { docker.io: { direct: false } }', 'PEM\n');
    const text = await node.read('docker.io/hosts.toml');
    await node.put({ 'docker.io/hosts.toml': `${text}\n[host."https://b.corp"]\nskip_verify = true\n` });
    assert.deepEqual(await apply('upstreams: { docker.io: { direct: false } }'), ['left docker.io']);
    assert.equal(await node.read(FILE), 'PEM\n');
    assert.deepEqual(await node.rollback(), ['restored docker.io']);
    const rest = await node.read('docker.io/hosts.toml');
    assert.match(rest, /server = "https:\/\/hub\.corp"\nca = "hub\.crt"/);
    assert.doesNotMatch(rest, /mirror/);
    await assert.rejects(node.read(FILE), { code: 'ENOENT' });
  });

  test('is trusted by the probe as well', async (t) => {
    const scratch = await makeScratch();
    t.after(() => removeScratch(scratch));
    const { ca, key, cert } = await makeIdentity(scratch, ['IP:127.0.0.1']);
    const server = createServer({ key, cert }, (request, response) => {
      const asked = parseCanaryRequest(request.url ?? '');
      assert.ok(asked !== undefined);
      void answerCanary(request, response, asked);
    });
    t.after(() => server.closeAllConnections());
    const mirror = (await listen(t, server)).replace('http:', 'https:');
    const canary = canaryOf({ architecture: 'amd64', nonce: '0'.repeat(32) });
    assert.equal(await mirrorProblem(mirror, canary, { ca }), undefined);
    assert.match((await mirrorProblem(mirror, canary, {})) ?? '', /certificate/);
  });
});

function applying(node: NodeFiles) {
  return async (yaml: string, mirrorCa?: string): Promise<readonly string[]> => {
    const ca = mirrorCa === undefined ? {} : { mirrorCa };
    const changes = await applyOnce({ ...node, mirror: MIRROR, config: configOf(yaml), ...ca });
    return changes.map(({ kind, host }) => `${kind} ${host}`);
  };
}
