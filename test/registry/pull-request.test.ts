import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseConfig } from '../../config/parse.ts';
import { RegistryError } from '../../oci/errors.ts';
import { parsePull } from '../../registry/pull-request.ts';

const { config } = parseConfig(`
upstreams:
  docker.io: {}
  quay.io: {}
  registry.k8s.io: {}
  harbor.corp:8443: { prefix: corp }
`);
const DIGEST = `sha256:${'a'.repeat(64)}`;

/** `kind host repository reference`, or `status code`. */
function read(target: string, prefixes = true): string {
  try {
    const pull = parsePull(target, config, prefixes);
    const reference = pull.kind === 'manifest' ? Object.values(pull.reference).join() : pull.digest;
    const filter = pull.kind === 'referrers' && pull.artifactType !== undefined ? [pull.artifactType] : [];
    return [pull.kind, pull.upstream.host, pull.repository, reference, ...filter].join(' ');
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    return `${error.status} ${error.code}`;
  }
}

suite('which upstream a path means', () => {
  const table: Readonly<Record<string, string>> = {
    '/v2/library/nginx/manifests/latest': 'manifest docker.io library/nginx latest',
    '/v2/nginx/manifests/latest': 'manifest docker.io library/nginx latest',
    '/v2/bitnami/redis/manifests/7': 'manifest docker.io bitnami/redis 7',
    '/v2/dockerhub/nginx/manifests/latest': 'manifest docker.io library/nginx latest',
    '/v2/quay/org/app/manifests/v1': 'manifest quay.io org/app v1',
    '/v2/quayio/org/app/manifests/v1': 'manifest quay.io org/app v1',
    '/v2/quay.io/app/manifests/v1': 'manifest quay.io app v1',
    '/v2/k8s/pause/manifests/3.10': 'manifest registry.k8s.io pause 3.10',
    '/v2/corp/team/app/manifests/v1': 'manifest harbor.corp:8443 team/app v1',
    '/v2/harbor.corp-8443/team/app/manifests/v1': 'manifest harbor.corp:8443 team/app v1',
    // containerd names the upstream, and the path is literal then.
    '/v2/quay/app/manifests/v1?ns=docker.io': 'manifest docker.io quay/app v1',
    '/v2/org/app/manifests/v1?ns=quay.io': 'manifest quay.io org/app v1',
    '/v2/nginx/manifests/1?ns=index.docker.io': 'manifest docker.io library/nginx 1',
    '/v2/team/app/manifests/v1?ns=harbor.corp%3A8443': 'manifest harbor.corp:8443 team/app v1',
    [`/v2/library/nginx/blobs/${DIGEST}`]: `blob docker.io library/nginx ${DIGEST}`,
    [`/v2/library/nginx/blobs/${encodeURIComponent(DIGEST)}`]: `blob docker.io library/nginx ${DIGEST}`,
    [`/v2/library/nginx/manifests/${DIGEST}`]: `manifest docker.io library/nginx ${DIGEST}`,
    [`/v2/nginx/referrers/${DIGEST}`]: `referrers docker.io library/nginx ${DIGEST}`,
    [`/v2/quay/org/app/referrers/${DIGEST}?artifactType=`]: `referrers quay.io org/app ${DIGEST}`,
    [`/v2/org/app/referrers/${DIGEST}?artifactType=a%2Fb%2Bjson&ns=quay.io`]: `referrers quay.io org/app ${DIGEST} a/b+json`,
    [`/v2/library/nginx/manifests/sha256-${'a'.repeat(64)}`]: `manifest docker.io library/nginx sha256-${'a'.repeat(64)}`,
    // A name whose components are called like the path's own words.
    '/v2/a/manifests/b/manifests/c': 'manifest docker.io a/manifests/b c',
  };
  for (const [target, expected] of Object.entries(table))
    test(target, () => assert.equal(read(target), expected));

  test('a listener for Docker takes every path literally', () => {
    assert.equal(read('/v2/quay/app/manifests/v1', false), 'manifest docker.io quay/app v1');
    assert.equal(read('/v2/org/app/manifests/v1?ns=quay.io', false), 'manifest quay.io org/app v1');
  });
});

suite('what is refused', () => {
  const table: Readonly<Record<string, string>> = {
    '/v2/org/app/manifests/v1?ns=evil.example': '404 NAME_UNKNOWN',
    '/v2/org/app/manifests/v1?ns=': '400 NAME_INVALID',
    '/v2/org/app/manifests/v1?ns=http://169.254.169.254/': '400 NAME_INVALID',
    '/v2/org/app/manifests/v1?ns=docker.io&ns=quay.io': '400 NAME_INVALID',
    '/v2/org/app/manifests/v1?ns=..%2F..': '400 NAME_INVALID',
    // A known prefix is never a name on Docker Hub, even when its upstream is not configured.
    '/v2/ghcr/org/app/manifests/v1': '404 NAME_UNKNOWN',
    '/v2/evil.example/app/manifests/v1': '404 NAME_UNKNOWN',
    '/v2/quay/manifests/v1': '400 NAME_INVALID',
    '/v2/../etc/manifests/v1': '400 NAME_INVALID',
    '/v2/a/../../b/manifests/v1': '400 NAME_INVALID',
    '/v2/a%2Fb/manifests/v1': '400 NAME_INVALID',
    '/v2/a%2e%2e/b/manifests/v1': '400 NAME_INVALID',
    '/v2//a/manifests/v1': '400 NAME_INVALID',
    '/v2/a//b/manifests/v1': '400 NAME_INVALID',
    '/v2/Upper/case/manifests/v1': '400 NAME_INVALID',
    '/v2/a_-b/manifests/v1': '400 NAME_INVALID',
    '/v2/_links/manifests/v1': '400 NAME_INVALID',
    [`/v2/${'a'.repeat(256)}/manifests/v1`]: '400 NAME_INVALID',
    [`/v2/a/manifests/${'v'.repeat(129)}`]: '400 MANIFEST_INVALID',
    '/v2/a/manifests/-v': '400 MANIFEST_INVALID',
    '/v2/a/manifests/..': '400 MANIFEST_INVALID',
    '/v2/a/manifests/..%2f..%2fetc': '400 MANIFEST_INVALID',
    '/v2/a/manifests/%zz': '400 MANIFEST_INVALID',
    '/v2/a/manifests/v%00': '400 MANIFEST_INVALID',
    '/v2/a/manifests/sha256:abc': '400 DIGEST_INVALID',
    [`/v2/a/blobs/${DIGEST}0`]: '400 DIGEST_INVALID',
    [`/v2/a/blobs/${DIGEST.toUpperCase()}`]: '400 DIGEST_INVALID',
    '/v2/a/blobs/latest': '400 DIGEST_INVALID',
    '/v2/a/referrers/latest': '400 DIGEST_INVALID',
    '/v2/a/referrers/sha256:abc?artifactType=x': '400 DIGEST_INVALID',
    '/v2/a/blobs/uploads/': '404 UNSUPPORTED',
    '/v2/a/tags/list': '404 UNSUPPORTED',
    '/v2/_catalog': '404 UNSUPPORTED',
    '/v1/a': '404 UNSUPPORTED',
    '/': '404 UNSUPPORTED',
    [`/v2/a/manifests/v?${'x'.repeat(2048)}`]: '414 NAME_INVALID',
  };
  for (const [target, expected] of Object.entries(table))
    test(`${target.slice(0, 60)} → ${expected}`, () => assert.equal(read(target), expected));
});
