// `node test/cluster/up.ts`: a cluster to look into, until Ctrl-C. `--s3` gives it S3.

import { once } from 'node:events';
import { S3 } from './control-plane.ts';
import { startCluster, WORKLOADS } from './start-cluster.ts';
import * as tier from './tier.ts';

const reason = await tier.missing();
if (reason !== undefined) throw new Error(`this machine cannot run a cluster: ${reason}`);
await tier.prepare();
const began = performance.now();
const cluster = await startCluster({ s3: process.argv.includes('--s3') });
console.log(`up after ${((performance.now() - began) / 1000).toFixed(1)} s; files and logs: ${cluster.directory}

In another terminal, for control-plane, ${cluster.nodes.map(({ name }) => name).join(', ')} or outside:
  ${cluster.shell('control-plane')} kubectl get pods -A
  ${cluster.shell('node1')} ctr -n k8s.io images ls
Images: ${WORKLOADS.join(', ')}
${cluster.s3 === undefined ? '' : `S3: ${JSON.stringify(S3)}\n`}Ctrl-C ends it.`);
await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
await cluster.stop();
