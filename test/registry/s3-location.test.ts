import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { UsageError } from '../../process/lifecycle.ts';
import { isS3Location, parseS3Location } from '../../registry/s3-location.ts';

const AWS = {
  bucket: 'images',
  prefix: 'weir/',
  region: undefined,
  endpoint: undefined,
  pathStyle: false,
  ca: undefined,
  credentials: undefined,
};

suite('a store in S3', () => {
  for (const [text, expected] of [
    ['s3://images', {}],
    ['s3://images/', {}],
    ['s3://images?region=eu-central-1', { region: 'eu-central-1' }],
    ['s3://images/team/cache/?region=eu-central-1', { region: 'eu-central-1', prefix: 'team/cache/' }],
    [
      's3://images/weir?endpoint=http://minio.storage:9000&pathStyle=true',
      { endpoint: 'http://minio.storage:9000', pathStyle: true, region: 'us-east-1' },
    ],
    [
      's3://images?endpoint=https%3A%2F%2Fs3.corp%2F&ca=corp-ca.pem&credentials=/etc/weir/s3',
      { endpoint: 'https://s3.corp', region: 'us-east-1', ca: 'corp-ca.pem', credentials: '/etc/weir/s3' },
    ],
  ] as const)
    test(`is read from ${text}`, () => assert.deepEqual(parseS3Location(text), { ...AWS, ...expected }));

  for (const [text, problem] of [
    ['s3:images', /"s3:images" names no bucket; write s3:\/\/BUCKET\/PREFIX/],
    ['s3:///weir', /names no bucket/],
    ['s3://Images', /"Images" is no bucket's name; it has 3 to 63 lower-case/],
    ['s3://my_images', /"my_images" is no bucket's name/],
    ['s3://images:9000/weir', /a bucket has no port; write the server as endpoint=http:\/\/HOST:PORT/],
    ['s3://images//weir', /"\/weir" is no prefix/],
    ['s3://images/a%20b', /"a%20b" is no prefix/],
    [`s3://images/${'a'.repeat(257)}`, /longer than 256/],
    ['s3://images?pathstyle=true', /"pathstyle" is not known; there are region, endpoint, pathStyle, ca/],
    ['s3://images?pathStyle=yes', /pathStyle is "yes"; write true or false/],
    ['s3://images?region=a&region=b', /region is given twice/],
    ['s3://images?ca=', /ca is empty; give it a value or leave it out/],
    ['s3://images?region=EU West', /"EU West" is no region/],
    ['s3://images?endpoint=minio:9000', /endpoint is no URL of a server; write https:\/\/HOST/],
    ['s3://images?endpoint=http://minio/x', /endpoint is more than a server's origin; write http:\/\/minio/],
    ['s3://images#x', /"#" ends a URL/],
  ] as const)
    test(`is refused as ${text.slice(0, 40)}`, () =>
      assert.throws(
        () => parseS3Location(text),
        (error: unknown) => error instanceof UsageError && problem.test(error.message),
      ));

  test('names every problem at once, and never a secret', () => {
    assert.throws(
      () => parseS3Location('s3://AKIA:hush@Images?secretAccessKey=hush&pathStyle=1'),
      (error: Error) =>
        /credentials do not belong into the URL/.test(error.message) &&
        /no bucket's name/.test(error.message) &&
        /"secretAccessKey" is not known/.test(error.message) &&
        /pathStyle/.test(error.message) &&
        !/hush|AKIA/.test(error.message),
    );
  });

  test('is told from a directory', () => {
    assert.ok(isS3Location('s3://images'));
    assert.ok(!isS3Location('file:/var/lib/weir'));
  });
});
