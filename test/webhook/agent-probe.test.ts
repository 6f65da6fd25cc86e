import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { test } from 'node:test';
import { AgentProbe } from '../../webhook/agent-probe.ts';

const [ONE, OTHER] = ['127.0.0.1', '127.0.0.2'];
const AT_ONCE = { accepted: 1, refused: 1, silent: 1 };

/** Listens as an agent does, and counts who comes. */
async function listen(host: string, port = 0): Promise<{ server: Server; port: number; came: () => number }> {
  let count = 0;
  const server = createServer((socket) => {
    count += 1;
    socket.destroy();
  }).listen(port, host);
  await once(server, 'listening');
  const address: AddressInfo | string | null = server.address();
  assert.ok(address !== null && typeof address === 'object');
  return { server, port: address.port, came: () => count };
}

test('an agent is gone where connections are refused, and others were not', async () => {
  const { server, port } = await listen(ONE);
  const probe = new AgentProbe({ port, knownMs: AT_ONCE });
  assert.equal(await probe.look(OTHER), 'unknown', 'a firewall may refuse all');
  assert.equal(await probe.look(ONE), 'there');
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(await probe.look(OTHER), 'gone');
  server.close();
  await once(server, 'close');
  assert.equal(await probe.look(ONE), 'gone');
  const again = await listen(ONE, port);
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(await probe.look(ONE), 'there');
  again.server.close();
});

test('nobody knows of one that is not reached, nor of an address that is none', async () => {
  const { server, port } = await listen(ONE);
  const probe = new AgentProbe({ port });
  assert.equal(await probe.look(ONE), 'there');
  for (const address of ['255.255.255.255', 'no address']) assert.equal(await probe.look(address), 'unknown');
  server.close();
});

test('what was found is remembered for a while, and many who want to know ask once', async () => {
  const { server, port, came } = await listen(ONE);
  const probe = new AgentProbe({ port });
  await Promise.all([probe.look(ONE), probe.look(ONE), probe.look(ONE)]);
  await probe.look(ONE);
  server.close();
  await once(server, 'close');
  assert.equal(came(), 1);
  assert.equal(await probe.look(ONE), 'there');
});
