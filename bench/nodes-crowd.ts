/**
 * Very many agents in one process, as far as the API server can see: `nodes-crowd.ts FIRST COUNT NODES SECONDS`,
 * with `KUBECONFIG`: so many of all nodes, which start one after the other, the last of them after so many seconds.
 * Each has a client of its own with the watches of an agent, and reports what it hears of. When all of them have a
 * configuration, a line says when each of them heard of it, in milliseconds since 1970.
 */
import { createHash } from 'node:crypto';
import process from 'node:process';
import { pino } from 'pino';
import { connectKubernetes } from '../kubernetes/client.ts';
import { watchConfigText } from '../kubernetes/config-map.ts';
import { Leaving } from '../kubernetes/leaving.ts';
import { NodeEvents } from '../kubernetes/node-events.ts';
import { NodeReporter } from '../kubernetes/node-report.ts';
import { watchReplicas } from '../kubernetes/replicas.ts';
import { NAMESPACE, nodeName } from './nodes-cluster.ts';

const [first = 0, count = 0, nodes = 0, seconds = 0] = process.argv.slice(2).map(Number);
const log = pino({ level: 'error' });
const upstreams = new Map(['docker.io', 'ghcr.io', 'quay.io'].map((host) => [host, 'configured'] as const));
/** When who heard of which configuration, by its hash. */
const heard = new Map<string, Map<string, number>>();
/** They last as long as the process. */
const watches: { close: () => void }[] = [];

for (let index = 0; index < count; index++)
  setTimeout(() => startAgent(nodeName(first + index)), (seconds * 1_000 * index) / count);

function startAgent(node: string): void {
  const kubernetes = connectKubernetes('weir-bench');
  const events = new NodeEvents({ kubernetes, node, reporter: 'weir-agent', log });
  const reporter = new NodeReporter(kubernetes, node, log, { events, nodes: () => nodes });
  watches.push(new Leaving(kubernetes, { namespace: NAMESPACE, name: 'weir-agent' }, log));
  watchReplicas({
    kubernetes,
    service: { namespace: NAMESPACE, name: 'weir' },
    changed: () => undefined,
    log,
  });
  watchConfigText({
    kubernetes,
    configMap: { namespace: NAMESPACE, name: 'weir' },
    changed(text) {
      if (text.kind === 'missing') return;
      const configHash = createHash('sha256').update(text.text).digest('hex');
      hear(node, configHash);
      reporter.report({
        mirror: 'configured',
        configHash,
        proof: 'proven',
        isDoorOpen: true,
        upstreams,
        reasons: new Map(),
      });
    },
    log,
  });
}

function hear(node: string, hash: string): void {
  const times = heard.get(hash) ?? new Map<string, number>();
  heard.set(hash, times);
  if (times.has(node)) return;
  times.set(node, Date.now());
  if (times.size === count) process.stdout.write(`${hash} ${[...times.values()].join(',')}\n`);
}
