import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import * as z from 'zod';
import { checkConfigMap } from '../../cli/webhook-config.ts';
import { parseConfig } from '../../config/parse.ts';
import { ConfigError } from '../../config/problem.ts';
import { formatAnswer, readReview } from '../../webhook/admission-review.ts';
import { broken, brokenText, numbers } from '../webhook/broken.ts';

const REGISTRY = { url: 'http://weir-registry.weir.svc:5000', rewriteTo: '127.0.0.1:5700' };
const TEXT = `enabled: true
defaults: { direct: true, tags: { ttl: 60s } }
upstreams:
  docker.io: {}
  harbor.corp:8443: { prefix: corp, ca: corp-ca.pem, timeouts: { idle: 20s } }
  mcr.microsoft.com: { mirror: https://mirror.example/v2/mcr, egress: clash }
  gcr.io: { mirror: "https://gcr.example", via: node, direct: false }
egress: { clash: { proxy: "http://127.0.0.1:7890" } }
includeNamespaces: ["*"]
fallback: auto
skipOwners: ["*.example.com"]
`;

const answerSchema = z.strictObject({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  response: z.strictObject({
    uid: z.string(),
    allowed: z.boolean(),
    status: z.strictObject({ code: z.literal(422), reason: z.string(), message: z.string() }).optional(),
    warnings: z.array(z.string().max(256)).max(10).optional(),
  }),
});

suite('an edit of the one ConfigMap', () => {
  test('is let in whatever it is that is no ConfigMap, and answered whatever is in it', () => {
    const next = numbers(1);
    let refused = 0;
    for (let round = 0; round < 3_000; round++) {
      const object = { metadata: { namespace: 'weir', name: 'weir' }, data: { 'config.yaml': TEXT } };
      const request = { uid: 'u', resource: { resource: 'configmaps' }, operation: 'UPDATE', object };
      const { allowed, status } = asked(JSON.stringify(broken({ request }, next)));
      assert.equal(allowed, status === undefined);
      if (!allowed) refused += 1;
    }
    assert.ok(refused > 10, `${refused} were refused, so that something was tried`);
  });

  test('is let in only when its text can be read, however it is broken', () => {
    const next = numbers(2);
    const counts = { refused: 0, allowed: 0 };
    for (let round = 0; round < 2_000; round++) {
      const text = brokenText(TEXT, next);
      const object = { metadata: { namespace: 'weir', name: 'weir' }, data: { 'config.yaml': text } };
      const request = { uid: 'u', resource: { resource: 'configmaps' }, operation: 'UPDATE', object };
      const { allowed, status } = asked(JSON.stringify({ request }));
      assert.equal(allowed, isReadable(text), `${status?.message}\n${text}`);
      if (!allowed) assert.match(status?.message ?? '', /config\.yaml/);
      counts[allowed ? 'allowed' : 'refused'] += 1;
    }
    assert.ok(counts.refused > 100 && counts.allowed > 10, JSON.stringify(counts));
  });
});

function asked(review: string) {
  const { uid, request } = readReview(review);
  const answer = request === undefined ? {} : checkConfigMap(request.object, REGISTRY);
  return answerSchema.parse(JSON.parse(formatAnswer(uid, answer))).response;
}

function isReadable(text: string): boolean {
  try {
    parseConfig(text);
    return true;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return false;
  }
}
