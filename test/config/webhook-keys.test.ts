import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseConfig } from '../../config/parse.ts';

const UPSTREAM = 'upstreams: { ghcr.io: {} }\n';

suite('what the configuration says to the webhook', () => {
  test('has a default for every key but the name that images get', () => {
    const { config } = parseConfig(UPSTREAM);
    assert.equal(config.fallback, 'auto');
    assert.equal('rewriteTo' in config, false);
    assert.deepEqual(config.skipOwners, [
      'Cluster.postgresql.cnpg.io',
      'AerospikeCluster.asdb.aerospike.com',
    ]);
  });

  test('is read as it is written', () => {
    const text = `${UPSTREAM}rewriteTo: Mirror.corp:8443\nskipOwners: ["*.example.com", Thing]\n`;
    const { config, warnings } = parseConfig(text);
    assert.equal(config.rewriteTo, 'mirror.corp:8443');
    assert.deepEqual(config.skipOwners, ['*.example.com', 'Thing']);
    assert.deepEqual(warnings, []);
    assert.deepEqual(parseConfig(`${UPSTREAM}skipOwners: []\n`).config.skipOwners, []);
  });

  test('is refused where nodes would read the host of a mirror as a name on Docker Hub', () => {
    for (const mirror of ['"https://mirror"', '"http://mirror:80"'])
      assert.throws(
        () => parseConfig(mirrored(`${mirror}\n    via: node`)),
        /:3:5: error: upstreams\.gcr\.io\.mirror: .* mirror would not be a host but a name on Docker Hub/,
      );
    for (const good of [
      '"https://mirror"',
      '"https://mirror:5000"\n    via: node',
      'localhost\n    via: node',
    ])
      assert.doesNotThrow(() => parseConfig(mirrored(good)), good);
  });

  test('is doubted where every Pod gets a name by which not every node can pull', () => {
    for (const rewriteTo of ['', 'rewriteTo: 127.0.0.1:5700\n'])
      assert.deepEqual(warned(`${rewriteTo}fallback: always\n`), ['fallback'], rewriteTo);
    assert.deepEqual(warned('rewriteTo: mirror.corp\nfallback: always\n'), []);
    assert.deepEqual(warned('fallback: auto\n'), []);
  });

  test('is doubted where the loopback is named at another address than the door has as a rule', () => {
    for (const address of ['127.0.0.1:9999', '[::1]:5700'])
      assert.deepEqual(warned(`rewriteTo: "${address}"\n`), ['rewriteTo'], address);
  });

  const refused: Readonly<Record<string, [string, RegExp]>> = {
    'a name with a scheme': ['rewriteTo: https://mirror.corp', /:2:1: error: rewriteTo: .* is no registry/],
    'the name of an upstream': ['rewriteTo: ghcr.io', /:2:1: error: rewriteTo: ghcr\.io is an upstream/],
    'a name on Docker Hub': ['rewriteTo: mirror', /:2:1: error: rewriteTo: .* mirror would be Docker Hub/],
    'Docker Hub': ['rewriteTo: docker.io', /:2:1: error: rewriteTo: .* would be Docker Hub/],
    "Docker Hub's own host": ['rewriteTo: registry-1.docker.io', /:2:1: error: .* would be Docker Hub/],
    'an owner without a kind': ['skipOwners: [cnpg.io]', /skipOwners\.0: "cnpg\.io" is no kind of owner/],
    'an owner with its version': ['skipOwners: [apps/v1]', /skipOwners\.0: "apps\/v1" is no kind/],
  };
  for (const [what, [text, message]] of Object.entries(refused))
    test(`is refused: ${what}`, () => {
      assert.throws(() => parseConfig(UPSTREAM + text), message);
    });
});

function mirrored(lines: string): string {
  return `upstreams:\n  gcr.io:\n    mirror: ${lines}\n`;
}

/** The keys that are warned about. */
function warned(lines: string): string[] {
  return parseConfig(`${UPSTREAM}${lines}`).warnings.map(({ key }) => key);
}
