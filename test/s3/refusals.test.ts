import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { DeleteObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { pino } from 'pino';
import { digestOf } from '../../oci/digest.ts';
import { parseS3Location } from '../../registry/s3-location.ts';
import { S3Store } from '../../registry/s3-store.ts';
import { freePort } from '../containerd/port.ts';
import { run } from '../tools/command.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { openS3Store, type StoreSettings } from './opened-store.ts';
import { startS3Proxy } from './s3-proxy.ts';
import { ACCESS_KEY, BUCKET, type S3Server, SECRET_KEY, startS3Server } from './s3-server.ts';
import { s3ServerNames } from './s3-server-tools.ts';

const KEY = { host: 'ghcr.io', repository: 'a/b' };

for (const name of s3ServerNames)
  suite(`what the S3 store says when ${name} refuses:`, () => {
    let scratch: string;
    let server: S3Server;
    before(async () => {
      scratch = await makeScratch();
      server = await startS3Server(name, { scratch });
    });
    after(async () => {
      await server.stop();
      await removeScratch(scratch);
    });

    const messageOf = async (settings: Omit<StoreSettings, 'scratch' | 'endpoint'>) => {
      const opening = openS3Store({ scratch, endpoint: server.endpoint, ...settings });
      const error = await opening.then(
        () => assert.fail('it was opened'),
        (thrown: unknown) => thrown,
      );
      assert.ok(error instanceof Error);
      return error.message;
    };

    test('a bucket that is not there', async () => {
      assert.equal(
        await messageOf({ bucket: 'elsewhere' }),
        'cannot read s3://elsewhere/weir/weir-store.json: there is no such bucket; create elsewhere, or correct the bucket, region or endpoint in --store',
      );
    });

    test('a prefix without a store, where one must be, and begins none there', async () => {
      for (let round = 0; round < 2; round++)
        assert.equal(
          await messageOf({ prefix: 'typo', mustExist: true }),
          's3://images/typo/ holds no store of weir; look at the prefix that the registry was given',
        );
    });

    test('a wrong access key', async () => {
      assert.match(
        await messageOf({ accessKey: 'nobody' }),
        /^cannot read s3:\/\/images\/weir\/weir-store\.json: the server does not know the access key; correct the credentials \(.+\)$/,
      );
    });

    test('a wrong secret key', async () => {
      assert.match(
        await messageOf({ secretKey: 'wrong-secret' }),
        /weir-store\.json: the signature does not match; correct the secret key \(.+\)/,
      );
    });

    test('credentials that are found nowhere', async () => {
      await withEnvironment({}, async () => {
        await assert.rejects(
          openS3Store({ scratch, endpoint: server.endpoint, credentials: 'chain' }),
          /there are no credentials \(.+\); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a service account/,
        );
      });
    });

    test('nothing, when they are in the environment', async () => {
      const variables = { AWS_ACCESS_KEY_ID: ACCESS_KEY, AWS_SECRET_ACCESS_KEY: SECRET_KEY };
      await withEnvironment(variables, async () => {
        const store = await openS3Store({ scratch, endpoint: server.endpoint, credentials: 'chain' });
        assert.equal(await store.stat(digestOf('x')), undefined);
        assert.equal(store.problem, undefined);
      });
    });

    test('a layout of a later version, which it leaves alone', async () => {
      const Key = 'later/weir-store.json';
      const Body = '{"layout":"weir-s3-store","version":2}';
      await server.client.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body }));
      await assert.rejects(
        openS3Store({ scratch, endpoint: server.endpoint, prefix: 'later' }),
        /s3:\/\/images\/later\/weir-store\.json is of another kind or a later version; give weir a prefix of its own/,
      );
    });

    test('a bucket that went away is no miss', async () => {
      const proxy = await startS3Proxy(server.endpoint);
      try {
        const store = await openS3Store({ scratch, endpoint: proxy.endpoint });
        proxy.fault = (operation) =>
          operation === 'HeadObject' || operation === 'GetObject'
            ? { status: 404, code: 'NoSuchBucket' }
            : undefined;
        const digest = digestOf('x');
        for (const asking of [
          () => store.stat(digest),
          () => store.open(digest),
          () => store.link(KEY, digest),
          () => store.tag(KEY, 'v1'),
        ])
          await assert.rejects(asking(), /there is no such bucket/);
        assert.match(store.problem ?? '', /there is no such bucket/);
        proxy.fault = undefined;
        assert.equal(await store.stat(digest), undefined);
        assert.equal(store.problem, undefined);
      } finally {
        await proxy.close();
      }
    });

    test('a damaged record is none, so that it is made anew', async () => {
      const store = await openS3Store({ scratch, endpoint: server.endpoint });
      const put = async (Key: string, Body: string) =>
        await server.client.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body }));
      const digest = digestOf('x');
      await put('weir/repositories/ghcr.io/a/b/_tags/v1', '{"digest":"sha256:../../etc","checked');
      await put(`weir/repositories/ghcr.io/a/b/_links/sha256/${digest.slice(7)}`, '{"mediaType":7}');
      assert.equal(await store.tag(KEY, 'v1'), undefined);
      assert.equal(await store.link(KEY, digest), undefined);
    });

    test('a server that ends and comes back', async () => {
      const proxy = await startS3Proxy(server.endpoint);
      const store = await openS3Store({ scratch, endpoint: proxy.endpoint });
      await proxy.close();
      await assert.rejects(
        store.stat(digestOf('x')),
        new RegExp(
          `^S3Failure: cannot look up s3://images/weir/blobs/.*: ${proxy.endpoint} refuses connections; start`,
        ),
      );
      const began = performance.now();
      for (let round = 0; round < 20; round++) await assert.rejects(store.tag(KEY, 'v1'), /refuses/);
      assert.ok(performance.now() - began < 500, 'the others fail at once');
    });

    test('a server that is away at the start, and what is made up for when it is there', async () => {
      const proxy = await startS3Proxy(server.endpoint);
      try {
        proxy.fault = () => ({ status: 503, code: 'ServiceUnavailable' });
        const store = await openS3Store({ scratch, endpoint: proxy.endpoint, prefix: 'late' });
        assert.match(
          store.problem ?? '',
          /cannot read s3:\/\/images\/late\/weir-store\.json: ServiceUnavailable/,
        );
        await assert.rejects(store.put(digestOf('x'), Buffer.from('x')), /ServiceUnavailable/);
        proxy.fault = undefined;
        await eventually(() => store.put(digestOf('x'), Buffer.from('x')));
        assert.equal(store.problem, undefined);
        await server.client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: 'late/weir-store.json' }));
        assert.ok(await openS3Store({ scratch, endpoint: proxy.endpoint, prefix: 'late' }));
      } finally {
        await proxy.close();
      }
    });
  });

suite('an S3 server with a certificate', () => {
  let scratch: string;
  let server: S3Server;
  const certificate = () => join(scratch, 'ca.pem');
  before(async () => {
    scratch = await makeScratch();
    const key = join(scratch, 'key.pem');
    const subject = [
      '-subj',
      '/CN=weir test',
      '-addext',
      'subjectAltName=IP:127.0.0.1',
      '-days',
      '2',
      '-nodes',
    ];
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
    await run('openssl', ['req', '-x509', ...curve, ...subject, '-keyout', key, '-out', certificate()]);
    server = await startS3Server('versitygw', { scratch, tls: { certificate: certificate(), key } });
  });
  after(async () => {
    await server.stop();
    await removeScratch(scratch);
  });

  test('is refused while its CA is not known, with the remedy', async () => {
    await assert.rejects(
      openS3Store({ scratch, endpoint: server.endpoint }),
      /the certificate of https:\/\/127\.0\.0\.1:\d+ is not trusted \(.+\); name its CA with ca=FILE in --store/,
    );
  });

  test('is trusted with its CA', async () => {
    await assert.rejects(
      openS3Store({ scratch, endpoint: server.endpoint, ca: certificate() }),
      /there is no such bucket/,
    );
  });

  test('is not spoken to without TLS', async () => {
    const endpoint = server.endpoint.replace('https:', 'http:');
    const store = await openS3Store({ scratch, endpoint }).catch((error: Error) => error);
    assert.match(store instanceof Error ? store.message : (store.problem ?? ''), /cannot read s3:/);
  });

  test('and one without, that TLS is spoken to, is told', async () => {
    const plain = await startS3Server('versitygw', { scratch });
    try {
      await assert.rejects(
        openS3Store({ scratch, endpoint: plain.endpoint.replace('http:', 'https:') }),
        /does not speak TLS; write endpoint=http:/,
      );
    } finally {
      await plain.stop();
    }
  });
});

test('AWS without a region is told', async () => {
  await withEnvironment({ AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 'b' }, async () => {
    await assert.rejects(
      S3Store.open(parseS3Location('s3://images'), {
        log: pino({ level: 'silent' }),
        signal: new AbortController().signal,
      }),
      /no region is known; add region=… to --store, or set AWS_REGION/,
    );
  });
});

test('nothing that listens is no reason to end', async () => {
  const scratch = await makeScratch();
  try {
    const endpoint = `http://127.0.0.1:${await freePort()}`;
    const store = await openS3Store({ scratch, endpoint });
    assert.equal(
      store.problem,
      `cannot read s3://images/weir/weir-store.json: ${endpoint} refuses connections; start the server, or correct endpoint in --store`,
    );
  } finally {
    await removeScratch(scratch);
  }
});

/** Until the store tries the server again. */
async function eventually(work: () => Promise<void>): Promise<void> {
  const signal = AbortSignal.timeout(20_000);
  for (;;) {
    try {
      await work();
      return;
    } catch (error) {
      if (signal.aborted) throw error;
      await setTimeout(50);
    }
  }
}

/** Runs with these variables alone of all that the SDK reads. */
async function withEnvironment(
  variables: Readonly<Record<string, string>>,
  work: () => Promise<void>,
): Promise<void> {
  const before = { ...process.env };
  for (const name of Object.keys(before)) if (name.startsWith('AWS_')) delete process.env[name];
  Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: 'true', HOME: '/nonexistent' }, variables);
  try {
    await work();
  } finally {
    process.env = before;
  }
}
