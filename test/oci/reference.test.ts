import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseHost } from '../../oci/host.ts';
import { formatReference, parseReference } from '../../oci/reference.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

suite('references', () => {
  const long: Readonly<Record<string, string>> = {
    nginx: 'docker.io/library/nginx:latest',
    'nginx:1.27': 'docker.io/library/nginx:1.27',
    'bitnami/redis': 'docker.io/bitnami/redis:latest',
    'docker.io/nginx': 'docker.io/library/nginx:latest',
    'index.docker.io/bitnami/redis': 'docker.io/bitnami/redis:latest',
    'ghcr.io/org/app:v1': 'ghcr.io/org/app:v1',
    'localhost/app': 'localhost/app:latest',
    'localhost:5000/app:1': 'localhost:5000/app:1',
    'harbor.corp:8443/team/app': 'harbor.corp:8443/team/app:latest',
    'quay.io/app': 'quay.io/app:latest',
    [`app@${DIGEST}`]: `docker.io/library/app@${DIGEST}`,
    [`ghcr.io/a/b:1@${DIGEST}`]: `ghcr.io/a/b:1@${DIGEST}`,
    'GHCR.io/app': 'ghcr.io/app:latest',
  };
  for (const [short, full] of Object.entries(long)) {
    test(`${short} is ${full}`, () => {
      assert.equal(formatReference(parseReference(short)), full);
      assert.equal(formatReference(parseReference(full)), full);
    });
  }

  for (const text of [
    '',
    'UPPER',
    'a//b',
    'a:',
    'a:b:c',
    'a@b',
    `a@${DIGEST}@${DIGEST}`,
    'a b',
    '../etc',
    'ghcr.io/',
    'Registry/app',
    `a:${'x'.repeat(129)}`,
    'a'.repeat(256),
  ])
    test(`"${text.slice(0, 30)}" is refused with its text in the message`, () => {
      assert.throws(
        () => parseReference(text),
        (error: Error) => error.message.includes('is no image reference'),
      );
    });
});

suite('registry hosts', () => {
  for (const host of ['ghcr.io', 'harbor.corp:8443', 'localhost', '[fd00::5]:5000', '10.0.0.1:5000'])
    test(`${host} is one`, () => assert.equal(parseHost(host), host));
  for (const text of [
    '',
    'a/b',
    'https://ghcr.io',
    'ghcr.io:',
    'ghcr.io:0',
    'ghcr.io:70000',
    '..',
    '.',
    'a..b',
    '-a',
    'a_b',
    'a\nb',
    '%2e',
    `${'a'.repeat(64)}.io`,
  ])
    test(`"${text}" is none`, () => assert.equal(parseHost(text), undefined));
  test("Docker Hub's other names are docker.io", () => {
    for (const name of ['index.docker.io', 'registry-1.docker.io', 'Docker.io'])
      assert.equal(parseHost(name), 'docker.io');
  });
});
