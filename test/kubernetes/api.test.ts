import assert from 'node:assert/strict';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { connectKubernetes, statusOf } from '../../kubernetes/client.ts';
import { ScriptedApi } from './scripted-api.ts';

const PODS = '/api/v1/namespaces/apps/pods';
const pod = { metadata: { name: 'a', creationTimestamp: '2026-01-02T03:04:05Z' } };

async function connected(t: TestContext) {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  return { api, kubernetes: connectKubernetes('weir/test') };
}

test('objects are read as they are sent, times as text', async (t) => {
  const { api, kubernetes } = await connected(t);
  api.set(`${PODS}/a`, pod);
  const read = await kubernetes.read('pods', { namespace: 'apps', name: 'a' });
  assert.equal(read.metadata?.creationTimestamp, '2026-01-02T03:04:05Z');
  const { items } = await kubernetes.list('pods', { namespace: 'apps' });
  assert.deepEqual(items, [read]);
});

test('selectors go into the query, and objects of the whole cluster have no namespace', async (t) => {
  const { api, kubernetes } = await connected(t);
  await kubernetes.list('nodes', { labelSelector: 'a in (b,c)', fieldSelector: 'spec.nodeName=' });
  const [{ path, query } = assert.fail()] = api.requests;
  assert.equal(path, '/api/v1/nodes');
  assert.deepEqual(Object.fromEntries(query), {
    fieldSelector: 'spec.nodeName=',
    labelSelector: 'a in (b,c)',
  });
});

test('the name of an object cannot lead to another one', async (t) => {
  const { api, kubernetes } = await connected(t);
  const read = kubernetes.read('secrets', { namespace: 'apps', name: '../../other/secrets/a' });
  await assert.rejects(read, (error) => statusOf(error) === 404);
  assert.equal(api.requests[0]?.path, '/api/v1/namespaces/apps/secrets/..%2F..%2Fother%2Fsecrets%2Fa');
});

test('a patch says of which kind it is, and a request who asks', async (t) => {
  const { api, kubernetes } = await connected(t);
  const headers: IncomingHttpHeaders[] = [];
  api.set(`${PODS}/a`, pod);
  api.fault = ({ response }) => {
    const request: IncomingMessage = response.req;
    headers.push(request.headers);
    return false;
  };
  const place = { namespace: 'apps', name: 'a' };
  await kubernetes.patch('pods', place, { merge: { metadata: { labels: { a: 'b' } } } });
  api.fault = ({ response, body }) => {
    headers.push(response.req.headers);
    assert.deepEqual(body, [{ op: 'remove', path: '/a' }]);
    response.end('{}');
    return true;
  };
  await kubernetes.patch('pods', place, { json: [{ op: 'remove', path: '/a' }] });
  assert.deepEqual(
    headers.map((one) => [one['content-type'], one['user-agent'], one.authorization]),
    [
      ['application/merge-patch+json', 'weir/test', 'Bearer test'],
      ['application/json-patch+json', 'weir/test', 'Bearer test'],
    ],
  );
});

test('a refusal has its status, and a page of an intermediary is no object', async (t) => {
  const { api, kubernetes } = await connected(t);
  const read = () => kubernetes.read('configmaps', { namespace: 'apps', name: 'a' });
  await assert.rejects(read(), (error) => statusOf(error) === 404);
  api.fault = ({ response }) => {
    response.end('<html>Sign in</html>');
    return true;
  };
  await assert.rejects(read(), /answers 200 with what is no JSON object/);
});
