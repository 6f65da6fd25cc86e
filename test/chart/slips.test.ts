// What operators get wrong in values, and the sentence that they get for it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { render } from '../../charts/helm.ts';
import { flagsOf } from './cases.ts';

const s3 = { bucket: 'images', region: 'x' };
const upstream = (settings: unknown): object => ({ config: { upstreams: { 'docker.io': settings } } });

/** By what was meant: the values, and what the refusal says. */
const slips: ReadonlyMap<string, readonly [values: object, sentence: RegExp]> = new Map<
  string,
  readonly [object, RegExp]
>([
  // A key that is not known: where, and which.
  ['replicas at the top', [{ replicaCount: 3 }, /at '': additional properties 'replicaCount' not allowed/]],
  [
    "another chart's endpoint",
    [{ s3: { endpoint: 'x' } }, /at '\/s3': additional properties 'endpoint' not/],
  ],
  ['a key in other letters', [{ s3: { Bucket: 'x' } }, /at '\/s3': additional properties 'Bucket' not/]],
  ["the key's other name", [{ s3Credentials: { accessKey: 'x' } }, /'accessKey' not allowed/]],
  ['one upstream', [{ config: { upstream: {} } }, /at '\/config': additional properties 'upstream' not/]],
  ['mirrors', [upstream({ mirrors: ['x'] }), /upstreams\/docker.io': additional properties 'mirrors' not/]],
  // Something of another type: where, and what is wanted.
  ['an image in one', [{ image: 'weir:1' }, /at '\/image': got string, want object/]],
  ['a switch that has parts', [{ persistence: true }, /at '\/persistence': got boolean, want object/]],
  ['a port alone', [{ nodePort: 30_500 }, /at '\/nodePort': got number, want object/]],
  ['digits for a key', [{ s3Credentials: { accessKeyId: 1 } }, /accessKeyId': got number, want string/]],
  ['one pull secret', [{ imagePullSecrets: 'pull' }, /at '\/imagePullSecrets': got string, want array/]],
  ['replicas in words', [{ registry: { replicas: 'two' } }, /replicas': got string, want null or integer/]],
  ['a mirror alone', [upstream('https://m.example'), /docker.io': got string, want null or object/]],
  ['an egress alone', [{ config: { egress: { a: 'http://a:1' } } }, /egress\/a': got string, want object/]],
  ['yes', [{ config: { enabled: 'yes' } }, /at '\/config\/enabled': got string, want boolean/]],
  ['chatty', [{ logLevel: 'verbose' }, /'\/logLevel': value must be one of 'trace', 'debug', 'info'/]],
  ['access for some', [upstream({ access: 'all' }), /docker.io\/access': value must be 'everyone'/]],
  // A word that is no such thing: which, and how it is written.
  [
    'a bucket as a URL',
    [{ s3: { ...s3, bucket: 's3://images' } }, /s3.bucket is "s3:\/\/images": write the buck/],
  ],
  [
    'the bucket in the endpoint',
    [{ s3: { ...s3, regionEndpoint: 'http://m/images' } }, /address of a server/],
  ],
  [
    'a folder with blanks',
    [{ s3: { ...s3, prefix: 'a b' } }, /s3.prefix is "a b": write folders of letters/],
  ],
  [
    'a size in bytes',
    [{ persistence: { size: '10GB' } }, /size is "10GB": write a size such as 500Mi or 100Gi/],
  ],
  ['no size', [{ persistence: { size: '' } }, /persistence.size is "": write a size such as/]],
  [
    'a Secret elsewhere',
    [{ ca: { existingSecret: 'ns/ca' } }, /existingSecret is "ns\/ca": write the name alone/],
  ],
  [
    'an image with its tag',
    [{ image: { repository: 'weir:1' } }, /repository is "weir:1": .* without the tag/],
  ],
  [
    'a registry as a URL',
    [{ image: { registry: 'https://h' } }, /image.registry is "https:\/\/h": write HOST/],
  ],
  [
    'a registry for all',
    [{ global: { imageRegistry: 'https://h' } }, /global.imageRegistry is "https:\/\/h": wr/],
  ],
  [
    'a tag with a digest',
    [{ image: { tag: '1@sha256:0' } }, /image.tag is "1@sha256:0": write the tag alone/],
  ],
  ['half a digest', [{ image: { digest: 'sha256:0' } }, /image.digest is "sha256:0": write sha256: and 64/]],
  [
    'no node at all',
    [{ agent: { maxUnavailable: 0 } }, /maxUnavailable is "0": write a number of nodes from 1/],
  ],
  [
    'too many',
    [{ agent: { maxUnavailable: '110%' } }, /maxUnavailable is "110%": .* or a percentage such as/],
  ],
  [
    'half a path',
    [{ agent: { certsDir: 'etc/c' } }, /agent.certsDir is "etc\/c": write a whole path of the node/],
  ],
  [
    'seconds',
    [upstream({ tags: { ttl: 60 } }), /ttl is "60": write a number with its unit, as in 60s or 10m/],
  ],
  [
    'often',
    [{ metrics: { podMonitor: { interval: '30' } } }, /interval is "30": write a number with its unit/],
  ],
  [
    'a host as a URL',
    [
      { webhook: { rewriteTo: 'https://m.corp' } },
      /rewriteTo is "https:\/\/m.corp": write HOST or HOST:PORT/,
    ],
  ],
  [
    'labels as they are in values',
    [{ webhook: { fallbackNodeSelector: 'pool: a' } }, /is "pool: a": write labels of nodes as kubectl/],
  ],
  [
    'an address in other letters',
    [{ mirrorAddress: 'nodeport' }, /is "nodeport": write door, service, nodePort/],
  ],
]);

for (const [name, [values, sentence]] of slips)
  test(`a slip in the values is told: ${name}`, async () => {
    await assert.rejects(render('weir', ...flagsOf(values)), sentence);
  });

test('sizes and names as operators write them are taken', async () => {
  await render(
    'weir',
    ...flagsOf({
      persistence: { enabled: true, size: '1.5Ti', emptyDirSizeLimit: '', existingClaim: 'a.b' },
      registry: { spool: { sizeLimit: 107_374_182_400 } },
      image: { registry: 'harbor.corp:8443/a/', repository: 'b/weir', tag: 'v1.2_3' },
      agent: { maxUnavailable: 12 },
    }),
  );
  await render('weir', ...flagsOf({ image: { repository: 'harbor.corp:8443/weir' } }));
});
