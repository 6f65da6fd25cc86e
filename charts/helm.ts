// The pinned Helm and its companions, as scripts and tests of the chart call them.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { provide } from '../test/tools/cache.ts';
import { goModule } from '../test/tools/go-module.ts';

export const CHART = join(import.meta.dirname, 'weir');
/** What the chart is rendered for where no cluster says it. */
export const KUBERNETES_VERSION = '1.34.0';

const BIOME = join(import.meta.dirname, '..', 'node_modules', '.bin', 'biome');

/** Standard output of one of them. @throws Error with all that it wrote. */
export async function runTool(
  name: 'helm' | 'untt' | 'kubeconform' | 'helm-docs',
  ...args: readonly string[]
): Promise<string> {
  return await output(join(await provide(goModule('helm')), name), args);
}

/** The chart's manifests, as `helm template` prints them. @throws Error with the sentences of a refusal. */
export async function render(namespace: string, ...flags: readonly string[]): Promise<string> {
  const place = ['--namespace', namespace, '--kube-version', KUBERNETES_VERSION];
  return await runTool('helm', 'template', 'weir', CHART, ...place, ...flags);
}

/** The chart's README as it is to be: from the comments of its values and README.md.gotmpl, then formatted. */
export async function renderReadme(): Promise<string> {
  const flags = ['--chart-search-root', CHART, '--sort-values-order', 'file', '--log-level', 'warning'];
  const made = await runTool('helm-docs', '--dry-run', ...flags);
  return await output(BIOME, ['format', '--stdin-file-path', join(CHART, 'README.md')], made.trim());
}

function output(command: string, args: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, { maxBuffer: 64 * 1024 * 1024 }, (cause, stdout, stderr) => {
      if (cause === null) resolve(stdout);
      else reject(new Error(`${command} ${args.join(' ')}\n${stdout}${stderr}`, { cause }));
    });
    child.stdin?.end(input);
  });
}
