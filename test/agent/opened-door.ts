import { Agent, type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { Door, type DoorOptions } from '../../agent/door.ts';
import { inOrder } from '../../agent/door-order.ts';
import { createMetrics, type Registry as Metrics } from '../../process/metrics.ts';

/** A door to these replicas of this machine, which is closed at the end of the test. */
export async function openDoor(
  t: TestContext,
  replicas: readonly { readonly port: number }[],
  options: Pick<DoorOptions, 'trust' | 'timings'>,
): Promise<{ door: Door; metrics: Metrics }> {
  const metrics = createMetrics();
  const address = { host: '127.0.0.1', port: 0 };
  const door = await Door.open({ address, metrics, log: pino({ level: 'silent' }), ...options });
  t.after(async () => {
    agent.destroy();
    await door.close();
  });
  const agent = new Agent({ keepAlive: true });
  agents.set(door, agent);
  door.setReplicas(replicas.map(({ port }) => ({ host: '127.0.0.1', port })));
  return { door, metrics };
}

const agents = new WeakMap<Door, Agent>();

export interface Answered {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  readonly isWhole: boolean;
}

export async function ask(
  door: Door,
  target: string,
  options: { method?: string; headers?: Record<string, string> } = {},
): Promise<Answered> {
  const { hostname, port } = new URL(door.url);
  const agent = agents.get(door);
  const client = httpRequest({ hostname, port, path: target, ...(agent ? { agent } : {}), ...options });
  client.end();
  const response = await responseTo(client);
  const chunks: Buffer[] = [];
  response.on('data', (chunk: Buffer) => chunks.push(chunk));
  // An early end is told by `complete`.
  response.on('error', () => undefined);
  if (!response.closed) await new Promise((resolve) => response.once('close', resolve));
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: Buffer.concat(chunks).toString(),
    isWhole: response.complete,
  };
}

export async function responseTo(client: ClientRequest): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  client.once('response', resolve).once('error', reject);
  return await promise;
}

export async function rawAnswer(door: Door, text: string): Promise<string> {
  const socket = connect(Number(new URL(door.url).port), '127.0.0.1');
  socket.write(text);
  let answer = '';
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}

/** A pull of which the door asks this replica first. */
export function targetFor(door: Door, replica: { readonly port: number }): string {
  for (let nth = 0; nth < 200; nth++) {
    const [first] = inOrder(door.state(), (address) => address, `image${nth}`);
    if (first?.port === replica.port) return `/v2/image${nth}/blobs/x`;
  }
  throw new Error('the replica comes first for no repository');
}

export function stateOf(door: Door): string[] {
  return door.state().map(({ state }) => state);
}

export async function metricOf(
  metrics: Metrics,
  name: string,
  labels: Record<string, string> = {},
): Promise<number> {
  const metric = await metrics.getSingleMetric(name)?.get();
  const found = metric?.values.find((value) =>
    Object.entries(labels).every(([label, expected]) => value.labels[label] === expected),
  );
  return Number(found?.value);
}

/** What became of the requests, in words, without what happened to none. */
export async function outcomes(metrics: Metrics): Promise<string> {
  const metric = await metrics.getSingleMetric('weir_door_requests_total')?.get();
  const values = metric?.values.filter(({ value }) => value > 0) ?? [];
  return values
    .map(({ labels, value }) => `${labels['outcome']} ${value}`)
    .toSorted()
    .join(', ');
}
