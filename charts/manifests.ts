/**
 * `npm run manifests [-- --namespace NAME --values FILE --set KEY=VALUE --out FILE]`: the chart as plain manifests
 * for `kubectl apply`, without Helm's hooks and labels.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { render } from './helm.ts';

const { values } = parseArgs({
  options: {
    namespace: { type: 'string', default: 'weir' },
    values: { type: 'string', short: 'f', multiple: true, default: [] },
    set: { type: 'string', multiple: true, default: [] },
    out: { type: 'string', default: 'deploy/weir.yaml' },
  },
});
const flags = [
  ...values.values.flatMap((file) => ['--values', file]),
  ...values.set.flatMap((setting) => ['--set', setting]),
];
// The account of `helm test` is no hook, and of no use without it.
const rendered = await render(values.namespace, '--no-hooks', '--set', 'test.enabled=false', ...flags);
await mkdir(dirname(values.out), { recursive: true });
await writeFile(values.out, `${head(values.namespace)}${withoutHelm(rendered)}`);
process.stdout.write(`${values.out}\n`);

function head(namespace: string): string {
  return `# kubectl apply -f FILE. Applied again, it puts its own configuration over an edit of the ConfigMap.
# To leave, let the agents restore their nodes first:
#   kubectl --namespace ${namespace} delete daemonset --selector app.kubernetes.io/part-of=weir --cascade=foreground
#   kubectl delete -f FILE --ignore-not-found
---
apiVersion: v1
kind: Namespace
metadata:
  name: ${namespace}
  labels:
    # The agent writes files of the node.
    pod-security.kubernetes.io/enforce: privileged
`;
}

function withoutHelm(text: string): string {
  return text
    .replace(/^(?:# Source: .*| +(?:app\.kubernetes\.io\/managed-by|helm\.sh\/chart): .*)\n/gm, '')
    .replace(/`helm upgrade` keeps it .*/, 'these manifests, applied again, take it back.');
}
