// The Lease by which nodes have their turns, kept by a real API server.

import assert from 'node:assert/strict';
import process from 'node:process';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { type LeaseOptions, takeLease } from '../../kubernetes/lease.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type ApiServer, startApiServer } from './api-server.ts';
import { missing } from './tier.ts';

const { signal } = new AbortController();
const NODES = 6;

describe('a Lease of a real API server', { skip: (await missing()) !== undefined }, () => {
  let scratch: string;
  let server: ApiServer;
  let options: (holder: string) => LeaseOptions;

  before(async () => {
    scratch = await makeScratch();
    server = await startApiServer(scratch);
    process.env['KUBECONFIG'] = server.kubeconfig;
    const kubernetes = connectKubernetes('test');
    options = (holder) => ({
      kubernetes,
      lease: { namespace: 'default', name: 'turn' },
      holder,
      durationMs: 1_000,
      jitterMs: 10,
      log: pino({ level: 'silent' }),
    });
  });
  after(async () => {
    await server.stop();
    await removeScratch(scratch);
  });

  const holder = (): Promise<string> =>
    server.kubectl('get', 'lease', 'turn', '--output=jsonpath={.spec.holderIdentity}');
  const version = (): Promise<string> =>
    server.kubectl('get', 'lease', 'turn', '--output=jsonpath={.metadata.resourceVersion}');

  it('is had by one node at a time, each in its turn', async () => {
    let holding = 0;
    const holders: string[] = [];
    await Promise.all(
      Array.from({ length: NODES }, async (_, index) => {
        const held = await takeLease(options(`node${index}`), signal);
        holding += 1;
        assert.equal(holding, 1);
        holders.push(await holder());
        assert.equal(held.lost.aborted, false);
        holding -= 1;
        await held.release();
      }),
    );
    assert.equal(new Set(holders).size, NODES);
  });

  it('outlives its duration while it is renewed, and not its holder', async () => {
    const first = await takeLease(options('one'), signal);
    const seen = new Set<string>();
    while (seen.size < 6) seen.add(await version());
    assert.equal(first.lost.aborted, false);
    first.abandon();
    const second = await takeLease(options('two'), signal);
    await first.release();
    assert.equal(await holder(), 'two');
    await second.release();
  });
});
