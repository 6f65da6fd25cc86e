// weir for who comes from the designs that it replaces: what was configured, written and asked there goes on working.

import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import * as z from 'zod';
import { buildImage } from '../image/image.ts';
import { contentOf } from '../support/image.ts';
import { type Cluster, OUTSIDE } from './cluster.ts';
import { type PodImage, readLayout } from './image.ts';
import { eventually } from './patience.ts';
import { NAMESPACE, Release } from './release.ts';
import { startCluster } from './start-cluster.ts';

const NODE = 'node1';
const NODE_PORT = 30_500;
const CLASH_TAG = 'stand-in';

/** A pull by plain HTTP: the manifest, and every blob of it compared with its digest. */
const PULL = `
const { createHash } = require('node:crypto');
const [base, repository, tag] = process.argv.slice(1);
const get = async (path) => {
  const answer = await fetch(base + '/v2/' + repository + path, { headers: { accept: '${[
    'application/vnd.oci.image.manifest.v1+json',
    'application/vnd.oci.image.index.v1+json',
    'application/vnd.docker.distribution.manifest.v2+json',
    'application/vnd.docker.distribution.manifest.list.v2+json',
  ].join(', ')}' } });
  if (!answer.ok) throw new Error(path + ' answers ' + answer.status + ': ' + await answer.text());
  return Buffer.from(await answer.arrayBuffer());
};
(async () => {
  let manifest = JSON.parse(await get('/manifests/' + tag));
  if (manifest.manifests) manifest = JSON.parse(await get('/manifests/' + manifest.manifests[0].digest));
  for (const { digest } of [manifest.config, ...manifest.layers]) {
    const is = 'sha256:' + createHash('sha256').update(await get('/blobs/' + digest)).digest('hex');
    if (is !== digest) throw new Error(digest + ' is ' + is);
  }
  console.log('pulled');
})();`;

/** What stands in for mihomo: it takes its flags, reads its port, and passes CONNECT on, with a line for each. */
const CLASH = `
const { readFileSync, writeFileSync } = require('node:fs');
const { connect } = require('node:net');
const [, directory, , file] = process.argv.slice(1);
const port = Number(/^mixed-port: (\\d+)$/m.exec(readFileSync(file, 'utf8'))[1]);
writeFileSync(directory + '/state', '');
const server = require('node:http').createServer((request, response) => response.writeHead(405).end());
server.on('connect', ({ url }, client) => {
  console.log('CONNECT ' + url);
  const [host, port] = url.split(':');
  const upstream = connect(Number(port), host, () => {
    client.write('HTTP/1.1 200 OK\\r\\n\\r\\n');
    client.pipe(upstream).pipe(client);
  });
  upstream.on('error', () => client.destroy());
  client.on('error', () => upstream.destroy());
});
server.listen(port, '127.0.0.1');`;

suite('weir, in the place of older designs', { concurrency: false }, () => {
  let cluster: Cluster;
  let release: Release;

  before(async () => {
    cluster = await startCluster({ s3: true, nodes: 1 });
    release = await Release.prepare(cluster);
    await cluster.pushImage(`docker.io/metacubex/mihomo:${CLASH_TAG}`, await clashImage());
  });
  after(() => cluster?.stop());

  test("serves by path prefixes at the node port, from S3 by the old chart's values, through clash", async () => {
    await release.install(
      '--set',
      `nodePort.enabled=true,nodePort.port=${NODE_PORT}`,
      '--set',
      `clash.enabled=true,clash.subscriptionUrl=https://example.com/s,clash.image.tag=${CLASH_TAG}`,
      '--set',
      'config.egress.clash.proxy=http://127.0.0.1:7890,config.defaults.egress=clash',
    );
    const address = cluster.nodes.find(({ name }) => name === NODE)?.address;
    const mirror = `http://${address}:${NODE_PORT}`;
    // kube-proxy hears of Pods that are ready a moment after Helm does.
    const look = `fetch('${mirror}/v2/').then(({ status }) => console.log(status))`;
    await eventually(
      'the node port leads to the registry',
      async () => (await cluster.exec(OUTSIDE, 'node', '--eval', look)) === '200\n',
    );
    for (const [path, tag] of [
      ['dockerhub/library/web', '1'],
      ['ghcr/acme/web', '1'],
      ['quay/acme/web', '1'],
      ['quayio/acme/web', '1'],
      ['k8s/pause', '3.10'],
      // As Docker asks one of its registry-mirrors.
      ['library/web', '1'],
    ] as const)
      assert.equal(await cluster.exec(OUTSIDE, 'node', '--eval', PULL, mirror, path, tag), 'pulled\n', path);

    const selector = '--selector=app.kubernetes.io/component=registry';
    const asked = await release.kubectl('logs', selector, '--container=clash', '--tail=-1');
    for (const host of ['registry-1.docker.io', 'ghcr.io', 'quay.io', 'registry.k8s.io'])
      assert.match(asked, new RegExp(`^CONNECT ${host.replaceAll('.', '\\.')}:443$`, 'm'));
    const bucket = join(cluster.directory, 'control-plane', 's3', cluster.s3?.bucket ?? '', 'weir');
    assert.ok((await readdir(bucket)).includes('blobs'));
  });

  test('takes the ConfigMap of ketches/registry-proxy, and edits of it', async () => {
    const configure = (text: string): Promise<string> =>
      cluster.apply([
        {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name: 'registry-proxy-config', namespace: NAMESPACE },
          data: { 'config.yaml': text },
        },
      ]);
    // At Docker Hub nothing is called acme/web: it is its mirror that has it.
    await configure(proxies());
    await release.install('--set', 'config.existingConfigMap=registry-proxy-config');
    await eventually('the node has the one upstream', async () => {
      return (
        (await cluster.exec(NODE, 'ls', '/etc/containerd/certs.d')) === 'canary.weir.internal\ndocker.io\n'
      );
    });
    await cluster.pull(NODE, 'docker.io/acme/web:1');

    await configure(proxies('  ghcr.io: registry.k8s.io\n'));
    await eventually('the edit is on the node', async () => {
      return (
        (await cluster.exec(NODE, 'ls', '/etc/containerd/certs.d')) ===
        'canary.weir.internal\ndocker.io\nghcr.io\n'
      );
    });
    await release.uninstall();
    assert.equal(await cluster.exec(NODE, 'ls', '/etc/containerd/certs.d'), '');
    assert.match(await release.kubectl('get', 'configmap'), /registry-proxy-config/);
  });
});

/** As its documents write it, up to the star that is no YAML. */
function proxies(more = ''): string {
  return `enabled: true
proxies:
  docker.io: quay.io
${more}excludeNamespaces:
- kube-system
includeNamespaces:
- *
`;
}

/** The image of weir, with another program. */
async function clashImage(): Promise<PodImage> {
  const { manifest, blobs } = await readLayout(await buildImage());
  const parts = z
    .looseObject({ config: z.looseObject({ digest: z.string() }) })
    .parse(JSON.parse(manifest.bytes.toString()));
  const old = blobs.find(({ digest }) => digest === parts.config.digest);
  const settings = z
    .looseObject({ config: z.looseObject({}) })
    .parse(JSON.parse(old?.bytes.toString() ?? ''));
  const entrypoint = ['/nodejs/bin/node', '--eval', CLASH, '--'];
  const config = contentOf(
    old?.mediaType ?? '',
    JSON.stringify({ ...settings, config: { ...settings.config, Entrypoint: entrypoint } }),
  );
  const { mediaType, digest, bytes } = config;
  return {
    manifest: contentOf(
      manifest.mediaType,
      JSON.stringify({ ...parts, config: { mediaType, digest, size: bytes.length } }),
    ),
    manifests: [],
    blobs: [config, ...blobs.filter((blob) => blob !== old)],
  };
}
