// Where the SDK finds credentials by itself, asked of the bundle: what it loads only when it needs it has to be in there.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { bundle } from '../../build/bundle.ts';
import { start } from '../tools/child.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { ACCESS_KEY, BUCKET, type S3Server, SECRET_KEY, startS3Server } from './s3-server.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** The server knows the key and its signature, and has no session tokens: it would say other things of other credentials. */
const FOUND = /the session token is over/;
const LATER = '2099-01-01T00:00:00Z';

suite('a registry whose credentials are not in its flags', () => {
  let scratch: string;
  let server: S3Server;
  before(async () => {
    scratch = await makeScratch();
    server = await startS3Server('versitygw', { scratch });
    await mkdir(join(scratch, 'weir'));
    for (const { name, content } of (await bundle(ROOT)).files)
      await writeFile(join(scratch, 'weir', name), content);
    await writeFile(join(scratch, 'weir', 'package.json'), '{"type":"module"}');
    await writeFile(join(scratch, 'config.yaml'), 'upstreams: { ghcr.io: {} }\n');
  });
  after(async () => {
    await server.stop();
    await removeScratch(scratch);
  });

  /** What `/readyz` says of a registry with these variables and no others of AWS. */
  async function readiness(variables: Readonly<Record<string, string>>): Promise<string> {
    const store = `s3://${BUCKET}?endpoint=${server.endpoint}&pathStyle=true&region=us-east-1`;
    const flags = ['--config', join(scratch, 'config.yaml'), '--store', store, '--listen', '127.0.0.1:0'];
    const registry = await start(process.execPath, [join(scratch, 'weir', 'main.js'), 'registry', ...flags], {
      env: { PATH: process.env['PATH'], HOME: scratch, AWS_EC2_METADATA_DISABLED: 'true', ...variables },
      ready: (child) => child.line(/the registry answers/),
    });
    try {
      const line = registry.lines.find((some) => some.includes('the registry answers')) ?? '';
      const [, url = ''] = /"url":"([^"]+)"/.exec(line) ?? [];
      return await (await fetch(`${url}/readyz`)).text();
    } finally {
      await registry.stop('SIGKILL');
    }
  }

  test('says in a line that there are none', async () => {
    await assert.rejects(readiness({}), /there are no credentials \(.+\); set AWS_ACCESS_KEY_ID/);
  });

  test('finds them in a file', async () => {
    const file = join(scratch, 'credentials.ini');
    await writeFile(
      file,
      `[default]\naws_access_key_id=${ACCESS_KEY}\naws_secret_access_key=${SECRET_KEY}\n`,
    );
    assert.doesNotMatch(await readiness({ AWS_SHARED_CREDENTIALS_FILE: file }), /credentials|s3:/);
  });

  test('gets them for a role of the container, as EKS Pod Identity and ECS give them', async () => {
    const given = { AccessKeyId: ACCESS_KEY, SecretAccessKey: SECRET_KEY, Token: 'a', Expiration: LATER };
    await served(
      (_, response) =>
        response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(given)),
      async (url) => assert.rejects(readiness({ AWS_CONTAINER_CREDENTIALS_FULL_URI: `${url}/role` }), FOUND),
    );
  });

  test('gets them for the token of a service account, as IRSA gives them', async () => {
    const token = join(scratch, 'token');
    await writeFile(token, 'of-the-service-account');
    const body = `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>${ACCESS_KEY}</AccessKeyId><SecretAccessKey>${SECRET_KEY}</SecretAccessKey><SessionToken>a</SessionToken><Expiration>${LATER}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`;
    await served(
      (_, response) => response.writeHead(200, { 'content-type': 'text/xml' }).end(body),
      async (url) =>
        assert.rejects(
          readiness({
            AWS_WEB_IDENTITY_TOKEN_FILE: token,
            AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/images',
            AWS_REGION: 'us-east-1',
            AWS_ENDPOINT_URL_STS: url,
          }),
          FOUND,
        ),
    );
  });
});

/** Has a source of credentials answer so, and gives its URL. */
async function served(answer: RequestListener, use: (url: string) => Promise<void>): Promise<void> {
  const source = createServer(answer).listen(0, '127.0.0.1');
  await once(source, 'listening');
  const address = source.address();
  try {
    await use(`http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`);
  } finally {
    source.close();
    source.closeAllConnections();
  }
}
